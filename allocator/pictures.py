"""The pictures of a page: originals, decoded images, and maps of their differences."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from codec import CodecError, RGBImage
from codec.base import foreign_errors
from codec.picture import Colour, read_stored_picture
from codec.registry import stored_codec

if TYPE_CHECKING:
    from allocator.metrics import Metric
    from allocator.metrics.features import FeatureMetric


class Original(NamedTuple):
    """An original as it was measured."""

    image: RGBImage
    background: int
    """The grey behind transparent pixels, in the original and the decoded image."""


def read_original(point: Mapping[str, Any], colour: Colour) -> Original:
    """Read the original of an operating point.

    Args:
        point: an operating point with ``path`` and ``sha256``.
        colour: the table's rule for colour profiles.

    Raises:
        CodecError: the file can't be read, or has changed since it was measured.
    """
    picture = read_stored_picture(point["path"], colour)
    if picture.sha256 != point["sha256"]:
        raise CodecError(f"{point['path']}: has changed since it was measured; build the table again.")
    background = picture.backgrounds[-1]
    return Original(picture.over(background), background)


def decode(point: Mapping[str, Any], bitstream: bytes, background: int) -> RGBImage:
    """Decode an operating point's bitstream.

    Args:
        point: an operating point with ``image``, ``codec`` and ``setting``.
        bitstream: its bitstream.
        background: see :class:`Original`.

    Raises:
        CodecError: it can't be decoded.
    """
    with foreign_errors(f"{point['image']}: {point['codec']} can't decode it at {point['setting']}"):
        return stored_codec(point["codec"]).decode_picture(bitstream).over(background)


def find_mapped(name: str) -> "FeatureMetric":
    """The metric of the map: the one of this name if it has a map, otherwise LPIPS."""
    from allocator.metrics import MetricError, get_metric, stored_metric
    from allocator.metrics.features import FeatureMetric

    try:
        metric: Metric = stored_metric(name)
    except (MetricError, CodecError):
        metric = get_metric("lpips")
    found = metric if isinstance(metric, FeatureMetric) else get_metric("lpips")
    assert isinstance(found, FeatureMetric)
    return found


def draw_heat(distances: np.ndarray[Any, Any]) -> Image.Image:
    """A map of differences: bright and opaque where images differ most, on a scale for all pictures."""
    from matplotlib import colormaps

    strength = np.clip(np.asarray(distances, np.float64), 0, 1) ** 0.5
    colours = (colormaps["inferno"](strength) * 255).astype(np.uint8)
    colours[..., 3] = (255 * strength).astype(np.uint8)
    return Image.fromarray(colours, "RGBA")


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """Scale down an image to a longest side."""
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def as_webp(image: Image.Image, quality: int) -> bytes:
    """Encode an image as WebP."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, alpha_quality=quality, method=4)
    return buffer.getvalue()


def as_png(image: Image.Image) -> bytes:
    """Encode an image for a browser quickly and without loss."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
