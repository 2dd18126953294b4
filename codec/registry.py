"""Codecs and metrics by name. An entry point is the one way in, for the built-in ones and for yours."""

import contextlib
import difflib
import functools
import importlib.metadata
from typing import Any

from codec.base import Codec, CodecError

CODECS = "clic_allocator.codecs"
"""The entry-point group of codecs; each entry is called without arguments and returns a :class:`Codec`."""


class UnknownName(CodecError):
    """No entry of the group has the name, or its package fails to load."""


def names(group: str = CODECS) -> list[str]:
    """The registered names of a group, sorted."""
    return sorted(importlib.metadata.entry_points(group=group).names)


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
        raise UnknownName(f"No {kind} is called {name!r}; {hint}")
    try:
        return found[0].load()()
    except passing:
        raise
    except Exception as error:  # of a stranger's package
        raise UnknownName(f"The {kind} {name!r} can't be loaded from {found[0].value}: {error}.") from error


def get_codec(name: str) -> Codec:
    """The codec called ``name``.

    Raises:
        UnknownName: there is no such codec, or importing it fails.
    """
    codec: Codec = create(CODECS, name)
    return codec


def codec_for_file(name: str) -> Codec:
    """The codec whose bitstreams end like the file name ``name``.

    Raises:
        UnknownName: no registered codec has that suffix.
    """
    for suffix, codec in _by_suffix().items():
        if name.endswith(suffix):
            return codec
    raise UnknownName(f"{name}: no codec writes files with this ending; known are {', '.join(sorted(_by_suffix()))}.")


@functools.cache
def _by_suffix() -> dict[str, Codec]:
    codecs = []
    for name in names():
        with contextlib.suppress(CodecError):  # another package's fault keeps no one from their own files
            codecs.append(get_codec(name))
    return {codec.suffix: codec for codec in codecs}
