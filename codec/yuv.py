"""Raw planar video, which reference encoders read: YCbCr of BT.709 in full range, 4:4:4."""

import numpy as np
from numpy.typing import NDArray

from codec.base import RGBImage

BITS = {"yuv444p": 8, "yuv444p10le": 10}
"""Bits of each sample, by ffmpeg's names of the formats; over 8 bits, a sample takes two bytes, little-endian."""
_RED, _BLUE = 0.2126, 0.0722  # weights of BT.709's luma


def to_yuv(image: RGBImage, format: str) -> bytes:
    """The planes Y, Cb and Cr of an image, one after the other.

    Args:
        image: (height, width, 3).
        format: one of :data:`BITS`.
    """
    red, green, blue = np.moveaxis(image.astype(np.float64) / 255, 2, 0)
    luma = _RED * red + (1 - _RED - _BLUE) * green + _BLUE * blue
    planes = [luma, (blue - luma) / (2 * (1 - _BLUE)) + 0.5, (red - luma) / (2 * (1 - _RED)) + 0.5]
    most = (1 << BITS[format]) - 1
    # half of the range is (most + 1) / 2, as the standards have it, and not most / 2
    scaled = [most * planes[0], *(most * (plane - 0.5) + (most + 1) / 2 for plane in planes[1:])]
    samples: NDArray[np.uint16] = np.stack(scaled).round().clip(0, most).astype(_type(format))
    return samples.tobytes()


def from_yuv(data: bytes, height: int, width: int, format: str) -> RGBImage:
    """The image of the planes that :func:`to_yuv` made, or that a decoder wrote.

    Raises:
        ValueError: there are more or fewer bytes than the size takes.
    """
    samples: NDArray[np.float64] = np.frombuffer(data, _type(format)).astype(np.float64)
    if len(samples) != 3 * height * width:
        raise ValueError(f"{len(data):,} bytes are not a frame of {width}x{height} pixels in {format}")
    most = (1 << BITS[format]) - 1
    luma, cb, cr = samples.reshape(3, height, width)
    luma, cb, cr = luma / most, (cb - (most + 1) / 2) / most, (cr - (most + 1) / 2) / most
    red = luma + 2 * (1 - _RED) * cr
    blue = luma + 2 * (1 - _BLUE) * cb
    green = (luma - _RED * red - _BLUE * blue) / (1 - _RED - _BLUE)
    image: RGBImage = (np.stack([red, green, blue], 2) * 255).round().clip(0, 255).astype(np.uint8)
    return image


def _type(format: str) -> str:
    return "u1" if BITS[format] == 8 else "<u2"
