"""Codecs that TOML files describe: programs, and models under a short name."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codec.base import CodecError, is_codec_name
from codec.command import Command
from codec.toml import read_toml
from codec.yuv import BITS

CODEC_FILES = "ALLOCATOR_CODECS"
"""Environment variable: TOML files of entries, separated as in ``PATH``; they precede the included entries."""
COMMAND_FILES = "ALLOCATOR_COMMANDS"
"""The older name of that variable."""
SHIPPED = Path(__file__).with_name("commands.toml")
_MOST = 16


class EntryError(CodecError):
    """A file of entries can't be read, or an entry is invalid."""


@dataclass(frozen=True)
class Model:
    """The entry of a model."""

    specification: str
    """The specification for :mod:`codec.compressai_codec`, with absolute paths."""


Entry = Command | Model


def read_entries(path: Path) -> dict[str, Entry]:
    """The entries of a file.

    Raises:
        EntryError: it can't be read, or an entry is invalid.
    """
    entries: dict[str, Entry] = {}
    for name, entry in read_toml(path, EntryError).items():
        try:
            entries[name] = _model(path, entry) if "model" in entry else _command(path, entry)
            if not is_codec_name(name):
                raise ValueError("its name is not a valid codec name")
        except (TypeError, ValueError, AttributeError) as error:
            raise EntryError(f"{path}: the entry {name!r} is not a valid codec ({error}).") from error
    return entries


def _model(path: Path, entry: dict[str, Any]) -> Model:
    if entry.keys() - {"model", "checkpoints"} or not str(entry["model"]).startswith(("compressai:", "module:")):
        raise ValueError('a model needs model = "module:..." or "compressai:...", and checkpoints')
    named = entry.get("checkpoints", [])
    files = [str(path.absolute().parent / file) for file in ([named] if isinstance(named, str) else named)]
    if any("," in file for file in files):
        raise ValueError("the path of a checkpoint contains a comma")
    return Model("@".join([entry["model"], *([",".join(files)] if files else [])]))


def _command(path: Path, entry: dict[str, Any]) -> Command:
    lists = {key: tuple(map(str, value)) for key, value in entry.items() if isinstance(value, list)}
    static = {"static": str(path.absolute().parent / entry["static"])} if "static" in entry else {}
    command = Command(**{**entry, **lists, **static})
    lines = (command.encode, command.decode, command.version, command.qualities)
    sound = (
        all(isinstance(line, tuple) for line in lines)
        and len(set(command.qualities)) == len(command.qualities) > 0
        and command.suffix.startswith(".")
        and is_codec_name(command.suffix[1:])
        and isinstance(command.multiple, int)
        and 1 <= command.multiple <= _MOST
        and 0 < command.seconds < 1e6
        and command.format in ("png", *BITS)
        and isinstance(command.config, str)
        and bool(command.config) == ("{config}" in " ".join((*command.encode, *command.decode)))
    )
    wanted = ("{input}", "{output}", "{quality}")
    complete = all(place in " ".join(command.encode) for place in wanted) and all(
        place in " ".join(command.decode) for place in wanted[:2]
    )
    if not (sound and complete):
        raise ValueError("a setting is missing or out of range")
    return command


def known_entries() -> dict[str, Entry]:
    """All entries by name; the first entry of a name is used.

    Raises:
        EntryError: a file can't be read.
    """
    named = (os.environ.get(variable, "") for variable in (CODEC_FILES, COMMAND_FILES))
    files = [Path(part) for text in named for part in text.split(os.pathsep) if part]
    found: dict[str, Entry] = {}
    for file in [*files, SHIPPED]:
        for name, entry in _read_once(file, file.stat().st_mtime_ns if file.is_file() else 0).items():
            found.setdefault(name, entry)
    return found


@functools.lru_cache(maxsize=8)
def _read_once(file: Path, changed: int) -> dict[str, Entry]:
    return read_entries(file)
