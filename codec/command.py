"""Codecs that are programs: an entry in a TOML file says how to call them, and no shell is in between."""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from codec.base import BitstreamError, Codec, CodecError, ImageError, RGBImage, is_codec_name
from codec.files import write_file
from codec.formats import write_png
from codec.image import read_image
from codec.toml import read_toml

COMMANDS = "ALLOCATOR_COMMANDS"
"""Environment variable: TOML files of entries, separated as in ``PATH``; they come before those that ship."""
SHIPPED = Path(__file__).with_name("commands.toml")
_PREFIX = f"clic-allocator-{platform.node()}-"
_MOST = 16
_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


class CommandError(CodecError):
    """An entry makes no sense, or a program is missing, fails, or takes too long."""


class _Failure(CommandError):
    """A program ended with another status than 0."""


@dataclass(frozen=True)
class Command:
    """An entry."""

    encode: tuple[str, ...]
    """Program and arguments, with ``{input}`` (a PNG), ``{output}`` and ``{quality}``."""
    decode: tuple[str, ...]
    """The same with ``{input}`` and ``{output}`` (a PNG, or what else is read as an image)."""
    suffix: str
    qualities: tuple[str, ...]
    """Settings of the levels, fewest bytes first."""
    version: tuple[str, ...] = ()
    """What prints a version in its first line."""
    multiple: int = 1
    """Sides must be multiples of it: images are padded, and a byte ahead of the stream says how much to cut off."""
    seconds: float = 600.0
    """After which a program is stopped."""

    @property
    def programs(self) -> set[str]:
        """What must be on the PATH."""
        return {self.encode[0], self.decode[0]}


def read_commands(path: Path) -> dict[str, Command]:
    """The entries of a file.

    Raises:
        CommandError: it can't be read, or an entry makes no sense.
    """
    return {name: _command(path, name, entry) for name, entry in read_toml(path, CommandError).items()}


def _command(path: Path, name: str, entry: Any) -> Command:
    try:
        lists = {key: value for key, value in entry.items() if isinstance(value, list)}
        command = Command(**{**entry, **{key: tuple(map(str, value)) for key, value in lists.items()}})
        lines = (command.encode, command.decode, command.version, command.qualities)
        sound = (
            is_codec_name(name)
            and all(isinstance(line, tuple) for line in lines)
            and len(set(command.qualities)) == len(command.qualities) > 0
            and command.suffix.startswith(".")
            and is_codec_name(command.suffix[1:])
            and isinstance(command.multiple, int)
            and 1 <= command.multiple <= _MOST
            and 0 < command.seconds < 1e6
        )
        wanted = ("{input}", "{output}", "{quality}")
        complete = all(place in " ".join(command.encode) for place in wanted) and all(
            place in " ".join(command.decode) for place in wanted[:2]
        )
        if not (sound and complete):
            raise ValueError("a setting is missing or out of range")
        return command
    except (TypeError, ValueError, AttributeError) as error:
        raise CommandError(f"{path}: the entry {name!r} describes no codec ({error}).") from error


def known_commands() -> dict[str, Command]:
    """All entries by name; the first of a name counts.

    Raises:
        CommandError: a file can't be read.
    """
    files = [Path(part) for part in os.environ.get(COMMANDS, "").split(os.pathsep) if part]
    found: dict[str, Command] = {}
    for file in [*files, SHIPPED]:
        for name, command in _cached(file, file.stat().st_mtime_ns if file.is_file() else 0).items():
            found.setdefault(name, command)
    return found


@functools.lru_cache(maxsize=8)
def _cached(file: Path, changed: int) -> dict[str, Command]:
    return read_commands(file)


def find_program(name: str) -> str | None:
    """Where a program is; of ffmpeg also the one that the package imageio-ffmpeg brings."""
    found = shutil.which(name)
    if found is None and name == "ffmpeg":
        with contextlib.suppress(ImportError, RuntimeError):
            from imageio_ffmpeg import get_ffmpeg_exe

            found = str(get_ffmpeg_exe())
    return found


@dataclass
class CommandCodec(Codec):
    """A codec of an entry."""

    name: str
    command: Command
    suffix: str = field(init=False)
    version: str = field(init=False)
    levels: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.suffix = self.command.suffix
        self.levels = tuple(f"q{quality}" for quality in self.command.qualities)
        if missing := sorted(program for program in self.command.programs if not find_program(program)):
            raise CommandError(f"{self.name} needs {' and '.join(missing)}, not found on the PATH.")
        lines = repr((self.command.encode, self.command.decode, self.command.multiple))
        self.version = f"{self._asked()}, call {hashlib.sha256(lines.encode()).hexdigest()[:8]}"

    def _asked(self) -> str:
        if not self.command.version:
            return "unknown version"
        program, *arguments = self.command.version
        try:
            done = subprocess.run(
                [find_program(program) or program, *arguments], capture_output=True, timeout=20, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CommandError(f"{self.name}: {program} doesn't tell its version ({error}).") from error
        text = (done.stdout or done.stderr).decode(errors="replace").strip()
        return text.partition("\n")[0][:80] or "unknown version"

    def encode(self, image: RGBImage, level: int) -> bytes:
        multiple = self.command.multiple
        below, right = (-side % multiple for side in image.shape[:2])
        padded = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
        with _folder() as folder:
            source, target = folder / "image.png", folder / f"stream{self.suffix}"
            write_png(source, padded)
            self._run(self.command.encode, source, target, self.command.qualities[level])
            data = target.read_bytes() if target.is_file() else b""
        if not data:
            raise CommandError(f"{self.name} wrote no bitstream.")
        return bytes([below << 4 | right]) + data if multiple > 1 else data

    def decode(self, data: bytes) -> RGBImage:
        below = right = 0
        if self.command.multiple > 1 and data:
            below, right, data = data[0] >> 4, data[0] & 15, data[1:]
        with _folder() as folder:
            source, target = folder / f"stream{self.suffix}", folder / "image.png"
            write_file(source, data)
            try:
                self._run(self.command.decode, source, target, "")
                image = read_image(target)
            except (_Failure, ImageError) as error:
                raise BitstreamError(f"not a whole {self.name} bitstream ({_reason(error, folder)}).") from error
        height, width = image.shape[0] - below, image.shape[1] - right
        if min(height, width) < 1:
            raise BitstreamError(f"not a {self.name} bitstream of this project.")
        return np.ascontiguousarray(image[:height, :width])

    def _run(self, line: tuple[str, ...], source: Path, target: Path, quality: str) -> None:
        program, *arguments = line
        for place, value in (("{input}", str(source)), ("{output}", str(target)), ("{quality}", quality)):
            arguments = [argument.replace(place, value) for argument in arguments]
        try:
            process = subprocess.Popen(
                [find_program(program) or program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=_die_with_parent if _LIBC else None,
            )
        except OSError as error:
            raise CommandError(f"{program} can't be started ({error.strerror}).") from error
        try:
            out, err = process.communicate(timeout=self.command.seconds)
        except subprocess.TimeoutExpired:
            raise CommandError(f"{program} took longer than {self.command.seconds:g} seconds.") from None
        finally:  # with all that it started, also after Ctrl-C
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            said = (err or out).decode(errors="replace").strip().splitlines()
            raise _Failure(f"{program} ended with {process.returncode} ({said[-1][:200] if said else 'no word'}).")


def _reason(error: Exception, folder: Path) -> str:
    return str(error).replace(f"{folder}{os.sep}", "").rstrip(".")


def _die_with_parent() -> None:
    """A killed build leaves no encoder behind: Linux kills it as the process that started it ends."""
    _LIBC.prctl(1, signal.SIGKILL)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder for one call; those that killed processes left are removed first."""
    _sweep()
    try:
        made = tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True)
    except OSError as error:
        raise CommandError(f"A folder for programs can't be made ({error.strerror}).") from error
    with made as folder:
        yield Path(folder)


@functools.cache
def _sweep() -> None:
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = left.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not _runs(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    with contextlib.suppress(OSError):  # not Linux, or gone
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it's another user's
        return True
    return True
