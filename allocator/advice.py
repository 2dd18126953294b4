"""Suggest a floor that improves an allocation's worst image at a low price in the mean."""

import dataclasses
import math
from typing import NamedTuple

from allocator.allocation import Allocation, allocate
from allocator.constraints import Constraints, Floor
from allocator.objective import WORST, Objective

_MOST_LOSS = 0.1
"""The most the mean may lose, relative to the gain of the worst image, for a floor to be suggested."""
_SHARES = (1.0, 0.75, 0.5, 0.25)
"""The shares of the worst image's possible gain that are tried."""
_DIGITS = 3


class Suggestion(NamedTuple):
    """A floor within the same budget."""

    floor: Floor
    allocation: Allocation
    """The resulting allocation."""
    worst: float
    """The worst value among that allocation's images."""


def suggest_floor(allocation: Allocation, constraints: Constraints) -> Suggestion | None:
    """The highest floor that costs the mean little compared with the gain of the worst image.

    Args:
        allocation: an allocation optimised for the mean of one metric.
        constraints: its constraints.

    Returns:
        The floor; None if the objective is another, or no floor is worth its price.
    """
    objective = allocation.objective
    if len(objective.terms) != 1 or not objective.aggregate.is_plain_mean:
        return None
    [term] = objective.terms
    before = _worst(allocation)
    best = allocate(
        allocation.points, allocation.budget, Objective(objective.terms, WORST), constraints, time_limit=5.0
    )
    for share in _SHARES:
        worst = _round(before + share * (_worst(best) - before), term.higher_is_better)
        gain = abs(worst - before)
        if (worst > before) != term.higher_is_better or not gain:
            return None
        floor = Floor(term.metric, worst, term.higher_is_better)
        more = dataclasses.replace(constraints, floors=[*constraints.floors, floor])
        found = allocate(allocation.points, allocation.budget, objective, more, time_limit=5.0)
        if abs(found.value - allocation.value) <= _MOST_LOSS * gain * term.weight:
            return Suggestion(floor, found, _worst(found))
    return None


def _worst(allocation: Allocation) -> float:
    """The metric's value of the worst image."""
    [term] = allocation.objective.terms
    return -term.sign * float((-term.sign * allocation.chosen[term.metric]).min())


def _round(value: float, down: bool) -> float:
    """Round to few digits, in the direction of the weaker floor."""
    step = 10.0 ** (math.floor(math.log10(abs(value) or 1.0)) - _DIGITS + 1)
    return float(f"{(math.floor if down else math.ceil)(value / step) * step:.{_DIGITS}g}")
