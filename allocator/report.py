"""An allocation as a page to look at: one HTML file that opens from disk, without a network."""

import base64
import html
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from PIL import Image

from allocator.allocation import Allocation, Baseline
from allocator.curve import Curve
from allocator.errors import AllocatorError
from allocator.metrics import Metric, MetricError, get_metric, stored_metric
from allocator.metrics.features import FeatureMetric
from allocator.provenance import FOOTNOTE, MARK, flatters
from allocator.summary import Summary
from allocator.tables import Table
from codec import CodecError, RGBImage
from codec.base import foreign_errors
from codec.picture import read_stored_picture
from codec.registry import stored_codec

TEMPLATE = Path(__file__).parent / "templates" / "report.html"
_CURVE_POINTS = 200


def make_report(
    table: Table,
    allocations: Sequence[Allocation],
    *,
    title: str,
    pictures: int = 40,
    side: int = 1024,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """The page of one or several allocations of a table, as HTML.

    Args:
        table: that they were made from, with its bitstreams.
        allocations: of the same images by the same objective, one for each target.
        title: of the page.
        pictures: so many images, the first by name, are shown; all of them stand in table and curves.
        side: pixels of a shown picture's longer side, at most.
        report: called with the images done and their number.

    Raises:
        AllocatorError: a bitstream isn't in the table, or Plotly isn't installed.
        CodecError: an original or a codec is missing.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise AllocatorError("The page needs Plotly: pip install 'clic-allocator[report]'.") from error

    first = allocations[0]
    objective = first.objective
    label = objective.label
    sign = objective.natural_sign
    points, *chosen = (
        frame.assign(value=sign * objective.costs(frame)).sort_values("bytes")
        for frame in (first.points, *(allocation.chosen for allocation in allocations))
    )
    names = sorted(points["image"].unique())
    metric = _mapped(objective.terms[0].metric)
    images = []
    for done, name in enumerate(names, 1):
        of_image, *rows = (frame[frame["image"] == name] for frame in (points, *chosen))
        chosen_rows = [row.iloc[0] for row in rows]
        images.append(_image(table, of_image, chosen_rows, metric if done <= pictures else None, side))
        report(done, len(names))
    content = {
        "title": title,
        "metric": label,
        "map": metric.name,
        "higher": bool(sign < 0),
        "summary": [Summary(allocation).sentences() for allocation in allocations],
        "targets": [_target(allocation) for allocation in allocations],
        "frontier": _frontier(first),
        "codecs": sorted(points["codec"].unique()),
        "mark": MARK,
        "footnote": FOOTNOTE,
        "flattered": _flattered(sorted(points["codec"].unique()), list(table.metrics())),
        "images": images,
        "pictures": min(pictures, len(names)),
    }
    page = TEMPLATE.read_text(encoding="utf-8").replace("{{title}}", html.escape(title))
    data = json.dumps(content, allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
    for place, text in (("{{plotly}}", get_plotlyjs()), ("{{data}}", data)):
        before, _, after = page.partition(place)
        page = before + text + after
    return page


def _flattered(codecs: Sequence[str], metrics: Sequence[str]) -> dict[str, list[str]]:
    """Of each codec the metrics that were in its training loss, if any."""
    found = {codec: [metric for metric in metrics if flatters(metric, codec)] for codec in codecs}
    return {codec: names for codec, names in found.items() if names}


def _mapped(name: str) -> FeatureMetric:
    """The metric whose map is shown: the objective's own if it has one, else LPIPS's."""
    try:
        metric: Metric = stored_metric(name)
    except (MetricError, CodecError):
        metric = get_metric("lpips")
    found = metric if isinstance(metric, FeatureMetric) else get_metric("lpips")
    assert isinstance(found, FeatureMetric)
    return found


def _image(
    table: Table, points: pd.DataFrame, chosen: Sequence[Any], metric: FeatureMetric | None, side: int
) -> dict[str, Any]:
    row = chosen[0]
    name = str(row["image"])
    found: dict[str, Any] = {
        "name": name,
        "width": int(row["width"]),
        "height": int(row["height"]),
        "curves": {
            str(codec): {
                "bpp": [round(float(x), 5) for x in curve["bpp"]],
                "value": [round(float(x), 6) for x in curve["value"]],
                "setting": [str(x) for x in curve["setting"]],
            }
            for codec, curve in points.groupby("codec", observed=True)
        },
        "chosen": [],
    }
    if metric:
        picture = read_stored_picture(row["path"], table.colour)
        if picture.sha256 != row["sha256"]:
            raise CodecError(f"{row['path']}: has changed since it was measured; build the table again.")
        original = picture.over(picture.backgrounds[-1])
        found["original"] = _picture(original, side)
        reference = metric.reference(original)
    measured = [one for one in table.metrics() if one in points]
    for one in chosen:
        entry: dict[str, Any] = {
            "codec": one["codec"],
            "setting": one["setting"],
            "bytes": int(one["bytes"]),
            "bpp": round(float(one["bpp"]), 5),
            "value": round(float(one["value"]), 6),
            "metrics": {key: round(float(one[key]), 5) for key in measured if one[key] == one[key]},
        }
        if metric:
            data = table.bitstream(one["sha256"], one["fingerprint"])
            if data is None:
                raise AllocatorError(f"{table.path}: holds no bitstream of {name}; build it with bitstreams.")
            with foreign_errors(f"{name}: {one['codec']} can't decode it at {one['setting']}"):
                decoded = stored_codec(one["codec"]).decode_picture(data).over(picture.backgrounds[-1])
            entry["picture"] = _picture(decoded, side)
            entry["heat"] = _heat(metric.map(reference, decoded), side // 4)
        found["chosen"].append(entry)
    return found


def _picture(image: RGBImage, side: int) -> str:
    return _encoded(_shrunk(Image.fromarray(image), side), quality=82)


def _heat(distances: np.ndarray[Any, Any], side: int) -> str:
    """Where images differ: bright and opaque where they differ most, on a scale that all pictures share."""
    strength = np.clip(np.asarray(distances, np.float64), 0, 1) ** 0.5
    colours = (colormaps["inferno"](strength) * 255).astype(np.uint8)
    colours[..., 3] = (255 * strength).astype(np.uint8)
    return _encoded(_shrunk(Image.fromarray(colours, "RGBA"), side), quality=50)


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def _encoded(image: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, alpha_quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _target(allocation: Allocation) -> dict[str, Any]:
    def baseline(one: Baseline | None) -> dict[str, Any] | None:
        return one and {"value": one.value, "bpp": one.bpp, "detail": one.detail}

    return {
        "bpp": allocation.budget.bpp,
        "achieved": allocation.bpp,
        "value": allocation.value,
        "single": baseline(allocation.single),
        "equal": baseline(allocation.equal),
    }


def _frontier(allocation: Allocation) -> dict[str, list[float]] | None:
    """The whole set's curve; None where there is none, for images don't stand alone."""
    if not allocation.objective.aggregate.is_plain_mean:
        return None
    frame = Curve(allocation.points, allocation.objective, allocation.budget.rule).frame(_CURVE_POINTS)
    return {key: [round(float(x), 6) for x in frame[key]] for key in ("bpp", "value")}
