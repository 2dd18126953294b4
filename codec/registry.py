"""Codecs by name. An entry point is the one way in, for the built-in ones and for yours.

Learned codecs are data: a bank's folder (see :mod:`codec.bank`) is one, by its path, or by its name where
:mod:`codec.bank_folders` finds it. Programs (:mod:`codec.command`) and other people's models
(:mod:`codec.compressai_codec`) have names that files of entries give (:mod:`codec.entries`); a model also gets one
by ``NAME=SPECIFICATION``, for as long as the process lasts.
"""

import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING

from codec.bank_folders import BANK_MANIFEST, SEARCH_PATH, bank_folder, bank_folders
from codec.base import Codec, CodecError, foreign_errors, is_codec_name
from codec.entry_points import UnknownName, create, registered
from codec.trust import check_name, note_typed

if TYPE_CHECKING:
    from codec.entries import Entry

CODECS = "clic_allocator.codecs"
"""The entry-point group of codecs; each entry is called without arguments and returns a :class:`Codec`."""
_MODELS = ("compressai:", "module:")


def is_specification(name: str) -> bool:
    """Whether a name is the specification of a model, see :mod:`codec.compressai_codec`."""
    return name.startswith(_MODELS)


def names() -> list[str]:
    """The registered codecs, the known banks, and the models and installed programs of files of entries; sorted."""
    return sorted({*registered(CODECS), *bank_folders(), *_installed_commands()})


def _installed_commands() -> list[str]:
    from codec.command import Command
    from codec.entries import known_entries

    return [name for name, entry in known_entries().items() if not isinstance(entry, Command) or not entry.missing()]


def get_codec(name: str) -> Codec:
    """The codec called ``name``: an entry point, a known bank, a bank's folder, a program, or a CompressAI model.

    A model's specification may have a name in front, ``mine=module:package.Class@a.pth``; from then on, and without
    it by the name that it has itself, the model is known by that name in this process.

    Raises:
        UnknownName: there is no such codec, or importing it fails.
        BankError: the bank is damaged.
        CommandError: the program is missing.
        ModelError: the model or its weights are missing.
    """
    alias, _, specification = name.partition("=")
    if not is_codec_name(alias) or not specification:
        alias, specification = "", name
    if is_specification(specification):
        if alias and alias in names():
            raise UnknownName(f"{alias!r} is the name of another codec; choose another for {specification}.")
        codec = _of_model(specification, alias)
        _models[codec.name] = codec
        note_typed(specification)
        return codec
    if alias:
        raise UnknownName(
            f"{name}: only models (compressai:, module:) are given a name; a bank's is in its manifest."
        )
    note_typed(name)
    return _find_codec(name)


_models: dict[str, Codec] = {}
"""Models that were typed in this process, by name."""


def _find_codec(name: str) -> Codec:
    if name in _models:
        return _models[name]
    if name not in registered(CODECS):
        folder = bank_folder(name)
        if (folder / BANK_MANIFEST).is_file():
            return _of_bank(folder.resolve(), (folder / BANK_MANIFEST).stat().st_mtime_ns)
        from codec.entries import known_entries

        if entry := known_entries().get(name):
            return _of_entry(name, entry)
        from codec.tuned import find_tuned

        if tuned := find_tuned(name):
            return tuned
    banks = f" (A bank's folder is a codec, too; {SEARCH_PATH} names folders whose banks are known by name.)"
    codec: Codec = create(CODECS, name, "codec", names(), banks)
    with foreign_errors(f"The codec {name!r} has no sound name, suffix, version and levels"):
        _check(codec)
    return codec


def _check(codec: Codec) -> None:
    texts = (codec.name, codec.suffix, codec.version, *codec.levels)
    if not (isinstance(codec, Codec) and codec.levels and all(isinstance(text, str) for text in texts)):
        raise TypeError(f"{codec!r} is not a Codec")


def stored_codec(name: str) -> Codec:
    """As :func:`get_codec`, for a name that a table or a manifest holds.

    Raises:
        UntrustedName: it would load code or files, and nobody trusts it (see :mod:`codec.trust`).
    """
    if name not in registered(CODECS):
        check_name(name)
    if is_specification(name):
        return _of_model(name, "", as_stored=True)
    return _find_codec(name)


@functools.lru_cache(maxsize=8)
def _of_bank(folder: Path, changed: int) -> Codec:
    """A bank's codec, kept with its weights until the bank is ``changed``."""
    from codec.bank import Bank, BankError
    from codec.learned import LearnedCodec

    bank = Bank.load(folder)
    if is_taken(bank.name):
        raise BankError(
            f"{folder}: its bank is called {bank.name!r}, as another codec or its files are; change the name in "
            f"its {BANK_MANIFEST}."
        )
    return LearnedCodec(bank)


def is_taken(name: str) -> bool:
    """Whether a bank called so would be taken for another codec, or its bitstreams for another kind of files."""
    from codec.image import SUFFIXES

    entries = registered(CODECS)
    return name in entries or f".{name}".lower().endswith((*SUFFIXES, *_by_suffix()))


@functools.lru_cache(maxsize=8)
def _of_model(specification: str, name: str, as_stored: bool = False) -> Codec:
    from codec.compressai_codec import CompressAICodec

    return CompressAICodec(specification, name or None, as_stored=as_stored)


@functools.lru_cache(maxsize=32)
def _of_entry(name: str, entry: "Entry") -> Codec:
    from codec.command import Command, CommandCodec

    return CommandCodec(name, entry) if isinstance(entry, Command) else _of_model(entry.specification, name)


def codec_for_file(name: str) -> Codec:
    """The codec whose bitstreams end like the file name ``name``; of several the one with the longest ending.

    Raises:
        UnknownName: no registered codec has that suffix.
    """
    from codec.command import Command
    from codec.entries import known_entries

    others = {f".{bank}": bank for bank in bank_folders()}
    for one, entry in known_entries().items():
        others.setdefault(entry.suffix if isinstance(entry, Command) else f".{one}", one)
    endings = [suffix for suffix in others.keys() | _by_suffix().keys() if name.endswith(suffix)]
    if not endings:
        known = ", ".join(sorted(others.keys() | _by_suffix().keys()))
        raise UnknownName(f"{name}: no codec writes files with this ending; known are {known}.")
    suffix = max(endings, key=len)
    return _by_suffix()[suffix] if suffix in _by_suffix() else get_codec(others[suffix])


@functools.cache
def _by_suffix() -> dict[str, Codec]:
    codecs = []
    for name in registered(CODECS):
        with contextlib.suppress(CodecError):  # another package's fault keeps no one from their own files
            codecs.append(get_codec(name))
    return {codec.suffix: codec for codec in codecs}
