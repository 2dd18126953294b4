"""Refined points in tables: what they are called, and by what they are known.

A refined point is a level of its own. Its setting names the level that it began with, the steps, and what it was
refined for: ``g4~refined-60-5f3a9``. Its level follows from these, so that tables that were refined apart can be
merged; its fingerprint is, as any other, of codec, level, setting and version.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from allocator.metrics import Metric
from allocator.objective import Term
from allocator.points import REFINED, LevelKey
from allocator.tables import Table
from codec import Codec
from codec.bitstream import MAX_LEVELS

_SEARCH = 1
"""Counts the changes of the search that change what it finds."""
_HEX_DIGITS = 5
_SETTING = re.compile(rf"(?P<base>.+){re.escape(REFINED)}\d+-(?P<aim>[0-9a-f]{{{_HEX_DIGITS}}})")


@dataclass(frozen=True)
class Aim:
    """What latents are refined for: the objective's terms, each a metric's fingerprint, and the price of a byte."""

    terms: tuple[tuple[str, float], ...]
    """Fingerprint of a metric, and its signed weight."""
    price: float
    """Of a byte, in units of the image's mixture."""

    @classmethod
    def of(cls, terms: tuple[Term, ...], metrics: Mapping[str, Metric], price: float) -> "Aim":
        """The aim of an objective.

        Args:
            terms: of the objective.
            metrics: by name.
            price: of a byte; kept to two digits, so that a set which changes a little keeps what was refined.
        """
        weighed = tuple((metrics[term.metric].fingerprint, term.sign * term.weight) for term in terms)
        return cls(weighed, float(f"{price:.1e}"))

    @property
    def digest(self) -> str:
        """A few hex digits that tell it from others."""
        text = json.dumps([_SEARCH, self.terms, self.price])
        return hashlib.sha256(text.encode()).hexdigest()[:_HEX_DIGITS]


def refined_key(codec: Codec, level: int, steps: int, aim: Aim) -> LevelKey:
    """What a point is known by that is refined at a level of a bank."""
    setting = f"{codec.levels[level]}{REFINED}{steps}-{aim.digest}"
    return _key(codec, level, setting, aim.digest)


def _key(codec: Codec, level: int, setting: str, digest: str) -> LevelKey:
    return LevelKey(level + MAX_LEVELS * (1 + int(digest, 16)), setting, codec.fingerprint(level, setting))


def stored_refinements(table: Table, sha256: str, codec: Codec) -> list[LevelKey]:
    """An image's refined points, with their bitstreams, of the version of a codec that there is now."""
    levels = {setting: level for level, setting in enumerate(codec.levels)}
    found = []
    for key in table.kept_keys(sha256, codec.name):
        parts = _SETTING.fullmatch(key.setting)
        level = levels.get(parts["base"]) if parts else None
        if parts and level is not None and key == _key(codec, level, key.setting, parts["aim"]):
            found.append(key)
    return found
