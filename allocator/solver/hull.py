"""The whole operational rate-quality curve in one sweep, instead of one solve per budget.

The options of an item that are optimal for some price form the lower convex hull of its (weight, cost) points.
Taking the steps of all items' hulls in the order of their slope, steepest first, produces a sequence of allocations.
Each one is optimal for the budget that it uses exactly, and the slope is the price there (Everett 1963).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allocator.solver.knapsack import Floats, Ints, check_problem, drop_dominated


@dataclass(frozen=True)
class Frontier:
    """Allocations from the lightest to the best, one for each step; step s of S leads from allocation s to s + 1."""

    first: Ints
    """Column of each item's lightest option, shape (items,): allocation 0."""
    item: Ints
    """The item that takes the step, shape (S,)."""
    option: Ints
    """Column of that item's new option, shape (S,)."""
    price: Floats
    """The step's gain per unit of weight, decreasing, shape (S,)."""
    weight: Ints
    """Total weight of each allocation, increasing, shape (S + 1,)."""
    cost: Floats
    """Total cost of each allocation, decreasing, shape (S + 1,); the lowest possible for that weight."""

    def at(self, budget: int) -> int:
        """The last allocation within a budget; -1 if the lightest exceeds it."""
        return int(np.searchsorted(self.weight, budget, side="right")) - 1

    def bound(self, budget: int) -> float:
        """A lower bound on the cost within the budget: the curve's chord there."""
        index = self.at(budget)
        if index < 0:
            return math.inf
        if index == len(self.item):
            return float(self.cost[-1])
        return float(self.cost[index] - self.price[index] * (budget - int(self.weight[index])))

    def choices(self, index: int) -> Ints:
        """Column of each item's option in allocation ``index``, shape (items,)."""
        chosen = self.first.copy()
        # a later step of an item overwrites the earlier one
        chosen[self.item[:index]] = self.option[:index]
        return chosen


def sweep(cost: ArrayLike, weight: ArrayLike, *, available: ArrayLike | None = None) -> Frontier:
    """All supported allocations of a problem, with the arguments of :func:`allocator.solver.knapsack.solve`.

    Args:
        cost: shape (items, options), finite floats.
        weight: shape (items, options), integers of at least 0.
        available: shape (items, options), False for options that do not exist.

    Raises:
        SolveError: see :func:`allocator.solver.knapsack.solve`.
    """
    order, costs, weights = drop_dominated(*check_problem(cost, weight, 0, available))
    item, column = np.nonzero(np.isfinite(costs))
    item, column = _hull(item, column, costs, weights)
    starts = item[1:] != item[:-1]
    gain = -np.diff(costs[item, column])[~starts]
    extra = np.diff(weights[item, column])[~starts]
    by_price = np.argsort(-gain / extra, kind="stable")
    rows = np.arange(len(costs))
    steps = np.flatnonzero(~starts)[by_price] + 1
    lightest = column[np.concatenate([[0], np.flatnonzero(starts) + 1])]
    return Frontier(
        first=order[rows, lightest].astype(np.int64),
        item=item[steps],
        option=order[item[steps], column[steps]].astype(np.int64),
        price=(gain / extra)[by_price],
        weight=np.cumsum(np.concatenate([[weights[rows, lightest].sum()], extra[by_price]])),
        cost=math.fsum(costs[rows, lightest]) - np.concatenate([[0.0], np.cumsum(gain[by_price])]),
    )


@dataclass(frozen=True)
class Staircase:
    """Allocations of rising weight, each with the lowest worst cost for its weight; steps as in :class:`Frontier`."""

    first: Ints
    item: Ints
    option: Ints
    weight: Ints
    """Total weight of each allocation, rising, shape (S + 1,)."""
    worst: Floats
    """Cost of the most expensive item of each allocation, decreasing, shape (S + 1,)."""


def sweep_worst(cost: ArrayLike, weight: ArrayLike, *, available: ArrayLike | None = None) -> Staircase:
    """:func:`sweep` for the most expensive item: at every step, that item takes its next option.

    Args:
        cost: shape (items, options), finite floats.
        weight: shape (items, options), integers of at least 0.
        available: shape (items, options), False for options that do not exist.

    Raises:
        SolveError: see :func:`allocator.solver.knapsack.solve`.
    """
    order, costs, weights = drop_dominated(*check_problem(cost, weight, 0, available))
    item, column = np.nonzero(np.isfinite(costs))
    same = item[1:] == item[:-1]
    left = costs[item, column][:-1][same]
    dearest = np.argsort(-left, kind="stable")
    extra = np.diff(weights[item, column])[same]
    steps = np.flatnonzero(same)[dearest] + 1
    rows = np.arange(len(costs))
    least = costs.min(axis=1).max()  # the worst item can't cost less
    return Staircase(
        first=order[rows, 0].astype(np.int64),
        item=item[steps],
        option=order[item[steps], column[steps]].astype(np.int64),
        weight=np.cumsum(np.concatenate([[weights[:, 0].sum()], extra[dearest]])),
        worst=np.maximum(np.append(left[dearest], least), least),
    )


def _hull(
    item: NDArray[np.intp], column: NDArray[np.intp], costs: Floats, weights: Ints
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Remove the options on or above the chord of their neighbours, for all items at once, until none is left.

    Such an option is not a corner of the hull, even if its neighbours are removed.
    """
    while True:
        with np.errstate(divide="ignore", invalid="ignore"):  # between items, where it is not used
            slope = np.diff(costs[item, column]) / np.diff(weights[item, column])
        inner = (item[1:-1] == item[:-2]) & (item[1:-1] == item[2:])
        keep = np.ones(len(item), bool)
        keep[1:-1] = ~(inner & (slope[:-1] >= slope[1:]))
        if keep.all():
            return item, column
        item, column = item[keep], column[keep]
