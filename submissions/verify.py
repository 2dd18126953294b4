"""Proof that a submission decodes: in a fresh folder, as the challenge's server runs it.

What a manifest says is compared with what doesn't come from it: archives with their bytes, budgets with the edition's
rules, entries with the table, images with their originals. What there is nothing to compare with is named.
"""

import contextlib
import hashlib
import io
import math
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from allocator.errors import AllocatorError
from allocator.images import find_images
from allocator.metrics import Metric, stored_metric
from allocator.objective import Objective, Term
from allocator.tables import Table
from codec import Codec, CodecError, RGBImage, pixels_sha256, read_image
from codec.image import read_stored_image
from codec.registry import stored_codec
from codec.remote import is_address
from submissions.archive import Streams, extract, open_streams, pack
from submissions.decoder import DECODER
from submissions.devkit import Watched, filtered, watch
from submissions.edition import CUSTOM, Edition, edition_names, find_edition
from submissions.errors import SubmissionError
from submissions.manifest import ARCHIVE, MANIFEST, Entry, Manifest
from submissions.perturbation import CONDITIONS, difference, write_script

_TOLERANCE = 1e-4  # of metric values, relative: other processors sum in another order
_MOST_STEPS = 1  # between machines, of pixels whose codec doesn't promise exact ones
_MOST_NAMED = 5  # in one sentence
SERVER, HERE = "server", "here"
"""Folders: where the submission's decoder runs, and where this project decodes."""
_DECODED_BYTES, _SPARE_DISK = 8, 4 << 30
"""What a decoder may write: so many bytes a pixel, and some more."""
_MOST_DECODER = 4 << 30
_BLOCK = 1 << 20
_UNFOLLOWED = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""No link is followed, and no pipe waited for."""


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
    confirmed: list[str] = field(default_factory=list)
    """What was compared with something else than the manifest, for every image, and is as the manifest says."""
    from_table: bool = False
    """Whether that is what the table holds, and so what was measured."""
    perturbed: list[str] = field(default_factory=list)
    """What became of the images under each of the other conditions."""
    unchecked: list[str] = field(default_factory=list)
    """What couldn't be checked, and why."""
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all that was checked is as the manifest says."""
        return not self.failures

    @property
    def unenforced(self) -> list[str]:
        """Limits of the server that the decoder ran without, and why."""
        return self.watched.unenforced if self.watched else []

    @property
    def counted(self) -> int:
        """Bytes of what counts."""
        return self.archive_bytes if self.count == "archive" else self.bytes


class _Sources(NamedTuple):
    """What a manifest is compared with, beside the archives."""

    table: Path | None
    images: dict[str, str | None] | None
    """The target list: name to where its original is, if anywhere."""
    edition: Edition | None
    perturb: bool
    """Whether the decoder is also run under other conditions."""


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


def target_list(paths: Iterable[str]) -> dict[str, str | None]:
    """The images that a submission has to hold, each with its original's path or address, if it is known.

    Args:
        paths: images, folders and addresses of them, and text files (``.txt``) with a name on each line.

    Raises:
        SubmissionError: a list can't be read.
        AllocatorError, CodecError: see :func:`allocator.images.find_images`.
    """
    paths = list(paths)
    lists = [path for path in paths if path.lower().endswith(".txt") and not is_address(path)]
    names: dict[str, str | None] = {}
    for path in lists:
        try:
            lines = Path(path).read_text(encoding="utf-8").split("\n")
        except (OSError, ValueError) as error:
            raise SubmissionError(f"{path}: is no list of names that can be read ({error}).") from error
        names |= {line.strip().removesuffix(".png"): None for line in lines if line.strip()}
    names |= {image.name: image.path for image in find_images([path for path in paths if path not in lists])}
    return names


def verify(
    folder: Path,
    environment: Callable[[Path], dict[str, str]] = filtered,
    *,
    table: Path | None = None,
    images: Sequence[str] = (),
    edition: Edition | None = None,
    perturb: bool = False,
) -> Verdict:
    """Decode a submission as the server would, and compare it with what was measured.

    Both archives are copied to a fresh folder and their SHA-256 compared before either is parsed; ``./decode`` runs
    there in an environment with the devkit's packages, cut off from the machine as far as it allows, within the
    edition's limits. Checked are the bitstreams, what counts against the budget that the edition gives these images,
    the decoded files' names, sizes and modes, every pixel, and, where the originals are at hand, every metric; and
    all of the manifest against the table. Data without a decoder is decoded by this project in a process of its own.

    Args:
        folder: of one submission; its decoder may lie in the folder above.
        environment: makes the server's environment in an empty folder.
        table: that the submission was made from; by default the one that the manifest names, if it is still there.
        images: the target list, see :func:`target_list`.
        edition: whose rules are to be kept; by default the one that the manifest names, if it is known.
        perturb: decode once more under each of :data:`submissions.perturbation.CONDITIONS`.

    Raises:
        SubmissionError: the folder holds no submission, or an archive that can't be read.
        CodecError: data without a decoder, or of an older version, is of a codec that isn't known here.
        TableError: ``table`` can't be read.
    """
    manifest = Manifest.read(folder / MANIFEST)
    sources = _Sources(table, target_list(images) if images else None, edition, perturb)
    verdict = Verdict(
        images=len(manifest.entries),
        bytes=manifest.bytes,
        archive_bytes=0,
        budget_bytes=manifest.budget_bytes,
        count=manifest.count,
        megapixels=manifest.pixels / 1e6,
    )
    scratch = Path(tempfile.mkdtemp(prefix="allocator-verify-"))
    try:
        _verify(folder, manifest, scratch, environment, sources, verdict)
    finally:
        _remove(scratch)
    return verdict


def _remove(folder: Path) -> None:
    """Remove a folder in which a stranger's program may have made others, however deep and whatever their modes."""
    folders, left = [], [folder]
    while left:
        folders.append(left.pop())
        with contextlib.suppress(OSError):  # paths grow too long for the system: `rm` goes down step by step
            folders[-1].chmod(0o700)
            left += [Path(entry.path) for entry in os.scandir(folders[-1]) if entry.is_dir(follow_symlinks=False)]
    if shutil.which("rm"):
        subprocess.run(["rm", "-rf", "--", str(folder)], capture_output=True, check=False)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _verify(
    folder: Path,
    manifest: Manifest,
    scratch: Path,
    environment: Callable[[Path], dict[str, str]],
    sources: _Sources,
    verdict: Verdict,
) -> None:
    codecs = _find_codecs(manifest)
    rules = _check_rules(manifest, sources.edition, verdict)
    archive = _copy_archive(folder, manifest, scratch, verdict)
    decoder = _copy_decoder(folder, manifest, rules, scratch, verdict)
    streams = open_streams(archive)
    verdict.bytes = sum(map(streams.size, streams))
    _check_budget(manifest, rules, verdict)
    _check_streams(manifest, streams, codecs, verdict)
    _check_target_list(manifest, sources.images, verdict)
    known = _check_table(manifest, streams, codecs, sources.table, verdict)
    _check_claims(manifest, verdict)
    if verdict.failures:  # what isn't what was measured need not be run
        return
    if decoder:
        _run_decoder(decoder, archive, scratch / SERVER, rules, environment, verdict)
    else:
        verdict.unchecked.append("the decoder: there is none, and this project decoded the data.")
        _decode_here(archive, scratch / SERVER / "images", _in_full(codecs, codecs), rules, verdict)
    _check_images(manifest, streams, codecs, scratch, rules, sources, known, verdict)
    if sources.perturb and decoder:
        _check_perturbed(manifest, decoder, archive, scratch, rules, environment, verdict)
    elif sources.perturb:
        verdict.unchecked.append("other conditions: there is no decoder to run under them.")


Codecs = dict[str, Codec | None]
"""The codecs of a manifest by name; None for those that aren't known here, such as an entrant's model."""


def _find_codecs(manifest: Manifest) -> Codecs:
    codecs: Codecs = {}
    for name in sorted({entry.codec for entry in manifest.entries}):
        try:
            codecs[name] = stored_codec(name)
        except CodecError:
            if not (manifest.decoder_sha256 and all(entry.suffix for entry in manifest.entries)):
                raise
            codecs[name] = None
    return codecs


def _file_name(entry: Entry, codecs: Codecs) -> str:
    codec = codecs[entry.codec]
    return entry.name + (entry.suffix or (codec.suffix if codec else ""))


def _in_full(codecs: Codecs, names: Iterable[str]) -> list[str]:
    """Names as another process understands them: models with their specifications."""
    models = {name: getattr(codec, "specification", None) for name, codec in codecs.items()}
    return [f"{name}={models[name]}" if models[name] and models[name] != name else name for name in names]


def _named(names: Iterable[str]) -> str:
    """Some of the names, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - _MOST_NAMED:,} more" if len(listed) > _MOST_NAMED else ""
    return ", ".join(listed[:_MOST_NAMED]) + more


def _check_rules(manifest: Manifest, wanted: Edition | None, verdict: Verdict) -> Edition:
    """The rules that hold: of the wanted edition, else of the named one, else the manifest's within usual limits."""
    edition = wanted
    if edition is None and manifest.edition in edition_names():
        edition = find_edition(manifest.edition)
    if edition is None:
        usual = Edition(CUSTOM)
        verdict.unchecked.append(
            f"the rules: {manifest.edition!r} is no edition that is known here, so rate, count and limits are the "
            "manifest's own (give --edition)."
        )
        return Edition(
            manifest.edition,
            count=manifest.count,  # type: ignore[arg-type]
            cpus=manifest.cpus,
            memory_gib=min(manifest.memory_gib, usual.memory_gib),
            hours=min(manifest.hours, usual.hours),
        )
    if manifest.edition != edition.name:
        verdict.failures.append(f"The manifest is of the edition {manifest.edition!r}, not {edition.name!r}.")
    for name in ("count", "cpus", "memory_gib", "hours"):
        claimed, given = getattr(manifest, name), getattr(edition, name)
        if claimed != given:
            verdict.failures.append(f"The manifest says {name} = {claimed}; the edition {edition.name} has {given}.")
    if manifest.rule != "pooled":
        verdict.failures.append(f"The rate of the edition {edition.name} is pooled, not {manifest.rule}.")
    elif not edition.has_target(manifest.target_bpp):
        verdict.failures.append(f"The edition {edition.name} has no rate of {manifest.target_bpp:g} bpp.")
    verdict.count = edition.count
    return edition


def _check_budget(manifest: Manifest, rules: Edition, verdict: Verdict) -> None:
    """What counts against what the rules give these images."""
    target = Fraction(str(manifest.target_bpp))
    if manifest.rule == "mean":
        rates = (Fraction(8 * entry.bytes, entry.width * entry.height) for entry in manifest.entries)
        mean = sum(rates, Fraction()) / len(manifest.entries)
        if mean > target * (1 + Fraction(1, 10**12)):
            verdict.failures.append(f"The mean of {float(mean):.6g} bpp exceeds the target of {float(target):g}.")
        return
    claimed = manifest.budget_bytes or 0
    try:
        cap = rules.cap(target, manifest.pixels)
    except SubmissionError as error:
        verdict.failures.append(str(error))
        return
    # without an edition a budget is rounded down, or was given in bytes and the rate follows from it
    own = rules.name not in edition_names() and not rules.targets
    if claimed != cap and not (own and abs(claimed - target * manifest.pixels / 8) <= 1):
        verdict.failures.append(
            f"The manifest claims a budget of {claimed:,} bytes; {float(target):g} bpp of {manifest.pixels:,} pixels "
            f"are {cap:,}."
        )
    verdict.budget_bytes = min(cap, claimed)
    if verdict.counted > verdict.budget_bytes:
        verdict.failures.append(f"{verdict.counted:,} bytes exceed the budget of {verdict.budget_bytes:,}.")


def _copy(source: Path, target: Path, most: int) -> tuple[int, str]:
    """Copy a file of at most so many bytes; its size and SHA-256."""
    try:
        if not source.is_file():
            raise SubmissionError(f"{source}: there is no such file.")
        size = source.stat().st_size
        if size > most:
            raise SubmissionError(
                f"{source}: has {size:,} bytes, and at most {most:,} can belong to this submission."
            )
        digest = hashlib.sha256()
        with source.open("rb") as file, target.open("xb") as copy:
            while block := file.read(min(_BLOCK, most + 1 - copy.tell())):
                digest.update(block)
                copy.write(block)
            return copy.tell(), digest.hexdigest()
    except OSError as error:
        raise SubmissionError(f"{source}: can't be read and copied ({error.strerror or error}).") from error


def _copy_archive(folder: Path, manifest: Manifest, scratch: Path, verdict: Verdict) -> Path:
    """The data archive's copy, which is as the manifest pins it, or the failure says so."""
    # without a pin: the bitstreams, and for each two headers and two names
    most = manifest.archive_bytes or manifest.bytes + sum(256 + 8 * len(entry.name) for entry in manifest.entries)
    archive = scratch / ARCHIVE
    size, digest = _copy(folder / ARCHIVE, archive, most + (1 << 20))
    verdict.archive_bytes = size
    if not manifest.archive_sha256:
        verdict.unchecked.append(
            f"the SHA-256 of {ARCHIVE} and of each bitstream: a manifest of version {manifest.version} has none."
        )
    elif (size, digest) != (manifest.archive_bytes, manifest.archive_sha256):
        verdict.failures.append(f"{ARCHIVE}: isn't the archive that was packed (its SHA-256 differs).")
    return archive


def _copy_decoder(folder: Path, manifest: Manifest, rules: Edition, scratch: Path, verdict: Verdict) -> Path | None:
    found = [place for place in (folder / DECODER, folder.parent / DECODER) if place.exists()]
    if not manifest.decoder_sha256:
        if found:
            verdict.failures.append(
                f"{found[0]}: lies there, and the manifest names no decoder; delete it, or pack the data for it."
            )
        return None
    if not found:
        raise SubmissionError(f"{folder / DECODER}: there is no such file, and the data was packed for one.")
    decoder = scratch / DECODER
    size, digest = _copy(found[0], decoder, _MOST_DECODER)
    if digest != manifest.decoder_sha256:
        raise SubmissionError(f"{found[0]}: isn't the decoder that the data was packed for (its SHA-256 differs).")
    if rules.decoder_bytes and size > rules.decoder_bytes:
        verdict.failures.append(f"{DECODER}: has {size:,} bytes, and {rules.decoder_bytes:,} are allowed.")
    return decoder


def _check_streams(manifest: Manifest, streams: Streams, codecs: Codecs, verdict: Verdict) -> None:
    if streams.spare:
        verdict.failures.append(f"{ARCHIVE}: has {streams.spare:,} bytes that belong to no bitstream.")
    expected = {_file_name(entry, codecs): entry for entry in manifest.entries}
    verdict.failures += [f"{name}: isn't in the manifest." for name in sorted(streams.keys() - expected.keys())]
    for name, entry in expected.items():
        if name not in streams:
            verdict.failures.append(f"{entry.name}: isn't in the archive.")
        elif streams.size(name) != entry.bytes:
            verdict.failures.append(f"{entry.name}: has {streams.size(name)} bytes, not {entry.bytes}.")
        elif entry.stream_sha256 and hashlib.sha256(streams[name]).hexdigest() != entry.stream_sha256:
            verdict.failures.append(f"{entry.name}: isn't the bitstream that was measured (its SHA-256 differs).")


def _check_target_list(manifest: Manifest, images: dict[str, str | None] | None, verdict: Verdict) -> None:
    if images is not None:
        _check_names(manifest, images.keys(), "of the target list", verdict)


def _check_names(manifest: Manifest, names: Iterable[str], of: str, verdict: Verdict) -> None:
    own, wanted = {entry.name for entry in manifest.entries}, set(names)
    if wanted - own:
        verdict.failures.append(f"{len(wanted - own):,} images {of} are missing: {_named(wanted - own)}.")
    if own - wanted:
        verdict.failures.append(f"{len(own - wanted):,} images are none {of}: {_named(own - wanted)}.")


def _check_table(
    manifest: Manifest, streams: Streams, codecs: Codecs, given: Path | None, verdict: Verdict
) -> set[str]:
    """The names of the images whose bitstream is the table's."""
    path = given or (Path(manifest.table) if manifest.table else None)
    known: set[str] = set()
    try:
        if path is None or (given is None and not path.is_file()):
            where = f"{path} isn't there" if path else f"a manifest of version {manifest.version} names none"
            verdict.unchecked.append(
                f"the manifest against its table: {where} (give --table), so that values are what the manifest says."
            )
            return known
        with Table(path) as table:
            members = {member.name: member for member in table.members()}
            _check_names(manifest, members.keys(), f"of {path}", verdict)
            between, unkept, lacking = [], [], set[str]()
            for entry in manifest.entries:
                member = members.get(entry.name)
                if member is None:
                    continue
                if (entry.sha256, entry.width, entry.height) != (member.sha256, member.width, member.height):
                    verdict.failures.append(f"{entry.name}: is another image than the table's.")
                    continue
                found = table.find_point(entry.sha256, entry.fingerprint)
                if found is None:
                    between.append(entry.name)
                    continue
                codec, point = found
                lacking |= point.values.keys() - entry.metrics.keys()
                differing = [
                    name
                    for name, theirs in {
                        "codec": codec,
                        "level": point.level,
                        "setting": point.setting,
                        "bytes": point.bytes,
                        "decoded_sha256": point.decoded_sha256,
                        "metrics": {name: point.values.get(name) for name in entry.metrics},
                    }.items()
                    if getattr(entry, name) != theirs
                ]
                stored = table.bitstream(entry.sha256, entry.fingerprint)
                name = _file_name(entry, codecs)
                if stored is None:
                    unkept.append(entry.name)
                elif name in streams and streams[name] != stored:
                    differing.append("bitstream")
                else:
                    known.add(entry.name)
                if differing:
                    verdict.failures.append(f"{entry.name}: differs from the table in {', '.join(differing)}.")
            if between:
                verdict.unchecked.append(
                    f"{len(between):,} images against the table, which lacks their settings: {_named(between)}."
                )
            if lacking:
                verdict.unchecked.append(f"{_named(lacking)}: the table has values that the manifest lacks.")
            if unkept:
                verdict.unchecked.append("the bitstreams against the table: it keeps none.")
            verdict.from_table = not between
    except AllocatorError as error:
        if given:
            raise
        verdict.unchecked.append(f"the manifest against its table: {error}")
    return known


def _check_claims(manifest: Manifest, verdict: Verdict) -> None:
    """What follows from the entries."""
    rates = [8 * entry.bytes / (entry.width * entry.height) for entry in manifest.entries]
    bpp = 8 * manifest.bytes / manifest.pixels if manifest.rule == "pooled" else math.fsum(rates) / len(rates)
    if not math.isclose(bpp, manifest.bpp, rel_tol=1e-9):
        verdict.failures.append(f"The manifest claims {manifest.bpp:.6g} bpp; its bitstreams have {bpp:.6g}.")
    for metric in sorted({name for entry in manifest.entries for name in entry.metrics}):
        if lacking := [entry.name for entry in manifest.entries if metric not in entry.metrics]:
            verdict.unchecked.append(f"{metric} of {_named(lacking)}: the manifest has no value.")
    if not any(entry.metrics for entry in manifest.entries):
        verdict.unchecked.append("metrics: the manifest has none.")
    value = _value(manifest)
    if value is None:
        verdict.unchecked.append(f"the objective's value ({manifest.objective}): it doesn't follow from the entries.")
    elif not math.isclose(value, manifest.value, rel_tol=_TOLERANCE, abs_tol=1e-9):
        verdict.failures.append(
            f"The manifest claims a {manifest.objective} of {manifest.value:.6g}; its entries have {value:.6g}."
        )


def _value(manifest: Manifest) -> float | None:
    """The objective's value, from its label and the entries' metrics; None where they don't tell."""
    import pandas as pd

    label = manifest.objective if manifest.objective.startswith("- ") else f"+ {manifest.objective}"
    parts = re.findall(r"([+-]) (?:([0-9.e+-]+) )?(\S+)", label)
    alone = len(parts) == 1 and label == f"+ {parts[0][2]}"
    with contextlib.suppress(AllocatorError, CodecError, ValueError, OverflowError):
        higher = [stored_metric(name).higher_is_better if alone else sign == "-" for sign, _, name in parts]
        terms = [Term(name, up, float(weight or 1)) for up, (_, weight, name) in zip(higher, parts, strict=True)]
        objective = Objective(tuple(terms), manifest.aggregate)
        if objective.power is None and objective.label == manifest.objective:
            frame = pd.DataFrame([entry.metrics for entry in manifest.entries])
            pixels = np.array([entry.width * entry.height for entry in manifest.entries], np.float64)
            shares = objective.shares([entry.name for entry in manifest.entries], pixels)
            return objective.value(objective.costs(frame), shares)
    return None


def _run_decoder(
    decoder: Path,
    archive: Path,
    server: Path,
    rules: Edition,
    environment: Callable[[Path], dict[str, str]],
    verdict: Verdict,
) -> None:
    server.mkdir()
    extract(decoder, server)
    shutil.copyfile(archive, server / ARCHIVE)
    variables = environment(server.parent / "environment")
    memory = int(rules.memory_gib * 2**30)
    seconds, disk = 3600 * rules.hours, _DECODED_BYTES * int(1e6 * verdict.megapixels) + _SPARE_DISK
    run = watch(server, variables, cpus=rules.cpus, memory=memory, seconds=seconds, disk=disk)
    verdict.watched = run
    if run.code == 1 and run.errors:
        verdict.failures += run.errors
    elif run.code != 0:
        verdict.failures.append(f"The decoder failed: {(run.errors or ['it was killed.'])[-1]}")


def _decode_here(archive: Path, folder: Path, codecs: Sequence[str], rules: Edition, verdict: Verdict) -> None:
    """Decode by this project into a folder, in a process of its own within the limits."""
    command = [sys.executable, "-P", "-m", "submissions.decode", str(archive), str(folder), *codecs]
    memory = int(rules.memory_gib * 2**30)
    run = watch(
        Path.cwd(),
        dict(os.environ),
        cpus=rules.cpus,
        memory=memory,
        seconds=3600 * rules.hours,
        command=command,
        own=True,
    )
    if run.code == 1 and run.errors:
        verdict.failures += run.errors
    elif run.code != 0:
        verdict.failures.append(f"Decoding failed: {(run.errors or ['it was killed.'])[-1]}")


def _check_images(
    manifest: Manifest,
    streams: Streams,
    codecs: Codecs,
    scratch: Path,
    rules: Edition,
    sources: _Sources,
    known: set[str],
    verdict: Verdict,
) -> None:
    """Compare every pixel and, where originals are at hand, metrics."""
    metrics = _metrics(manifest, verdict)
    near: list[Entry] = []
    unknown: list[Entry] = []
    remeasured: set[str] = set()
    complete = bool(metrics)
    absent: list[str] = []
    for entry in manifest.entries:
        decoded = _read_decoded(scratch / SERVER, entry, verdict)
        if decoded is None:
            complete = False
            continue
        if pixels_sha256(decoded) != entry.decoded_sha256:
            codec = codecs[entry.codec]
            if codec and codec.exact_pixels:
                verdict.failures.append(f"{entry.name}: decodes to other pixels than were measured.")
                continue
            (near if codec else unknown).append(entry)
        original = _original(entry, sources.images, verdict)
        if original is None:
            absent.append(entry.name)
        elif _check_metrics(entry, original, decoded, metrics, verdict):
            remeasured.add(entry.name)
    if absent:
        verdict.unchecked.append(
            f"metrics of {len(absent):,} images: their originals aren't at hand (give --images): {_named(absent)}."
        )
    _check_near(near, streams, codecs, scratch, rules, verdict)
    # without a pin both decoders may have decoded another image's bitstream
    pinned = {entry.name for entry in manifest.entries if entry.stream_sha256}
    unsure = [entry.name for entry in near if entry.name not in pinned | known | remeasured]
    if unsure:
        verdict.unchecked.append(
            f"pixels of {_named(unsure)}: they aren't exactly those that were measured, and a manifest of version "
            f"{manifest.version} doesn't say whether the bitstream is."
        )
    if unknown:
        verdict.unchecked.append(
            f"pixels of {_named(entry.name for entry in unknown)}: they aren't exactly those that were measured, and "
            f"{_named({entry.codec for entry in unknown})} isn't known here to say whether they may (give --codec)."
        )
    verdict.confirmed = ["bytes", *([] if unsure or unknown else ["pixels"])]
    if complete and not absent:
        verdict.confirmed += [name for name in sorted(metrics) if all(name in e.metrics for e in manifest.entries)]


def _check_perturbed(
    manifest: Manifest,
    decoder: Path,
    archive: Path,
    scratch: Path,
    rules: Edition,
    environment: Callable[[Path], dict[str, str]],
    verdict: Verdict,
) -> None:
    """Whether images are decoded to (nearly) the same pixels where floating-point sums end otherwise."""
    for i, condition in enumerate(CONDITIONS):
        folder = scratch / f"perturbed-{i}"
        folder.mkdir()
        extract(decoder, folder)
        shutil.copyfile(archive, folder / ARCHIVE)
        write_script(folder)
        run = watch(
            folder,
            environment(scratch / f"environment-{i}") | condition.variables,
            cpus=rules.cpus,
            memory=int(rules.memory_gib * 2**30),
            seconds=3600 * rules.hours,
            command=condition.command,
        )
        if run.code not in (0, 1):
            said = (run.errors or ["it was killed."])[-1]
            verdict.failures.append(f"{condition.name}: the decoder failed: {said}")
            continue
        apart: list[int] = []
        for entry in manifest.entries:
            before = _read_decoded(scratch / SERVER, entry, verdict)
            if before is None:
                continue
            if not (folder / "images" / f"{entry.name}.png").exists():
                verdict.failures.append(f"{entry.name}: isn't decoded {condition.name}.")
                continue
            after = _read_decoded(folder, entry, verdict)
            if after is None:
                continue
            steps, share = difference(before, after)
            apart.append(steps)
            if steps > _MOST_STEPS:
                verdict.failures.append(
                    f"{entry.name}: decodes to other pixels {condition.name}, up to {steps} steps off, in "
                    f"{share:.1%} of them."
                )
        verdict.perturbed.append(
            f"{condition.name}: {apart.count(0)} of {len(manifest.entries)} images equal, "
            f"{sum(0 < steps <= _MOST_STEPS for steps in apart)} a step off, "
            f"{sum(steps > _MOST_STEPS for steps in apart)} further off"
        )


def _metrics(manifest: Manifest, verdict: Verdict) -> dict[str, Metric]:
    metrics = {}
    for name in sorted({name for entry in manifest.entries for name in entry.metrics}):
        try:
            metrics[name] = stored_metric(name)
        except (AllocatorError, CodecError) as error:
            verdict.unchecked.append(f"{name}: {error}")
    return metrics


def _read_decoded(folder: Path, entry: Entry, verdict: Verdict) -> RGBImage | None:
    """What was decoded, if it is an RGB PNG of the image's size; a link, a pipe or a bomb is not followed."""
    most = 3 * entry.width * entry.height * 9 // 8 + (1 << 20)
    path = folder
    try:
        for part in f"images/{entry.name}.png".split("/"):
            path = path / part
            if path.is_symlink():
                raise OSError
        with os.fdopen(os.open(path, _UNFOLLOWED), "rb") as file:
            kind = os.fstat(file.fileno())
            if not stat.S_ISREG(kind.st_mode) or kind.st_size > most:
                raise OSError
            data = file.read(most)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            size, mode = image.size, image.mode
            if (size, mode) == ((entry.width, entry.height), "RGB"):
                return np.asarray(image).copy()
    except Exception:  # Pillow raises almost anything on damaged input
        verdict.failures.append(f"{entry.name}: was not decoded.")
        return None
    verdict.failures.append(f"{entry.name}: decodes to {size[0]}x{size[1]} pixels, mode {mode}.")
    return None


def _original(entry: Entry, images: dict[str, str | None] | None, verdict: Verdict) -> RGBImage | None:
    """The original, where it is at hand."""
    given = (images or {}).get(entry.name)
    try:
        original = read_image(given) if given else read_stored_image(entry.path)
    except CodecError:
        return None
    if pixels_sha256(original) == entry.sha256:
        return original
    if given:
        verdict.failures.append(f"{given}: isn't the image that was measured.")
    return None


def _check_metrics(
    entry: Entry, original: RGBImage, decoded: RGBImage, metrics: dict[str, Metric], verdict: Verdict
) -> bool:
    """Whether there was a metric to measure again."""
    names = [name for name in metrics if name in entry.metrics]
    for name in names:
        value = metrics[name].compare(metrics[name].reference(original), decoded)
        if not abs(value - entry.metrics[name]) <= _TOLERANCE * max(abs(value), 1e-2):
            verdict.failures.append(f"{entry.name}: {name} is {value:.6g}, not {entry.metrics[name]:.6g}.")
    return bool(names)


def _check_near(
    entries: Sequence[Entry],
    streams: Streams,
    codecs: Codecs,
    scratch: Path,
    rules: Edition,
    verdict: Verdict,
) -> None:
    """Whether pixels differ from what this project decodes by no more than machines may."""
    if not entries:
        return
    archive = scratch / "near.zip"
    archive.write_bytes(pack({_file_name(entry, codecs): streams[_file_name(entry, codecs)] for entry in entries}))
    _decode_here(
        archive,
        scratch / HERE / "images",
        _in_full(codecs, sorted({entry.codec for entry in entries})),
        rules,
        verdict,
    )
    for entry in entries:
        theirs, ours = (_read_decoded(scratch / place, entry, verdict) for place in (SERVER, HERE))
        if theirs is None or ours is None:
            continue
        steps = int(np.abs(ours.astype(np.int16) - theirs).max())
        if steps > _MOST_STEPS:
            verdict.failures.append(
                f"{entry.name}: decodes to other pixels than were measured, up to {steps} steps off."
            )
