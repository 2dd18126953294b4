"""Convert a table's rows to the arrays of the solver."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from allocator.errors import AllocatorError

if TYPE_CHECKING:
    import pandas as pd

Rule = Literal["pooled", "mean"]
"""How the rate of a set is counted: total bytes (the challenge), or the mean of the images' bits per pixel
(PO-DKIC, equation 6)."""


def check_rule(rule: str | None) -> Rule:
    """The rule of a name.

    Raises:
        AllocatorError: there is no such rule.
    """
    if rule not in get_args(Rule):
        raise AllocatorError(f"The rule must be pooled or mean, not {rule!r}.")
    return cast("Rule", rule)


OTHER_RULE: dict[Rule, Rule] = {"pooled": "mean", "mean": "pooled"}
_WEIGHT_BITS = 60
"""The largest weight, so that sums of weights stay exact in 64 bits."""
Scalar = TypeVar("Scalar", bound=np.generic)


class Weights(NamedTuple):
    """The integer weights of options."""

    lower: NDArray[np.int64]
    """Weights of images by options, rounded down."""
    upper: NDArray[np.int64]
    """The same rounded up; the same array if nothing is rounded."""
    scale: Fraction
    """Units per byte (under ``mean``: per byte per pixel)."""


class Grid:
    """Operating points as images by options; images may have different numbers of them."""

    def __init__(self, points: "pd.DataFrame") -> None:
        import pandas as pd

        points = _sort(points)
        self.labels: NDArray[np.int64] = points.index.to_numpy()
        """The index of each row of :attr:`points` in the given points."""
        self.points = points = points.reset_index(drop=True)
        item, names = pd.factorize(points["image"])
        counts = np.bincount(item)
        self.item = item
        self.option = np.arange(len(points)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.shape = (len(names), int(counts.max()))
        self.available = np.zeros(self.shape, bool)
        self.available[self.item, self.option] = True
        self.row = self.spread(np.arange(len(points)))
        self.bytes = self.spread(points["bytes"].to_numpy(np.int64))
        first = self.row[:, 0]
        self.pixels: NDArray[np.int64] = (
            points["width"].to_numpy(np.int64)[first] * points["height"].to_numpy(np.int64)[first]
        )

    def common_levels(self) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
        """Codec, setting and rows (of :attr:`points`) of each level that all images have, by codec and level."""
        import pandas as pd

        codec, codecs = pd.factorize(self.points["codec"], sort=True)
        level, levels = pd.factorize(self.points["level"].to_numpy(), sort=True)
        kind = codec * len(levels) + level
        for one in np.flatnonzero(np.bincount(kind) == len(self.pixels)):
            rows = np.flatnonzero(kind == one)
            yield str(codecs[one // len(levels)]), str(self.points["setting"].iloc[rows[0]]), rows

    def weights(self, rule: Rule) -> Weights:
        """The weight of each option under a rule.

        Under ``mean``, a byte weighs 1 / pixels of its image. Weights are exact if the images' pixels have a
        sufficiently small common multiple, and otherwise rounded to a unit of about 2^-60 of the heaviest choice.
        """
        if rule == "pooled":
            return Weights(self.bytes, self.bytes, Fraction(1))
        most = math.ceil((self.bytes / self.pixels[:, None]).max(axis=1).sum()) + 1
        common = math.lcm(*map(int, np.unique(self.pixels)))
        if common * most < 2**_WEIGHT_BITS:
            exact = self.bytes * (common // self.pixels)[:, None]
            return Weights(exact, exact, Fraction(common))
        scale = 2**_WEIGHT_BITS // most
        whole, part = (values[:, None] for values in np.divmod(scale, self.pixels))
        lower = self.bytes * whole + self.bytes * part // self.pixels[:, None]
        return Weights(lower, lower + (self.bytes * part % self.pixels[:, None] > 0), Fraction(scale))

    def spent(self, bytes_: NDArray[np.int64], rule: Rule) -> Fraction:
        """The exact part of a budget that bitstreams of these sizes use, one for each image."""
        if rule == "pooled":
            return Fraction(int(bytes_.sum()))
        sizes, at = np.unique(self.pixels, return_inverse=True)
        totals = np.zeros(len(sizes), np.int64)
        np.add.at(totals, at, bytes_)
        return sum((Fraction(int(t), int(p)) for t, p in zip(totals, sizes, strict=True)), Fraction(0))

    def bpp(self, spent: Fraction, rule: Rule) -> float:
        """The rate under a rule, in bits per pixel, of a used part of a budget (:meth:`spent`)."""
        return float(8 * spent / (int(self.pixels.sum()) if rule == "pooled" else len(self.pixels)))

    def equal_rate(self, costs: NDArray[np.float64], rate: "Fraction | float") -> NDArray[np.int64] | None:
        """The best option of each image within a rate; None if an image has none.

        Args:
            costs: costs of images by options.
            rate: bytes per pixel.
        """
        sizes, of_size = np.unique(self.pixels, return_inverse=True)
        caps = np.array([math.floor(rate * int(pixels)) for pixels in sizes])[of_size]
        within = np.where(self.available & (self.bytes <= caps[:, None]), costs, np.inf)
        return None if np.isinf(within.min(axis=1)).any() else within.argmin(axis=1)

    def spread(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Convert values by row to items by options, with 0 for missing ones."""
        grid = np.zeros(self.shape, values.dtype)
        grid[self.item, self.option] = values
        return grid


def _sort(points: "pd.DataFrame") -> "pd.DataFrame":
    """Sort by image, codec and level; rows from a table are sorted already."""
    import pandas as pd

    image, codec = (pd.factorize(points[name], sort=True)[0] for name in ("image", "codec"))
    keys = (points["level"].to_numpy(), codec, image)
    order = np.lexsort(keys)
    if (order == np.arange(len(order))).all():
        return points
    return points.iloc[order]
