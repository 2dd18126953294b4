"""Colour profiles (ICC): convert pixels to sRGB, which viewers assume for files without a profile."""

import functools
import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""A profile's colour space to Pillow's mode of its pixels."""
_SAME = 1
"""The largest difference, in steps of 255, between a profile and sRGB for both to count as equal."""


class _Opened(NamedTuple):
    """A profile that pixels can be converted by."""

    mode: str
    """Pillow's mode of the pixels."""
    name: str
    to_srgb: Any


@functools.lru_cache(maxsize=32)
def _open(profile: bytes) -> _Opened | None:
    """A profile; None if it is damaged, incomplete or of another kind."""
    from PIL import ImageCms

    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _SPACES[opened.profile.xcolor_space.strip()]
        to_srgb = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, ValueError, KeyError, ImageCms.PyCMSError):
        return None
    name = " ".join((opened.profile.profile_description or "").split())
    return _Opened(mode, name or "unnamed", to_srgb)


def mode_of(profile: bytes | None) -> str | None:
    """Pillow's mode of the pixels that a profile describes; None if it is damaged, incomplete or of another kind."""
    opened = _open(profile) if profile else None
    return opened.mode if opened else None


def profile_name(profile: bytes) -> str:
    """The name in a profile that :func:`mode_of` returns a mode for."""
    opened = _open(profile)
    assert opened
    return opened.name


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an image's pixels to sRGB (relative to the white point; perceptual if the profile supports it).

    Args:
        image: an image in the mode that :func:`mode_of` returns for the profile.
        profile: the profile of its pixels.
    """
    opened = _open(profile)
    assert opened
    converted = opened.to_srgb.apply(image)
    assert isinstance(converted, Image.Image)
    return converted


@functools.lru_cache(maxsize=32)
def is_srgb(profile: bytes) -> bool:
    """Whether colours look the same with and without a profile."""
    if (mode := mode_of(profile)) not in ("RGB", "L"):
        return False
    if mode == "RGB":
        steps = np.linspace(0, 255, 9).round().astype(np.uint8)
        samples = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    else:
        samples = np.arange(256, dtype=np.uint8)[None]
    image = Image.fromarray(samples)
    plain, seen = (np.asarray(one, np.int16) for one in (image.convert("RGB"), to_srgb(image, profile)))
    return int(abs(seen - plain).max()) <= _SAME
