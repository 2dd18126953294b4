"""Codecs and metrics by name. An entry point is the one way in, for the built-in ones and for yours.

Learned codecs are data: a bank's folder (see :mod:`codec.bank`) is one, by its path, or by its name where
:mod:`codec.bank_folders` finds it. Programs (:mod:`codec.command`) and other people's models
(:mod:`codec.compressai_codec`) have names, too.
"""

import contextlib
import difflib
import functools
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.bank_folders import BANK_MANIFEST, SEARCH_PATH, bank_folder, bank_folders
from codec.base import Codec, CodecError
from codec.trust import check_name, note_typed

if TYPE_CHECKING:
    from codec.command import Command

CODECS = "clic_allocator.codecs"
"""The entry-point group of codecs; each entry is called without arguments and returns a :class:`Codec`."""


class UnknownName(CodecError):
    """No entry of the group has the name, or its package fails to load."""


def names(group: str = CODECS) -> list[str]:
    """The registered names of a group, sorted; of codecs also the known banks and the programs that are installed."""
    others = {*bank_folders(), *_installed_commands()} if group == CODECS else set()
    return sorted({*importlib.metadata.entry_points(group=group).names, *others})


def _installed_commands() -> list[str]:
    from codec.command import find_program, known_commands

    known = known_commands().items()
    return [name for name, command in known if all(find_program(program) for program in command.programs)]


def create(group: str, name: str, passing: type[Exception] = CodecError) -> Any:
    """Call the entry point ``name`` of ``group`` and return what it makes; errors of type ``passing`` pass.

    Raises:
        UnknownName: there is no such entry, or it fails otherwise.
    """
    kind = group.rpartition(".")[2].removesuffix("s")
    found = list(importlib.metadata.entry_points(group=group, name=name))
    if not found:
        close = difflib.get_close_matches(name, names(group), 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names(group))}."
        if group == CODECS:
            hint += f" (A bank's folder is a codec, too; {SEARCH_PATH} names folders whose banks are known by name.)"
        raise UnknownName(f"No {kind} is called {name!r}; {hint}")
    try:
        return found[0].load()()
    except passing:
        raise
    except Exception as error:  # of a stranger's package
        raise UnknownName(f"The {kind} {name!r} can't be loaded from {found[0].value}: {error}.") from error


def get_codec(name: str) -> Codec:
    """The codec called ``name``: an entry point, a known bank, a bank's folder, a program, or a CompressAI model.

    Raises:
        UnknownName: there is no such codec, or importing it fails.
        BankError: the bank is damaged.
        CommandError: the program is missing.
        ModelError: the model or its weights are missing.
    """
    note_typed(name)
    return _find_codec(name)


def _find_codec(name: str) -> Codec:
    if name.partition(":")[0] in ("compressai", "module"):
        return _of_model(name)
    if name not in importlib.metadata.entry_points(group=CODECS).names:
        folder = bank_folder(name)
        if (folder / BANK_MANIFEST).is_file():
            return _of_bank(folder.resolve(), (folder / BANK_MANIFEST).stat().st_mtime_ns)
        from codec.command import known_commands

        if command := known_commands().get(name):
            return _of_command(name, command)
    codec: Codec = create(CODECS, name)
    return codec


def stored_codec(name: str) -> Codec:
    """As :func:`get_codec`, for a name that a table or a manifest holds.

    Raises:
        UntrustedName: it would load code or files, and nobody trusts it (see :mod:`codec.trust`).
    """
    if name not in importlib.metadata.entry_points(group=CODECS).names:
        check_name(name)
    return _find_codec(name)


@functools.lru_cache(maxsize=8)
def _of_bank(folder: Path, changed: int) -> Codec:
    """A bank's codec, kept with its weights until the bank is ``changed``."""
    from codec.bank import Bank
    from codec.learned import LearnedCodec

    return LearnedCodec(Bank.load(folder))


@functools.lru_cache(maxsize=8)
def _of_model(name: str) -> Codec:
    from codec.compressai_codec import CompressAICodec

    return CompressAICodec(name)


@functools.lru_cache(maxsize=32)
def _of_command(name: str, command: "Command") -> Codec:
    from codec.command import CommandCodec

    return CommandCodec(name, command)


def codec_for_file(name: str) -> Codec:
    """The codec whose bitstreams end like the file name ``name``; of several the one with the longest ending.

    Raises:
        UnknownName: no registered codec has that suffix.
    """
    from codec.command import known_commands

    others = {f".{bank}": bank for bank in bank_folders()}
    for one, command in known_commands().items():
        others.setdefault(command.suffix, one)
    endings = [suffix for suffix in others.keys() | _by_suffix().keys() if name.endswith(suffix)]
    if not endings:
        known = ", ".join(sorted(others.keys() | _by_suffix().keys()))
        raise UnknownName(f"{name}: no codec writes files with this ending; known are {known}.")
    suffix = max(endings, key=len)
    return _by_suffix()[suffix] if suffix in _by_suffix() else get_codec(others[suffix])


@functools.cache
def _by_suffix() -> dict[str, Codec]:
    codecs = []
    for name in importlib.metadata.entry_points(group=CODECS).names:
        with contextlib.suppress(CodecError):  # another package's fault keeps no one from their own files
            codecs.append(get_codec(name))
    return {codec.suffix: codec for codec in codecs}
