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
class Steps:
    """Allocations of increasing weight, one for each step; step s of S leads from allocation s to s + 1."""

    first: Ints
    """Column of each item's lightest option, shape (items,): allocation 0."""
    item: Ints
    """The item that takes the step, shape (S,)."""
    option: Ints
    """Column of that item's new option, shape (S,)."""
    weight: Ints
    """Total weight of each allocation, increasing, shape (S + 1,)."""

    def at(self, budget: int) -> int:
        """The last allocation within a budget; -1 if the lightest exceeds it."""
        return int(np.searchsorted(self.weight, budget, side="right")) - 1

    def choices(self, index: int) -> Ints:
        """Column of each item's option in allocation ``index``, shape (items,)."""
        chosen = self.first.copy()
        # a later step of an item overwrites the earlier one
        chosen[self.item[:index]] = self.option[:index]
        return chosen


@dataclass(frozen=True)
class Frontier(Steps):
    """Allocations from the lightest to the best, each with the lowest possible total cost for its weight."""

    price: Floats
    """The step's gain per unit of weight, decreasing, shape (S,)."""
    cost: Floats
    """Total cost of each allocation, decreasing, shape (S + 1,)."""

    def bound(self, budget: int) -> float:
        """A lower bound on the cost within the budget: the curve's chord there."""
        index = self.at(budget)
        if index < 0:
            return math.inf
        if index == len(self.item):
            return float(self.cost[-1])
        return float(self.cost[index] - self.price[index] * (budget - int(self.weight[index])))


@dataclass(frozen=True)
class Staircase(Steps):
    """Allocations of increasing weight, each with the lowest possible cost of its most expensive item."""

    worst: Floats
    """Cost of the most expensive item of each allocation, decreasing, shape (S + 1,)."""


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
    before, after = _pairs(item)
    gain = costs[item, column][before] - costs[item, column][after]
    extra = weights[item, column][after] - weights[item, column][before]
    by_price = np.argsort(-gain / extra, kind="stable")
    steps = _take(order, weights, item, column, after[by_price])
    lightest = math.fsum(costs[:, 0])
    return Frontier(
        *steps,
        price=(gain / extra)[by_price],
        cost=lightest - np.concatenate([[0.0], np.cumsum(gain[by_price])]),
    )


def sweep_worst(cost: ArrayLike, weight: ArrayLike, *, available: ArrayLike | None = None) -> Staircase:
    """:func:`sweep` for the most expensive item: at every step, that item takes its next option.

    Args:
        cost: see :func:`sweep`.
        weight: see :func:`sweep`.
        available: see :func:`sweep`.

    Raises:
        SolveError: see :func:`allocator.solver.knapsack.solve`.
    """
    order, costs, weights = drop_dominated(*check_problem(cost, weight, 0, available))
    item, column = np.nonzero(np.isfinite(costs))
    before, after = _pairs(item)
    left = costs[item, column][before]
    most_expensive = np.argsort(-left, kind="stable")
    steps = _take(order, weights, item, column, after[most_expensive])
    least = costs.min(axis=1).max()  # the worst item can't cost less
    return Staircase(*steps, worst=np.maximum(np.append(left[most_expensive], least), least))


def _pairs(item: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The positions of neighbouring options of the same item: the lighter ones, and the heavier ones."""
    before = np.flatnonzero(item[1:] == item[:-1])
    return before, before + 1


def _take(
    order: NDArray[np.intp], weights: Ints, item: NDArray[np.intp], column: NDArray[np.intp], steps: NDArray[np.intp]
) -> tuple[Ints, Ints, Ints, Ints]:
    """The fields of :class:`Steps` if items take their options in an order, starting with the lightest options.

    Args:
        order: the given column of each sorted option, shape (items, options).
        weights: the weights of the sorted options; the first of each item is the lightest.
        item: the items of the remaining options, ascending.
        column: the sorted columns of these options, ascending for each item.
        steps: positions in these two, in the order in which the options are taken.
    """
    extra = weights[item[steps], column[steps]] - weights[item[steps], column[steps - 1]]
    return (
        order[:, 0].astype(np.int64),
        item[steps],
        order[item[steps], column[steps]].astype(np.int64),
        np.cumsum(np.concatenate([[weights[:, 0].sum()], extra])),
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
