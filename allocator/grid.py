"""A table's rows as the arrays that the solver takes."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fractions import Fraction

    import pandas as pd

Scalar = TypeVar("Scalar", bound=np.generic)


class Grid:
    """Operating points as images by options; images may have different numbers of them."""

    def __init__(self, points: "pd.DataFrame") -> None:
        import pandas as pd

        points = _sorted(points)
        self.points = points
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
        level = self.points["level"].to_numpy()
        levels = int(level.max()) + 1
        kind = codec * levels + level
        for one in np.flatnonzero(np.bincount(kind) == len(self.pixels)):
            rows = np.flatnonzero(kind == one)
            yield str(codecs[one // levels]), str(self.points["setting"].iloc[rows[0]]), rows

    def at_most(self, rate: "Fraction | float") -> NDArray[np.bool_]:
        """Which options take no more than so many bytes a pixel, images by options."""
        sizes, of_size = np.unique(self.pixels, return_inverse=True)
        caps = np.array([math.floor(rate * int(pixels)) for pixels in sizes])[of_size]
        return self.available & (self.bytes <= caps[:, None])

    def spread(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Values by row as items by options, 0 where there's none."""
        grid = np.zeros(self.shape, values.dtype)
        grid[self.item, self.option] = values
        return grid


def _sorted(points: "pd.DataFrame") -> "pd.DataFrame":
    """By image, codec and level, as they are already where they come from a table."""
    import pandas as pd

    image, codec = (pd.factorize(points[name], sort=True)[0] for name in ("image", "codec"))
    keys = (points["level"].to_numpy(), codec, image)
    order = np.lexsort(keys)
    if (order == np.arange(len(order))).all():
        return points.reset_index(drop=True)
    return points.iloc[order].reset_index(drop=True)
