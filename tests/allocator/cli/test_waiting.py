from pathlib import Path

import pytest

from allocator.cli import waiting
from tests.helpers import run


def test_redirected_output_shows_progress(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_SECONDS", 0.0)
    command = ("tables", "build", photos, "-c", "webp", "-m", "psnr", "-j", 1, "-o", tmp_path / "run.db")
    lines = run(*command).err.splitlines()
    assert any(line.startswith("measuring 3/5 images, ") and "s left" in line for line in lines)
    monkeypatch.setattr(waiting, "_SECONDS", 3600.0)
    assert "measuring" not in run(*command).err
