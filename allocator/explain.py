"""Explain the level of each image."""

import math
from typing import TYPE_CHECKING, Any

from allocator.allocation import Allocation, AllocationError

if TYPE_CHECKING:
    import pandas as pd


def explain(allocation: Allocation) -> list[str]:
    """Describe the result of each image's level, and the cost and gain of the next level up and down.

    A level is worth its bytes if each gains more than the price, which is the gain of a byte elsewhere in the
    set. The next level is the next one on the convex hull of the image's curve.

    Raises:
        AllocationError: the objective does not aggregate by the mean, so images can't be explained separately.
    """
    if not allocation.objective.aggregate.is_plain_mean:
        raise AllocationError("Only an allocation by the mean can be explained image by image.")
    lines = []
    chosen = allocation.chosen.assign(price=allocation.image_prices()).set_index("image")
    for image, points in allocation.points.groupby("image", observed=True):
        lines += _explain_image(str(image), points, chosen.loc[image], allocation)
    return lines


def _explain_image(image: str, points: "pd.DataFrame", chosen: Any, allocation: Allocation) -> list[str]:
    objective = allocation.objective
    costs = dict(zip(points.index, objective.costs(points), strict=True))
    label = objective.label
    here = points[(points["codec"] == chosen["codec"]) & (points["level"] == chosen["level"])].index[0]
    lines = [
        f"{image}: {chosen['codec']} {chosen['setting']}, {chosen['bytes']:,} bytes ({chosen['bpp']:.4f} bpp), "
        f"{label} {objective.natural_sign * costs[here]:.4f}"
    ]
    price = float(chosen["price"])
    if price == math.inf:
        return [*lines, "  its weight is 0, so it gets the fewest bytes"]
    up = [i for i in points.index if costs[i] < costs[here] and points["bytes"][i] > chosen["bytes"]]
    down = [i for i in points.index if costs[i] > costs[here] and points["bytes"][i] < chosen["bytes"]]

    def rate(index: Any) -> float:
        return float((costs[here] - costs[index]) / (points["bytes"][index] - chosen["bytes"]))

    def name(index: Any) -> str:
        return f"{points['codec'][index]} {points['setting'][index]}"

    if up:
        best = max(up, key=rate)
        extra, gain = int(points["bytes"][best] - chosen["bytes"]), costs[here] - costs[best]
        verdict = (
            f"elsewhere these bytes gain about {price * extra:.4f}"
            if price * extra > gain
            else f"more than elsewhere (about {price * extra:.4f}), but the budget has no room for it"
        )
        lines.append(f"  up, {name(best)}: {extra:,} more bytes gain {gain:.4f}; {verdict}")
    else:
        lines.append("  up: no level is better")
    if down:
        best = min(down, key=rate)
        saved, loss = int(chosen["bytes"] - points["bytes"][best]), costs[best] - costs[here]
        verdict = (
            f"elsewhere these bytes gain only about {price * saved:.4f}"
            if price * saved < loss
            else f"elsewhere these bytes might gain {price * saved:.4f}, but no combination of levels does"
        )
        lines.append(f"  down, {name(best)}: {saved:,} fewer bytes lose {loss:.4f}; {verdict}")
    else:
        lines.append("  down: no level is smaller and worse")
    return lines
