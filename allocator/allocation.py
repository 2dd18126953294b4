"""From a table and a target rate to one level for each image, and what that is worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from allocator.errors import AllocatorError
from allocator.solve import Infeasible, Solution, solve
from allocator.tables import Table

if TYPE_CHECKING:
    import pandas as pd

Scalar = TypeVar("Scalar", bound=np.generic)
Rule = Literal["pooled", "mean"]
"""How the rate of a set is counted: total bytes (the challenge), or the mean of the images' bits per pixel
(PO-DKIC, equation 6)."""

_WEIGHT_BITS = 60  # sums of weights stay exact in 64 bits


class AllocationError(AllocatorError):
    """A table can't answer the question, or the target can't be met."""


class Budget(NamedTuple):
    """A set's budget, exactly."""

    rule: Rule
    limit: Fraction
    """``pooled``: bytes in all, a whole number. ``mean``: the sum of the images' bytes per pixel."""
    bpp: float
    """The same as a rate, bits per pixel."""


class Baseline(NamedTuple):
    """A simpler way to spend the same budget."""

    objective: float
    """Mean over the images."""
    bytes: int
    detail: str
    """The codec and setting, where there is one."""


@dataclass(frozen=True)
class Allocation:
    """One level for each image of a set, best under a budget."""

    chosen: "pd.DataFrame"
    """The chosen operating points, one row an image, columns as :meth:`allocator.tables.Table.frame`."""
    objective: str
    """The metric that was optimised."""
    budget: Budget
    mean_objective: float
    bytes: int
    bpp: float
    """Achieved rate under the budget's rule."""
    slack: float
    """Unused part of the budget in bytes (``mean``: of images of average size)."""
    price: float
    """How much better the mean objective gets, about, with one byte more for the whole set."""
    gap: float
    """The mean objective is at most this far from the optimum; 0 when it's proven optimal."""
    single: Baseline | None
    """The best single level for all images within the budget."""
    equal: Baseline | None
    """The best for each image at no more than the budget's rate in each; None where one has nothing so small."""


def parse_target(text: str) -> Fraction:
    """A rate in bits per pixel, exactly as written: ``0.075`` is 75/1000.

    Raises:
        AllocationError: not a number, or not above 0.
    """
    try:
        value = Decimal(text)
        if value.is_finite() and value > 0:
            return Fraction(value)
    except InvalidOperation:
        pass
    raise AllocationError(f"A target is a rate in bits per pixel above 0, such as 0.15, not {text!r}.")


def read_points(table: Table, codecs: Sequence[str] = ()) -> "pd.DataFrame":
    """A table's operating points, of some codecs only if any are named.

    Raises:
        AllocationError: the table is empty, a codec isn't in it, or an image has no point.
    """
    counts = table.counts()
    if not counts["images"]:
        raise AllocationError(f"{table.path}: the table is empty.")
    frame = table.frame()
    if unknown := sorted(set(codecs) - set(frame["codec"])):
        known = ", ".join(sorted(set(frame["codec"]))) or "none yet"
        raise AllocationError(f"{table.path}: holds nothing of {', '.join(unknown)}; measured are {known}.")
    if codecs:
        frame = frame[frame["codec"].isin(codecs)].reset_index(drop=True)
    if missing := counts["images"] - frame["image"].nunique():
        raise AllocationError(
            f"{table.path}: {missing} of {counts['images']} images have not been measured; "
            "run `allocator tables build` again to finish."
        )
    return frame


def find_metric(table: Table, name: str) -> str:
    """The table's metric called ``name``, or the only one that begins so (``lpips`` for ``lpips-squeeze``).

    Raises:
        AllocationError: there is none, or several.
    """
    metrics = table.metrics()
    if name in metrics:
        return name
    matching = [metric for metric in metrics if metric.startswith(f"{name}-")]
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(metrics) or "none"
    problem = f"several metrics {name}" if matching else f"no metric {name!r}"
    raise AllocationError(f"{table.path}: holds {problem}; measured are {known}.")


def make_budget(
    frame: "pd.DataFrame", rule: Rule, *, target: Fraction | None = None, total_bytes: int | None = None
) -> Budget:
    """The budget of a set: ``pooled`` is floor(target x pixels / 8) bytes unless given in bytes.

    Raises:
        AllocationError: neither or both are given, bytes with the rule ``mean``, or not above 0.
    """
    if (target is None) == (total_bytes is None):
        raise AllocationError("Give either a target rate or a budget in bytes.")
    sizes = frame.drop_duplicates("image")
    pixels = sum(int(w) * int(h) for w, h in zip(sizes["width"], sizes["height"], strict=True))
    if total_bytes is not None:
        if rule == "mean":
            raise AllocationError("A budget in bytes goes with the rule `pooled`; `mean` takes a target rate.")
        if total_bytes <= 0:
            raise AllocationError(f"A budget is a number of bytes above 0, not {total_bytes}.")
        return Budget(rule, Fraction(total_bytes), 8 * total_bytes / pixels)
    assert target is not None
    if rule == "mean":
        return Budget(rule, target * len(sizes) / 8, float(target))
    return Budget(rule, Fraction(math.floor(target * pixels / 8)), float(target))


def allocate(
    frame: "pd.DataFrame",
    budget: Budget,
    objective: str,
    *,
    higher_is_better: bool = False,
    solver: str = "cbc",
    time_limit: float | None = None,
) -> Allocation:
    """Pick one operating point for each image: best mean objective within the budget, proven.

    Codecs mix freely. Equal optima are told apart the same way every time, whatever the order of rows.

    Args:
        frame: operating points as :func:`read_points` gives them.
        budget: from :func:`make_budget`.
        objective: a metric column.
        higher_is_better: of that metric.
        solver: of the integer program's core, ``cbc`` or ``highs``.
        time_limit: seconds for the core; past it the best found is given, with its gap.

    Raises:
        AllocationError: the objective isn't measured everywhere, or the target is below the smallest
            reachable rate, which the message states.
    """
    if objective not in frame or frame[objective].isna().any():
        count = int(frame[objective].isna().sum()) if objective in frame else len(frame)
        raise AllocationError(
            f"{objective} is missing at {count:,} of {len(frame):,} operating points; "
            f"run `allocator tables build` again with --metric {objective}."
        )
    frame = frame.sort_values(["image", "codec", "level"], kind="stable").reset_index(drop=True)
    grid = _Grid(frame)
    sign = -1.0 if higher_is_better else 1.0
    cost = sign * grid.spread(frame[objective].to_numpy(np.float64))
    try:
        solution, scale = _solve(grid, cost, budget, solver, time_limit)
    except Infeasible as error:
        raise AllocationError(_unreachable(grid, budget)) from error
    chosen = frame.iloc[grid.row[np.arange(len(grid.pixels)), solution.choices]].reset_index(drop=True)
    images = len(chosen)
    spent = _spent(chosen, budget.rule)
    mean_pixels = float(grid.pixels.mean()) if budget.rule == "mean" else 1.0
    return Allocation(
        chosen=chosen,
        objective=objective,
        budget=budget,
        mean_objective=math.fsum(chosen[objective]) / images,
        bytes=int(chosen["bytes"].sum()),
        bpp=float(spent * 8 / (images if budget.rule == "mean" else int(grid.pixels.sum()))),
        slack=float((budget.limit - spent) * Fraction(mean_pixels)),
        price=solution.price * float(scale) / mean_pixels / images,
        gap=solution.gap / images,
        single=_best_single(frame, budget, objective, sign),
        equal=_equal_rate(frame, grid, budget, objective, cost),
    )


class _Grid:
    """A frame's rows as items by options."""

    def __init__(self, frame: "pd.DataFrame") -> None:
        names, item = np.unique(frame["image"].to_numpy(str), return_inverse=True)
        counts = np.bincount(item)
        self.item = item
        self.option = np.arange(len(frame)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.shape = (len(names), int(counts.max()))
        self.available = np.zeros(self.shape, bool)
        self.available[self.item, self.option] = True
        self.row = self.spread(np.arange(len(frame)))
        self.bytes = self.spread(frame["bytes"].to_numpy(np.int64))
        first = self.row[:, 0]
        self.pixels: NDArray[np.int64] = (
            frame["width"].to_numpy(np.int64)[first] * frame["height"].to_numpy(np.int64)[first]
        )

    def spread(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Values by row as items by options, 0 where there's none."""
        grid = np.zeros(self.shape, values.dtype)
        grid[self.item, self.option] = values
        return grid


def _solve(
    grid: _Grid, cost: NDArray[np.float64], budget: Budget, solver: str, time_limit: float | None
) -> tuple[Solution, Fraction]:
    """The solution, and how many units of its integer weights are a byte (``mean``: a byte per pixel)."""

    def run(weights: NDArray[np.int64], limit: Fraction) -> Solution:
        return solve(cost, weights, math.floor(limit), available=grid.available, solver=solver, time_limit=time_limit)

    if budget.rule == "pooled":
        return run(grid.bytes, budget.limit), Fraction(1)
    per_pixel = grid.bytes / grid.pixels[:, None]
    most = math.ceil(per_pixel.max(axis=1).sum()) + 1
    common = math.lcm(*map(int, np.unique(grid.pixels)))
    if common * most < 2**_WEIGHT_BITS:
        scale = Fraction(common)
        return run(grid.bytes * (common // grid.pixels)[:, None], budget.limit * scale), scale
    # no common unit: rounded down, the weights allow too much by less than 2e-16 of the budget or so; if the
    # optimum found makes use of that, rounded up they allow too little, and the first bound still holds
    scale = Fraction(2**_WEIGHT_BITS // most)
    rounded = np.floor(per_pixel * float(scale)).astype(np.int64)
    relaxed = run(np.maximum(rounded - 2, 0), budget.limit * scale)
    rows = np.arange(len(grid.pixels))
    if _bytes_per_pixel(grid.bytes[rows, relaxed.choices], grid.pixels) <= budget.limit:
        return relaxed, scale
    return replace(run(rounded + 2, budget.limit * scale), bound=relaxed.bound), scale


def _spent(points: "pd.DataFrame", rule: Rule) -> Fraction:
    """What points take of a budget."""
    if rule == "pooled":
        return Fraction(int(points["bytes"].sum()))
    return _bytes_per_pixel(points["bytes"].to_numpy(), (points["width"] * points["height"]).to_numpy())


def _bytes_per_pixel(data: NDArray[np.int64], pixels: NDArray[np.int64]) -> Fraction:
    """The images' bytes per pixel, summed exactly."""
    sizes, at = np.unique(pixels, return_inverse=True)
    totals = np.zeros(len(sizes), np.int64)
    np.add.at(totals, at, data)
    return sum((Fraction(int(t), int(p)) for t, p in zip(totals, sizes, strict=True)), Fraction(0))


def _unreachable(grid: _Grid, budget: Budget) -> str:
    least = np.where(grid.available, grid.bytes, np.iinfo(np.int64).max).min(axis=1)
    if budget.rule == "pooled":
        rate = 8 * int(least.sum()) / int(grid.pixels.sum())
    else:
        rate = 8 * float((least / grid.pixels).mean())
    # rounded up, so that the rate named can be met
    reachable = math.ceil(rate * 1e5) / 1e5
    return (
        f"{budget.bpp:g} bpp can't be reached: the smallest bitstreams of all images take {reachable:g} bpp "
        f"({int(least.sum()):,} bytes)."
    )


def _best_single(frame: "pd.DataFrame", budget: Budget, objective: str, sign: float) -> Baseline | None:
    images = frame["image"].nunique()
    found = []
    for (codec, level), points in frame.groupby(["codec", "level"], sort=True):
        if len(points) == images and _spent(points, budget.rule) <= budget.limit:
            mean = math.fsum(points[objective]) / images
            found.append(
                (sign * mean, str(codec), level, mean, int(points["bytes"].sum()), points["setting"].iloc[0])
            )
    if not found:
        return None
    _, codec, _, mean, total, setting = min(found)
    return Baseline(mean, total, f"{codec} {setting}")


def _equal_rate(
    frame: "pd.DataFrame", grid: _Grid, budget: Budget, objective: str, cost: NDArray[np.float64]
) -> Baseline | None:
    share = budget.limit / (len(grid.pixels) if budget.rule == "mean" else int(grid.pixels.sum()))
    caps = np.array([math.floor(share * int(pixels)) for pixels in grid.pixels])
    within = np.where(grid.available & (grid.bytes <= caps[:, None]), cost, np.inf)
    best = np.argmin(within, axis=1)
    rows = np.arange(len(best))
    if np.isinf(within[rows, best]).any():
        return None
    points = frame.iloc[grid.row[rows, best]]
    return Baseline(math.fsum(points[objective]) / len(points), int(points["bytes"].sum()), "")
