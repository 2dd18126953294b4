"""Spend the rest of a budget on finer steps between levels, for the images that gain the most."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from allocator.allocation import Allocation
from allocator.metrics import Metric
from codec import Codec, CodecError, pixels_sha256
from codec.base import foreign_errors
from codec.image import read_stored_image
from codec.registry import stored_codec

ENOUGH = 64
"""Bytes; a smaller rest is not spent."""


@dataclass(frozen=True)
class Refilled:
    """An image that is encoded again, between its level and the next."""

    setting: str
    fingerprint: str
    data: bytes
    decoded_sha256: str
    metrics: dict[str, float]


def refill(
    allocation: Allocation,
    spare: int,
    metrics: Sequence[Metric],
    *,
    keep: Sequence[str] = (),
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Refilled]:
    """Encode images again until less than :data:`ENOUGH` bytes are unused.

    Images are processed in the order of the gain of their next level per byte; each gets the finest step that fits.
    A step that worsens the objective is not taken.

    Args:
        allocation: the allocation with the images.
        spare: the bytes to spend.
        metrics: metrics to measure again for changed images, including those of the objective.
        keep: names of metrics with floors, which must not become worse.
        report: called with a message for each step.

    Returns:
        The replacements of images' bitstreams, by name.
    """
    refilled: dict[str, Refilled] = {}
    points, chosen = allocation.points, allocation.chosen
    objective = allocation.objective
    shares = objective.shares(points["image"].tolist(), points["width"] * points["height"])
    costs = pd.Series(objective.aggregate.separable(objective.costs(points), shares), points.index)
    higher = {metric.name: metric.higher_is_better for metric in metrics}
    keys = zip(points["image"], points["codec"], points["level"], strict=True)
    places = dict(zip(keys, points.index, strict=True))
    gains: list[tuple[float, int]] = []
    for index, row in chosen.iterrows():
        here, above = (places.get((row["image"], row["codec"], row["level"] + more)) for more in (0, 1))
        if above is not None and (extra := int(points["bytes"][above]) - int(row["bytes"])) > 0:
            gain = float(costs[here] - costs[above])
            gains.append((gain / extra, int(str(index))))
    for gain, index in sorted(gains, reverse=True):
        if spare < ENOUGH or gain <= 0:
            break
        row = chosen.loc[index]
        codec = stored_codec(row["codec"])
        with foreign_errors(f"{row['image']}: {codec.name} can't refine {row['setting']}"):
            found = _finest(codec, row, spare, metrics)
        if found is None:
            continue
        before, after = objective.costs(pd.DataFrame([row.to_dict(), {**row.to_dict(), **found.metrics}]))
        worse = [name for name in keep if (found.metrics[name] - row[name]) * (1 if higher[name] else -1) < 0]
        if after > before or worse:
            continue
        spent = len(found.data) - int(row["bytes"])
        spare -= spent
        refilled[row["image"]] = found
        report(f"{row['image']}: {row['setting']} becomes {found.setting}, {spent:,} bytes more; {spare:,} are left.")
    return refilled


def _finest(codec: Codec, row: Any, spare: int, metrics: Sequence[Metric]) -> Refilled | None:
    """The largest setting between a level and the next that fits, by bisection."""
    level = int(row["level"])
    settings = codec.between(level)
    if not settings:
        return None
    image = read_stored_image(row["path"])
    if pixels_sha256(image) != row["sha256"]:
        raise CodecError(f"{row['path']}: has changed since it was measured; build the table again.")
    encode = codec.encoder_between(image, level)
    best: tuple[int, bytes] | None = None
    low, high = 0, len(settings) - 1
    while low <= high:
        middle = (low + high) // 2
        data = encode(middle)
        if len(data) <= row["bytes"] + spare:
            low = middle + 1
            if len(data) > (len(best[1]) if best else row["bytes"]):
                best = middle, data
        else:
            high = middle - 1
    if best is None:
        return None
    index, data = best
    decoded = codec.decode(data)
    values = {metric.name: float(metric.compare(metric.reference(image), decoded)) for metric in metrics}
    fingerprint = codec.fingerprint(level, settings[index])
    return Refilled(settings[index], fingerprint, data, pixels_sha256(decoded), values)
