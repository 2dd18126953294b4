"""Proof that a submission decodes: in a fresh folder, as the challenge's server runs it."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from allocator.errors import AllocatorError
from allocator.metrics import Metric, stored_metric
from codec import CodecError, ImageError, RGBImage, pixels_sha256, read_image
from codec.image import read_stored_image
from codec.registry import stored_codec
from submissions.archive import extract, unpack
from submissions.decoder import DECODER, Decoder, read_decoder
from submissions.devkit import Watched, filtered, watch
from submissions.errors import SubmissionError
from submissions.submit import ARCHIVE, MANIFEST, Entry, Manifest

_TOLERANCE = 1e-4  # of metric values, relative: other processors sum in another order
_MOST_STEPS = 1  # between machines, of pixels whose codec doesn't promise exact ones


@dataclass
class Verdict:
    """What verification found."""

    images: int
    bytes: int
    """Of all bitstreams."""
    archive_bytes: int
    budget_bytes: int | None
    count: str
    """Whether the bytes of the ``streams`` or of the ``archive`` count."""
    megapixels: float
    watched: Watched | None = None
    """How the submission's own decoder ran."""
    remeasured: list[str] = field(default_factory=list)
    """Metrics that were computed anew for every image."""
    notes: list[str] = field(default_factory=list)
    """What couldn't be checked, and why."""
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all that was checked is as the manifest says."""
        return not self.failures

    @property
    def counted(self) -> int:
        """Bytes of what counts."""
        return self.archive_bytes if self.count == "archive" else self.bytes


def find_submissions(folder: Path) -> list[Path]:
    """A submission's folder, or those below one that holds several.

    Raises:
        SubmissionError: there is none.
    """
    if (folder / MANIFEST).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    if not found:
        raise SubmissionError(f"{folder / MANIFEST}: there is no such file; is its folder a submission?")
    return found


def verify(folder: Path, environment: Callable[[Path], dict[str, str]] = filtered) -> Verdict:
    """Decode a submission as the server would, and compare it with what the table promised.

    Both archives are copied to a fresh folder, and ``./decode`` runs there without network, in an environment with
    the devkit's packages, within the edition's limits. Checked are the members' names and sizes, what counts against
    the budget, the decoded files' names, sizes and modes, every pixel, and, where the originals are still where they
    were, every metric. Data without a decoder is decoded by this project in a process of its own.

    Args:
        folder: of one submission; its decoder may lie in the folder above.
        environment: makes the server's environment in an empty folder.

    Raises:
        SubmissionError: the folder holds no submission, or an archive that can't be read.
        UnknownName: the manifest names a codec that isn't installed.
    """
    manifest = Manifest.read(folder / MANIFEST)
    archive = folder / ARCHIVE
    streams = unpack(archive)
    verdict = Verdict(
        images=len(manifest.entries),
        bytes=sum(map(len, streams.values())),
        archive_bytes=archive.stat().st_size,
        budget_bytes=manifest.budget_bytes,
        count=manifest.count,
        megapixels=sum(entry.width * entry.height for entry in manifest.entries) / 1e6,
    )
    if verdict.budget_bytes is not None and verdict.counted > verdict.budget_bytes:
        verdict.failures.append(f"{verdict.counted:,} bytes exceed the budget of {verdict.budget_bytes:,}.")
    expected = {entry.name: entry.name + stored_codec(entry.codec).suffix for entry in manifest.entries}
    verdict.failures += [
        f"{name}: isn't in the manifest." for name in sorted(streams.keys() - set(expected.values()))
    ]
    with tempfile.TemporaryDirectory(prefix="allocator-verify-") as scratch:
        server = Path(scratch, "server")
        server.mkdir()
        if manifest.decoder_sha256:
            _run_decoder(_decoder(folder, manifest), archive, server, manifest, environment, verdict)
        else:
            verdict.notes.append("There is no decoder in it; this project decoded the data.")
            codecs = sorted({entry.codec for entry in manifest.entries})
            _decode_apart(archive, server / "images", codecs, verdict)
        metrics, complete = _metrics(manifest, verdict), True
        for entry in manifest.entries:
            stream = streams.get(expected[entry.name])
            if stream is None:
                verdict.failures.append(f"{entry.name}: isn't in the archive.")
                continue
            if len(stream) != entry.bytes:
                verdict.failures.append(f"{entry.name}: has {len(stream)} bytes, not {entry.bytes}.")
            if not _check_image(entry, stream, server / "images" / f"{entry.name}.png", metrics, verdict):
                complete = False
    verdict.remeasured = sorted(metrics) if complete else []
    return verdict


def _decoder(folder: Path, manifest: Manifest) -> Path:
    for place in (folder / DECODER, folder.parent / DECODER):
        if place.is_file():
            found: Decoder = read_decoder(place)
            if found.sha256 != manifest.decoder_sha256:
                raise SubmissionError(
                    f"{place}: isn't the decoder that the data was packed for (its SHA-256 differs)."
                )
            return place
    raise SubmissionError(f"{folder / DECODER}: there is no such file, and the data was packed for one.")


def _run_decoder(
    decoder: Path,
    archive: Path,
    server: Path,
    manifest: Manifest,
    environment: Callable[[Path], dict[str, str]],
    verdict: Verdict,
) -> None:
    extract(decoder, server)
    shutil.copyfile(archive, server / ARCHIVE)
    variables = environment(server.parent / "environment")
    memory = int(manifest.memory_gib * 2**30)
    run = watch(server, variables, cpus=manifest.cpus, memory=memory, seconds=3600 * manifest.hours)
    verdict.watched = run
    if not run.offline:
        verdict.notes.append("This system doesn't let the decoder be cut off from the network.")
    if run.code == 1 and run.errors:
        verdict.failures += run.errors
    elif run.code != 0:
        verdict.failures.append(f"The decoder failed: {(run.errors or ['it was killed.'])[-1]}")


def _decode_apart(archive: Path, images: Path, codecs: Sequence[str], verdict: Verdict) -> None:
    command = [sys.executable, "-P", "-m", "submissions.decode", str(archive), str(images), *codecs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        verdict.failures += lines if done.returncode == 1 else [f"The decoder failed: {(lines or ['killed'])[-1]}"]


def _metrics(manifest: Manifest, verdict: Verdict) -> dict[str, Metric]:
    metrics = {}
    for name in sorted({name for entry in manifest.entries for name in entry.metrics}):
        try:
            metrics[name] = stored_metric(name)
        except (AllocatorError, CodecError) as error:
            verdict.notes.append(f"{name} wasn't measured again: {error}")
    return metrics


def _check_image(entry: Entry, stream: bytes, png: Path, metrics: dict[str, Metric], verdict: Verdict) -> bool:
    """Compare pixels and metrics; whether the metrics were measured again."""
    try:
        decoded = read_image(png)
        mode = Image.open(png).mode
    except ImageError:
        verdict.failures.append(f"{entry.name}: was not decoded.")
        return False
    if decoded.shape[:2] != (entry.height, entry.width) or mode != "RGB":
        verdict.failures.append(
            f"{entry.name}: decodes to {decoded.shape[1]}x{decoded.shape[0]} pixels, mode {mode}."
        )
        return False
    if pixels_sha256(decoded) != entry.decoded_sha256 and not _near(entry, stream, decoded):
        verdict.failures.append(f"{entry.name}: decodes to other pixels than were measured.")
        return False
    try:
        original = read_stored_image(entry.path)
    except CodecError as error:
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


def _near(entry: Entry, stream: bytes, decoded: RGBImage) -> bool:
    """Whether pixels differ from what is decoded here by no more than machines may."""
    codec = stored_codec(entry.codec)
    if codec.exact_pixels:
        return False
    try:
        here = codec.decode(stream)
    except CodecError:
        return False
    return here.shape == decoded.shape and int(np.abs(here.astype(np.int16) - decoded).max()) <= _MOST_STEPS
