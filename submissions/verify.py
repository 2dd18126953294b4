"""Proof that a submission decodes: from its archive alone, in a process of its own."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from allocator.errors import AllocatorError
from allocator.metrics import Metric, get_metric
from codec import CodecError, ImageError, get_codec, pixels_sha256, read_image
from codec.registry import SEARCH_PATH
from submissions.archive import unpack
from submissions.submit import ARCHIVE, MANIFEST, Entry, Manifest

_TOLERANCE = 1e-4  # of metric values, relative: other processors sum in another order


@dataclass
class Verdict:
    """What verification found."""

    images: int
    bytes: int
    """Of all bitstreams."""
    archive_bytes: int
    budget_bytes: int | None
    remeasured: list[str] = field(default_factory=list)
    """Metrics that were computed anew for every image."""
    notes: list[str] = field(default_factory=list)
    """What couldn't be checked, and why."""
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all that was checked is as the manifest says."""
        return not self.failures


def verify(folder: Path) -> Verdict:
    """Decode a submission and compare it with what the table promised.

    Checked are the members' names and sizes, the total against the budget, every decoded pixel (of codecs that
    promise the same pixels everywhere) and, where the originals are still where they were, every metric.

    Raises:
        SubmissionError: the folder holds no submission, or an archive that can't be read.
        UnknownName: the manifest names a codec that isn't installed.
    """
    manifest = Manifest.read(folder / MANIFEST)
    archive = folder / ARCHIVE
    sizes = {name: len(data) for name, data in unpack(archive).items()}
    verdict = Verdict(
        images=len(manifest.entries),
        bytes=sum(sizes.values()),
        archive_bytes=archive.stat().st_size,
        budget_bytes=manifest.budget_bytes,
    )
    if verdict.budget_bytes is not None and verdict.bytes > verdict.budget_bytes:
        verdict.failures.append(f"{verdict.bytes:,} bytes exceed the budget of {verdict.budget_bytes:,}.")
    expected = {entry.name: entry.name + get_codec(entry.codec).suffix for entry in manifest.entries}
    verdict.failures += [f"{name}: isn't in the manifest." for name in sorted(sizes.keys() - set(expected.values()))]
    with tempfile.TemporaryDirectory(prefix="allocator-verify-") as scratch:
        _decode_apart(archive, Path(scratch), verdict)
        metrics, complete = _metrics(manifest, verdict), True
        for entry in manifest.entries:
            size = sizes.get(expected[entry.name])
            if size is None:
                verdict.failures.append(f"{entry.name}: isn't in the archive.")
                continue
            if size != entry.bytes:
                verdict.failures.append(f"{entry.name}: has {size} bytes, not {entry.bytes}.")
            if not _check_image(entry, Path(scratch, f"{entry.name}.png"), metrics, verdict):
                complete = False
    verdict.remeasured = sorted(metrics) if complete else []
    return verdict


def _decode_apart(archive: Path, scratch: Path, verdict: Verdict) -> None:
    command = [sys.executable, "-m", "submissions.decode", str(archive.resolve()), str(scratch)]
    banks = os.environ.get(SEARCH_PATH, "").split(os.pathsep)  # the decoder has another working directory
    env = {**os.environ, SEARCH_PATH: os.pathsep.join(str(Path(one).resolve()) for one in banks if one)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=scratch, env=env, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        verdict.failures += lines if done.returncode == 1 else [f"The decoder failed: {(lines or ['killed'])[-1]}"]


def _metrics(manifest: Manifest, verdict: Verdict) -> dict[str, Metric]:
    metrics = {}
    for name in sorted({name for entry in manifest.entries for name in entry.metrics}):
        try:
            metrics[name] = get_metric(name)
        except (AllocatorError, CodecError) as error:
            verdict.notes.append(f"{name} wasn't measured again: {error}")
    return metrics


def _check_image(entry: Entry, png: Path, metrics: dict[str, Metric], verdict: Verdict) -> bool:
    """Compare pixels and metrics; whether the metrics were measured again."""
    try:
        decoded = read_image(png)
    except ImageError:
        verdict.failures.append(f"{entry.name}: was not decoded.")
        return False
    if decoded.shape[:2] != (entry.height, entry.width):
        verdict.failures.append(f"{entry.name}: decodes to {decoded.shape[1]}x{decoded.shape[0]} pixels.")
        return False
    if pixels_sha256(decoded) != entry.decoded_sha256 and get_codec(entry.codec).exact_pixels:
        verdict.failures.append(f"{entry.name}: decodes to other pixels than were measured.")
        return False
    try:
        original = read_image(entry.path)
    except ImageError as error:
        verdict.notes.append(f"{error} Its metrics weren't measured again.")
        return False
    if pixels_sha256(original) != entry.sha256:
        verdict.notes.append(f"{entry.path}: has changed since; its metrics weren't measured again.")
        return False
    for name, metric in metrics.items():
        if name not in entry.metrics:
            continue
        value = metric.compare(metric.reference(original), decoded)
        if not abs(value - entry.metrics[name]) <= _TOLERANCE * max(abs(value), 1e-2):
            verdict.failures.append(f"{entry.name}: {name} is {value:.6g}, not {entry.metrics[name]:.6g}.")
    return True
