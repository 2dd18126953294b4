"""The decoder archive: an executable ``decode`` that brings all it needs beside torch, numpy and Pillow.

::

    decode            started without arguments: bs.zip in the working directory to images/NAME.png
    decoder.json      which codecs and Pythons it is for
    modules/          the modules of this project that decoding imports
    banks/NAME/       weights and tables of learned codecs
    wheels/cp312/     what the codecs require, unpacked, for each Python
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from modulefinder import ModuleFinder
from pathlib import Path

from codec.base import Codec
from codec.files import write_file
from codec.learned import LearnedCodec
from codec.registry import CODECS
from submissions.archive import pack, read_member
from submissions.decode import DECODER_FILE
from submissions.errors import SubmissionError

DECODER = "decoder.zip"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
"""That a decoder runs under unless it is asked otherwise."""
MACHINE = "x86_64"
"""The challenge's processor."""
FORMAT = 1
_MOST_INDEX = 1 << 20
"""Bytes of what says which codecs a decoder is for."""
_OWN = ("codec", "submissions")
_LAUNCHER = b"""#!/usr/bin/env python3
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(here / "modules"), str(here / "wheels" / "cp{}{}".format(*sys.version_info))]

if __name__ == "__main__":
    from submissions.decode import Source, run

    sys.exit(run(Path("bs.zip"), Path("images"), Source(here)))
"""


@dataclass(frozen=True)
class Decoder:
    """A decoder archive, and what it decodes."""

    data: bytes
    versions: dict[str, str]
    """Each codec's name to the version that it had."""
    pythons: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Of the archive, in hex."""
        return hashlib.sha256(self.data).hexdigest()

    def refuse_unknown(self, codecs: Iterable[Codec]) -> None:
        """Make sure that it decodes what codecs encode.

        Raises:
            SubmissionError: it doesn't.
        """
        for codec in codecs:
            theirs = self.versions.get(codec.name)
            if theirs != codec.version:
                known = f"only {codec.name} of {theirs!r}" if theirs else f"only {', '.join(sorted(self.versions))}"
                raise SubmissionError(
                    f"The decoder can't decode {codec.name} of {codec.version!r}; it knows {known}. "
                    "Allocate with --codec among what it knows, or pack another decoder."
                )


def read_decoder(path: Path) -> Decoder:
    """A decoder archive that was packed before.

    Raises:
        SubmissionError: it can't be read, or is none.
    """
    if not path.is_file():
        raise SubmissionError(f"{path}: there is no such decoder.")
    try:
        content = json.loads(read_member(path, DECODER_FILE, _MOST_INDEX))
        known, codecs, pythons = content["format"], content["codecs"], content["pythons"]
        versions = {str(codec["name"]): str(codec["version"]) for codec in codecs}
        decoder = Decoder(path.read_bytes(), versions, tuple(map(str, pythons)))
    except (SubmissionError, OSError, LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SubmissionError(f"{path}: is no decoder archive, or a damaged one.") from error
    if known != FORMAT:
        raise SubmissionError(f"{path}: is of format {known!r}; this version reads {FORMAT}.")
    return decoder


def make_decoder(
    codecs: Sequence[Codec], pythons: Sequence[str], wheelhouse: Path | None = None, machine: str = MACHINE
) -> Decoder:
    """Pack a decoder; the same codecs, Pythons and versions give the same bytes.

    Args:
        codecs: that it is to decode, all levels.
        pythons: the versions that it is to run under: ``3.12``.
        wheelhouse: a folder of wheels, in place of the package registry.
        machine: the server's processor, as Linux names it.

    Raises:
        SubmissionError: a wheel can't be had, or a codec is no entry point.
    """
    members: dict[str, bytes] = {"decode": _LAUNCHER}
    entries: list[dict[str, str]] = []
    modules = {"submissions.decode"}
    for codec in sorted(codecs, key=lambda codec: codec.name):
        if isinstance(codec, LearnedCodec):
            source = f"banks/{codec.name}"
            modules |= {"codec.learned", type(codec.bank.config).__module__}
            for file in ("manifest.json", *sorted(codec.bank.files)):
                members[f"{source}/{file}"] = (codec.bank.folder / file).read_bytes()
        else:
            source = _entry_point(codec)
            modules.add(source.partition(":")[0])
        entries.append({"name": codec.name, "suffix": codec.suffix, "version": codec.version, "source": source})
    for name, data in _imported(modules).items():
        members[f"modules/{name}"] = data
    required = sorted({name for codec in codecs for name in codec.requirements})
    for python in pythons:
        if not re.fullmatch(r"3\.\d+", python):
            raise SubmissionError(f"A Python is named like 3.12, not {python!r}.")
        for name, data in _required(required, python, wheelhouse, machine).items():
            members[f"wheels/cp{python.replace('.', '')}/{name}"] = data
    content = {"format": FORMAT, "pythons": sorted(pythons), "codecs": entries}
    members[DECODER_FILE] = (json.dumps(content, indent=1) + "\n").encode()
    versions = {codec.name: codec.version for codec in codecs}
    return Decoder(pack(members, {"decode": 0o755}), versions, tuple(sorted(pythons)))


def _entry_point(codec: Codec) -> str:
    found = list(importlib.metadata.entry_points(group=CODECS, name=codec.name))
    if not found:
        raise SubmissionError(f"{codec.name} is no registered codec, so that a decoder can't bring it.")
    return found[0].value


def _imported(modules: Iterable[str]) -> dict[str, bytes]:
    """The files that modules import, at once or later, of their own packages: name to content."""
    with tempfile.TemporaryDirectory() as only:  # installed, these packages lie beside torch's and all others
        for package in sorted({module.partition(".")[0] for module in [*modules, *_OWN]}):
            found = importlib.util.find_spec(package)
            if found is None or found.origin is None:
                raise SubmissionError(f"{package} can't be found as a package of files, so a decoder can't bring it.")
            origin = Path(found.origin)
            place = origin.parent if found.submodule_search_locations else origin
            Path(only, place.name).symlink_to(place)
        finder = ModuleFinder(path=[only])
        for module in sorted(modules):
            finder.import_hook(module, None, ["*"])
        files = [Path(file) for module in finder.modules.values() if (file := getattr(module, "__file__", None))]
        return {path.relative_to(only).as_posix(): path.read_bytes() for path in files}


def _required(names: Sequence[str], python: str, wheelhouse: Path | None, machine: str) -> dict[str, bytes]:
    """The files of distributions for one Python, in the versions that are installed here."""
    if not names:
        return {}
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if (python, machine) == (here, platform.machine()) and sys.platform == "linux" and wheelhouse is None:
        return {name: data for one in names for name, data in _installed(one).items()}
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in names]
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        _download(wanted, python, wheelhouse, machine, Path(scratch))
        for wheel in sorted(Path(scratch).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                files |= {name: archive.read(name) for name in archive.namelist() if _needed(name)}
    return files


def _installed(name: str) -> dict[str, bytes]:
    distribution = importlib.metadata.distribution(name)
    return {
        file.as_posix(): Path(str(distribution.locate_file(file))).read_bytes()
        for file in distribution.files or ()
        if _needed(file.as_posix())
    }


def _needed(name: str) -> bool:
    """Whether a file of a wheel is imported or read; of its metadata only the version is."""
    if name.endswith("/") or name.startswith("../") or "__pycache__" in name:
        return False
    return ".dist-info/" not in name or name.endswith(".dist-info/METADATA")


def _download(wanted: Sequence[str], python: str, wheelhouse: Path | None, machine: str, folder: Path) -> None:
    """Wheels from the wheelhouse, the cache or the registry; what the registry gave is kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "clic-allocator", "wheels")
    platforms = [f"--platform=manylinux{tag}_{machine}" for tag in ("_2_28", "_2_27", "_2_17", "2014")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms]
    places = [place for place in (wheelhouse, None if wheelhouse else cache) if place and place.is_dir()]
    links = [f"--find-links={place}" for place in places]
    tries = [["--no-index", *links, f"--dest={folder}"]] if links else []
    if wheelhouse is None:
        tries.append([f"--dest={folder}"])
    for more in tries:
        done = subprocess.run([*command, *more, *wanted], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            if wheelhouse is None and "--no-index" not in more:
                for wheel in folder.glob("*.whl"):
                    write_file(cache / wheel.name, wheel.read_bytes())
            return
    place = f"in {wheelhouse}" if wheelhouse else "from the package registry"
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    why = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
    raise SubmissionError(
        f"The wheels of {', '.join(wanted)} for Python {python} can't be had {place} ({why}). Give a folder of them "
        f"with --wheelhouse, or pack for this Python only with --python {here}."
    )


def summary(decoder: Decoder, limit: int) -> str:
    """Size and SHA-256 in a line."""
    size = f"{len(decoder.data):,} bytes" + (f" of {limit:,} allowed" if limit else "")
    return f"decoder for Python {', '.join(decoder.pythons)}: {size}, SHA-256 {decoder.sha256}"


def check_size(decoder: Decoder, limit: int) -> None:
    """Refuse a decoder that is too large.

    Raises:
        SubmissionError: it is.
    """
    if limit and len(decoder.data) > limit:
        raise SubmissionError(f"The decoder has {len(decoder.data):,} bytes, and {limit:,} are allowed.")
