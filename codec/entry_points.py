"""What packages register under a name: one entry point for each codec and metric, the built-in ones and yours."""

import difflib
import importlib.metadata
from collections.abc import Sequence
from typing import Any

from codec.base import CodecError, UserError, reason


class UnknownName(CodecError):
    """Nothing is registered under the name, or its package fails to load."""


def registered(group: str) -> frozenset[str]:
    """The names in a group of entry points."""
    return frozenset(importlib.metadata.entry_points(group=group).names)


def create(group: str, name: str, kind: str, known: Sequence[str], more: str = "") -> Any:
    """Call the entry point of a name without arguments, and return what it makes.

    Args:
        group: of entry points.
        name: in the group.
        kind: of what it makes, in a word.
        known: names to suggest where there is no such entry.
        more: ends that error's message.

    Raises:
        UnknownName: there is no such entry, or it raises anything but a :class:`UserError`, which passes.
    """
    found = list(importlib.metadata.entry_points(group=group, name=name))
    if not found:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}."
        raise UnknownName(f"No {kind} is called {name!r}; {hint}{more}")
    try:
        return found[0].load()()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # of a stranger's package
        raise UnknownName(f"The {kind} {name!r} can't be loaded from {found[0].value} ({reason(error)}).") from error
