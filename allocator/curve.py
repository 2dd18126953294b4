"""A set's operational rate-quality curve, as people look at it."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from allocator.errors import AllocatorError
from allocator.frontier import sweep
from allocator.grid import Grid
from allocator.objective import Objective

if TYPE_CHECKING:
    import pandas as pd

_CHANGES = 5  # images named at a target


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
        costs = self.grid.spread(objective.costs(self.grid.points))
        self.frontier = sweep(costs, self.grid.bytes, available=self.grid.available)
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

    def describe(self, target: float) -> list[str]:
        """A target in words: the allocation there, the price of a byte, and the images that would change first."""
        limit = math.floor(target * self.pixels / 8)
        index = self.frontier.at(limit)
        if index < 0:
            return [f"{target:g} bpp: can't be reached, the least is {self.bpp(0):.4f} bpp."]
        used = int(self.frontier.weight[index])
        lines = [
            f"{target:g} bpp: {self.objective.label} {self.value(index):.6f} with {used:,} of {limit:,} bytes, "
            f"and at best {self._mean(self.frontier.bound(limit)):.6f}"
        ]
        if index < self.steps:
            price = float(self.frontier.price[index]) / len(self.grid.pixels)
            lines.append(f"  1,000 more bytes would gain about {1000 * price:.2g}; with more budget change first")
        now = self.frontier.choices(index)
        for step in range(index, min(index + _CHANGES, self.steps)):
            item, option = int(self.frontier.item[step]), int(self.frontier.option[step])
            before, after = (self.grid.points.iloc[self.grid.row[item, column]] for column in (now[item], option))
            lines.append(
                f"    {before['image']}: {before['codec']} {before['setting']} -> "
                f"{after['codec']} {after['setting']}, {after['bytes'] - before['bytes']:+,} bytes"
            )
            now[item] = option
        return lines

    def plot(self, frame: "pd.DataFrame", targets: list[float], path: Path) -> None:
        """Draw the curve, its bound and the targets.

        Raises:
            AllocatorError: matplotlib can't write files of this ending.
            CodecError: the file can't be written.
        """
        import io

        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot

        from codec.image import write_file

        figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
        axes.plot(frame["bpp"], frame["value"], label="allocated", drawstyle="steps-post")
        axes.plot(frame["budget_bpp"], frame["bound"], "--", linewidth=1, label="no allocation is better")
        for target in targets:
            axes.axvline(target, color="gray", linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.set_xlabel("bits per pixel of the set")
        axes.set_ylabel(f"mean {self.objective.label}")
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False)
        buffer = io.BytesIO()
        try:
            figure.savefig(buffer, format=path.suffix.lstrip(".") or None, dpi=150)
        except ValueError as error:
            raise AllocatorError(f"{path}: name it .png, .svg or .pdf, which says what to draw.") from error
        finally:
            pyplot.close(figure)
        write_file(path, buffer.getvalue())
