"""A set's operational rate-quality curve, as people look at it."""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from allocator.errors import AllocatorError
from allocator.frontier import sweep
from allocator.grid import Grid
from allocator.objective import Objective

if TYPE_CHECKING:
    from fractions import Fraction

    import pandas as pd

_CHANGES = 5  # images named at a target


class Change(NamedTuple):
    """An image that gets another level with more budget."""

    image: str
    before: str
    """Its codec and setting."""
    after: str
    bytes: int
    """More than before."""


class Near(NamedTuple):
    """The curve at a target."""

    target_bpp: float
    budget_bytes: int
    bytes: int
    bpp: float
    value: float
    """Of the objective."""
    bound: float
    """Which no allocation within the budget betters."""
    price: float
    """What one more byte gains; 0 where nothing is left to gain."""
    changes: list[Change]
    """The first that more budget brings."""


class Curve:
    """All supported allocations of a set under the pooled rule, from the fewest bytes to the best quality.

    Args:
        points: as :func:`allocator.allocation.read_points` gives them.
        objective: aggregated by mean.

    Raises:
        AllocatorError: the objective isn't measured everywhere, or aggregates otherwise.
    """

    def __init__(self, points: "pd.DataFrame", objective: Objective) -> None:
        if objective.aggregate != "mean":
            raise AllocatorError("The curve is of the mean; solve single targets for other aggregates.")
        self.objective = objective
        self.grid = Grid(points)
        self.costs = self.grid.spread(objective.costs(self.grid.points))
        self.frontier = sweep(self.costs, self.grid.bytes, available=self.grid.available)
        self.pixels = int(self.grid.pixels.sum())

    @property
    def steps(self) -> int:
        """How many steps lead from the lightest allocation to the best."""
        return len(self.frontier.item)

    def bpp(self, index: int) -> float:
        """Pooled rate of allocation ``index``, from 0 to :attr:`steps`."""
        return 8 * int(self.frontier.weight[index]) / self.pixels

    def value(self, index: int) -> float:
        """Mean objective of allocation ``index``."""
        return self._mean(float(self.frontier.cost[index]))

    def _mean(self, cost: float) -> float:
        return self.objective.natural_sign * cost / len(self.grid.pixels)

    def frame(self, budgets: int) -> "pd.DataFrame":
        """The curve at budgets spread evenly in log-rate, one a row.

        Columns: ``budget_bytes`` and ``budget_bpp``; ``bytes``, ``bpp`` and ``value`` of the best supported
        allocation within it; ``bound``, which no allocation within the budget betters; ``price``, the gain in the
        mean objective for one more byte.
        """
        import pandas as pd

        weight = self.frontier.weight
        low, high = int(weight[0]), int(weight[-1])
        limits = np.unique(np.geomspace(low, max(low, high), budgets).round().astype(np.int64)).clip(low, high)
        index = np.searchsorted(weight, limits, side="right") - 1
        price = np.append(self.frontier.price, 0.0)[index]
        return pd.DataFrame(
            {
                "budget_bytes": limits,
                "budget_bpp": 8 * limits / self.pixels,
                "bytes": weight[index],
                "bpp": 8 * weight[index] / self.pixels,
                "value": [self.value(i) for i in index],
                "bound": [self._mean(self.frontier.bound(int(limit))) for limit in limits],
                "price": price / len(self.grid.pixels),
            }
        )

    def near(self, target: "Fraction") -> "Near | None":
        """What the curve is at a target, and what would change next; None where the target can't be reached."""
        limit = math.floor(target * self.pixels / 8)
        index = self.frontier.at(limit)
        if index < 0:
            return None
        changes = []
        now = self.frontier.choices(index)
        for step in range(index, min(index + _CHANGES, self.steps)):
            item, option = int(self.frontier.item[step]), int(self.frontier.option[step])
            before, after = (self.grid.points.iloc[self.grid.row[item, column]] for column in (now[item], option))
            level, other = (f"{one['codec']} {one['setting']}" for one in (before, after))
            changes.append(Change(str(before["image"]), level, other, int(after["bytes"] - before["bytes"])))
            now[item] = option
        return Near(
            target_bpp=float(target),
            budget_bytes=limit,
            bytes=int(self.frontier.weight[index]),
            bpp=self.bpp(index),
            value=self.value(index),
            bound=self._mean(self.frontier.bound(limit)),
            price=float(self.frontier.price[index]) / len(self.grid.pixels) if index < self.steps else 0.0,
            changes=changes,
        )

    def single_levels(self) -> "pd.DataFrame":
        """The levels that all images have, by rate: columns ``codec``, ``setting``, ``bytes``, ``bpp``, ``value``."""
        import pandas as pd

        rows = []
        for codec, setting, of_level in self.grid.common_levels():
            data = int(self.grid.points["bytes"].to_numpy()[of_level].sum())
            cost = float(self.costs[self.grid.item[of_level], self.grid.option[of_level]].sum())
            rows.append((codec, setting, data, 8 * data / self.pixels, self._mean(cost)))
        frame = pd.DataFrame(rows, columns=["codec", "setting", "bytes", "bpp", "value"])
        return frame.sort_values("bpp", ignore_index=True)

    def equal_rate(self, rate: "Fraction | float") -> float:
        """The mean objective of the best for each image at no more than a rate in each; NaN where one has none."""
        least = np.where(self.grid.at_most(rate / 8), self.costs, np.inf).min(axis=1)
        return self._mean(float(least.sum())) if np.isfinite(least).all() else math.nan
