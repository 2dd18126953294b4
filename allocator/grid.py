"""A table's rows as the arrays that the solver takes."""

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
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
