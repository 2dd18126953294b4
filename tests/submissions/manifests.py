"""Manifests of earlier versions."""

import json
from pathlib import Path


def as_version_3(folder: Path) -> Path:
    """Write a submission's manifest as it was before it held weights."""
    content = json.loads((folder / "manifest.json").read_text())
    for entry in content["entries"]:
        entry.pop("weight", None)
    (folder / "manifest.json").write_text(json.dumps({**content, "version": 3}))
    return folder


def as_version_2(folder: Path) -> Path:
    """Write a submission's manifest as it was before it pinned bitstreams."""
    as_version_3(folder)
    content = json.loads((folder / "manifest.json").read_text())
    for name in ("archive_bytes", "archive_sha256", "table"):
        content.pop(name, None)
    for entry in content["entries"]:
        entry.pop("stream_sha256", None)
    (folder / "manifest.json").write_text(json.dumps({**content, "version": 2}))
    return folder
