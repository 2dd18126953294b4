"""Refined points in tables: their settings, levels and fingerprints.

A refined point is a separate level. Its setting contains the level where the search began, the number of steps, and a
digest of the aim: ``g4~refined-60-5f3a9``. The level's number follows from the setting, so tables that were refined
separately can be merged. The fingerprint depends on codec, level, setting and version, as for other levels.
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

_SEARCH = 4
"""The version of the search: increased by changes that change its results."""
_HEX_DIGITS = 5
_SETTING = re.compile(rf"(?P<base>.+){re.escape(REFINED)}\d+-(?P<aim>[0-9a-f]{{{_HEX_DIGITS}}})")


@dataclass(frozen=True)
class Aim:
    """The loss of a search, and its number of steps."""

    terms: tuple[tuple[str, float], ...]
    """The fingerprints of the objective's metrics, and their signed weights."""
    price: float
    """The price of a byte, in units of the image's mixture."""
    steps: int

    @classmethod
    def of(cls, terms: tuple[Term, ...], metrics: Mapping[str, Metric], price: float, steps: int) -> "Aim":
        """The aim of an objective.

        Args:
            terms: the terms of the objective.
            metrics: the metrics by name.
            price: the price of a byte. It is rounded to two digits, so that small changes of the set do not repeat
                searches.
            steps: the number of steps.
        """
        weighed = tuple((metrics[term.metric].fingerprint, term.sign * term.weight) for term in terms)
        return cls(weighed, float(f"{price:.1e}"), steps)

    @property
    def digest(self) -> str:
        """A few hex digits that distinguish it from other aims."""
        text = json.dumps([_SEARCH, self.terms, self.price, self.steps])
        return hashlib.sha256(text.encode()).hexdigest()[:_HEX_DIGITS]


def refined_key(codec: Codec, level: int, aim: Aim) -> LevelKey:
    """The key of a point that is refined from a level of a bank."""
    return _key(codec, level, f"{codec.levels[level]}{REFINED}{aim.steps}-{aim.digest}", aim.digest)


def _key(codec: Codec, level: int, setting: str, digest: str) -> LevelKey:
    return LevelKey(level + MAX_LEVELS * (1 + int(digest, 16)), setting, codec.fingerprint(level, setting))


def stored_refinements(table: Table, sha256: str, codec: Codec) -> list[LevelKey]:
    """The keys of an image's refined points whose bitstreams are kept, by the current version of a codec."""
    levels = {setting: level for level, setting in enumerate(codec.levels)}
    found = []
    for key in table.kept_keys(sha256, codec.name):
        parts = _SETTING.fullmatch(key.setting)
        level = levels.get(parts["base"]) if parts else None
        if parts and level is not None and key == _key(codec, level, key.setting, parts["aim"]):
            found.append(key)
    return found
