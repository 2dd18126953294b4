"""The whole operational rate-quality curve in one sweep, instead of one solve a budget.

Each item's options that some price would choose lie on the lower convex hull of its (weight, cost) points. Taking the
hulls' steps of all items in the order of their slope, steepest first, gives one allocation after the other; each one
is optimal for the budget that it uses up exactly, and its slope is the price there (Everett 1963).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allocator.solver.knapsack import Floats, Ints, check_problem, drop_dominated


@dataclass(frozen=True)
class Frontier:
    """Allocations from the lightest to the best, one for each step; step s of S turns allocation s into s + 1."""

    first: Ints
    """Column of each item's lightest option, shape (items,): allocation 0."""
    item: Ints
    """Which item takes the step, shape (S,)."""
    option: Ints
    """Column of the option that it takes, shape (S,)."""
    price: Floats
    """What the step gains for each unit of weight, falling, shape (S,)."""
    weight: Ints
    """Total weight of each allocation, rising, shape (S + 1,)."""
    cost: Floats
    """Total cost of each allocation, falling, shape (S + 1,); the least for that weight."""

    def at(self, budget: int) -> int:
        """The last allocation within a budget; -1 if the lightest exceeds it."""
        return int(np.searchsorted(self.weight, budget, side="right")) - 1

    def bound(self, budget: int) -> float:
        """No allocation within the budget costs less: the curve's chord there."""
        index = self.at(budget)
        if index < 0:
            return math.inf
        if index == len(self.item):
            return float(self.cost[-1])
        return float(self.cost[index] - self.price[index] * (budget - int(self.weight[index])))

    def choices(self, index: int) -> Ints:
        """Column of each item's option in allocation ``index``, shape (items,)."""
        chosen = self.first.copy()
        # an item's later step overwrites its earlier one
        chosen[self.item[:index]] = self.option[:index]
        return chosen


def sweep(cost: ArrayLike, weight: ArrayLike, *, available: ArrayLike | None = None) -> Frontier:
    """All supported allocations of a problem as :func:`allocator.solver.knapsack.solve` takes it.

    Args:
        cost: shape (items, options), finite floats.
        weight: shape (items, options), integers from 0.
        available: shape (items, options), False for options that don't exist.

    Raises:
        SolveError: as :func:`allocator.solver.knapsack.solve`.
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


def _hull(
    item: NDArray[np.intp], column: NDArray[np.intp], costs: Floats, weights: Ints
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Leave out, all items at once, the options on or above their neighbours' chord, until there are none.

    Such an option is no corner of the hull, whatever becomes of its neighbours.
    """
    while True:
        with np.errstate(divide="ignore", invalid="ignore"):  # between items, where it isn't looked at
            slope = np.diff(costs[item, column]) / np.diff(weights[item, column])
        inner = (item[1:-1] == item[:-2]) & (item[1:-1] == item[2:])
        keep = np.ones(len(item), bool)
        keep[1:-1] = ~(inner & (slope[:-1] >= slope[1:]))
        if keep.all():
            return item, column
        item, column = item[keep], column[keep]
