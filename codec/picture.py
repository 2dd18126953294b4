"""Images as they are deployed: with their transparency, and with colours that look as the file's own.

One rule, :data:`Colour`, says what becomes of a colour profile:

- ``raw``: it is ignored, as the challenge's scoring does; transparency is refused.
- ``srgb``: pixels are converted to sRGB, which every viewer assumes of a file without a profile.
- ``profile``: RGB pixels stay as they are, and the profile is written into every file. Of CMYK and grayscale images,
  which most formats can't hold, the pixels are converted.

Whatever the rule, EXIF orientation is applied, and samples of 16 bits keep their upper 8.
"""

import functools
import hashlib
import io
import os
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from codec import colour as profiles
from codec.base import ImageError, RGBImage
from codec.files import write_file
from codec.formats import open_image
from codec.image import FORMATS, pixels_sha256, read_image, reading, to_pixels
from codec.trust import check_path

Colour = Literal["raw", "srgb", "profile"]
"""What becomes of colour profiles."""
ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[np.uint8]"
_BLACK, _WHITE = 0, 255
_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"}
_HEAD = 1 << 16
"""Bytes of a file in which its colours are described."""
_WIDE = {9, 11, 12}
"""Code points of BT.2020's and P3's primaries."""
_HIGH_RANGE = {8, 16, 18}
"""Of the linear, PQ and HLG transfer characteristics."""


@dataclass(frozen=True)
class Picture:
    """An image with all that a viewer needs to show it."""

    pixels: NDArray[np.uint8]
    """Shape (height, width, 3), or (height, width, 4) with alpha."""
    profile: bytes | None = None
    """Of the pixels; without one they are sRGB."""
    source: bytes = b""
    """The file that it was read from; empty under the rule ``raw``."""
    format: str = ""
    """Pillow's name of that file's format."""
    found: str = ""
    """The name of the file's own profile, where colours would be wrong without it."""
    file_bytes: int = 0
    """Size of that file."""

    @property
    def alpha(self) -> bool:
        """Whether it has an alpha channel."""
        return self.pixels.shape[2] == 4

    @functools.cached_property
    def sha256(self) -> str:
        """What tables know it by: its pixels, and under other rules than ``raw`` the file, too."""
        pixels = pixels_sha256(self.pixels)
        if not self.source:
            return pixels
        return hashlib.sha256(b"".join([pixels.encode(), self.profile or b"", b"\0", self.source])).hexdigest()

    def over(self, grey: int) -> RGBImage:
        """What a viewer shows over a background, in sRGB: uint8 of shape (height, width, 3).

        Args:
            grey: of the background, 0 to 255.
        """
        seen: RGBImage = self.pixels[..., :3]
        if self.profile:
            seen = np.asarray(profiles.to_srgb(Image.fromarray(np.ascontiguousarray(seen)), self.profile))
        if not self.alpha:
            return np.ascontiguousarray(seen)
        opacity = self.pixels[..., 3:].astype(np.uint16)
        return ((seen * opacity + grey * (255 - opacity) + 127) // 255).astype(np.uint8)

    @property
    def backgrounds(self) -> tuple[int, ...]:
        """Over which it's to be looked at."""
        return (_BLACK, _WHITE) if self.alpha else (_BLACK,)


def read_picture(path: str | os.PathLike[str], colour: Colour, data: bytes | None = None) -> Picture:
    """Read an image file, also from an address, under a rule for colour profiles.

    Args:
        path: of the file.
        colour: the rule.
        data: the file's content, where it's at hand.

    Raises:
        ImageError: see :func:`codec.read_image`; besides, under other rules than ``raw``, colours that are described
            without a profile (by CICP) and aren't sRGB's.
    """
    with reading(path, data) as file:
        image = open_image(file, FORMATS)
        pixels = to_pixels(image, file, path)
        profile = _fitting(image)
        file.seek(0)
        source = file.read()
        found = profiles.profile_name(profile) if profile else ""
        if colour == "raw":
            if pixels.shape[2] > 3:
                raise ImageError(f"{path}: has transparent pixels, which are kept under other colour rules only.")
            return Picture(pixels, format=image.format or "", found=found, file_bytes=len(source))
        if not profile:
            _refuse_other_colours(source, path)
        elif colour == "srgb" or profiles.mode_of(profile) != "RGB":
            pixels[..., :3] = _converted(image, pixels, profile)
            profile = None
        return Picture(pixels, profile, source, image.format or "", found, len(source))


def as_rgb(image: ImageLike) -> RGBImage:
    """The pixels of an image, wherever it is; colour profiles are ignored.

    Args:
        image: a file or address, a Pillow image, or an array: uint8 of shape (height, width), grey, or
            (height, width, 3 or 4). A fourth channel is opacity.

    Raises:
        ImageError: it can't be read, is of another type or shape, or has transparent pixels.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, Image.Image):
        pixels = to_pixels(image.copy(), io.BytesIO(), "The image")
    else:
        pixels = _checked_array(image)
    if pixels.shape[2] > 3 and pixels[..., 3].min() < 255:
        raise ImageError("The image has transparent pixels, which no bitstream of RGB keeps.")
    return np.ascontiguousarray(pixels[..., :3])


def save_image(path: str | os.PathLike[str], image: "NDArray[np.uint8] | Image.Image") -> None:
    """Write an image as a PNG that keeps every pixel, whole or not at all.

    Args:
        path: of the file; missing folders are made.
        image: a Pillow image, or an array as :func:`as_rgb` takes it.

    Raises:
        ImageError: it is of another type or shape, its samples fit no PNG, or the file can't be written.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(_checked_array(image))
    buffer = io.BytesIO()
    try:
        picture.save(buffer, "PNG", compress_level=1)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: an image of mode {picture.mode} can't be written as PNG ({error}).") from error
    write_file(path, buffer.getvalue())


def _checked_array(array: object) -> NDArray[np.uint8]:
    """Shape (height, width, 3 or 4)."""
    pixels = np.asarray(array)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or not pixels.size:
        raise ImageError(
            "An image is a file, a Pillow image, or an array of uint8 of shape (height, width) or "
            f"(height, width, 3 or 4), not {type(array).__name__}"
            + (f" of {pixels.dtype}, shape {pixels.shape}." if isinstance(array, np.ndarray) else ".")
        )
    return pixels


def read_stored_picture(path: str, colour: Colour) -> Picture:
    """As :func:`read_picture`, from where a table says that an image is.

    Raises:
        UntrustedName: it is an address, and nobody trusts it (see :mod:`codec.trust`).
    """
    check_path(path)
    return read_picture(path, colour)


def _fitting(image: Image.Image) -> bytes | None:
    """An image's profile, if it's of the kind that the image needs and not sRGB's own."""
    profile: bytes | None = image.info.get("icc_profile")
    mode = profiles.mode_of(profile)
    fits = {"CMYK": image.mode == "CMYK", "RGB": image.mode != "CMYK", "L": image.mode in _GREY}
    return profile if profile and mode and fits[mode] and not profiles.is_srgb(profile) else None


def _converted(image: Image.Image, pixels: NDArray[np.uint8], profile: bytes) -> NDArray[np.uint8]:
    """The colours of pixels in sRGB, shape (height, width, 3)."""
    match profiles.mode_of(profile):
        case "CMYK":
            stored = ImageOps.exif_transpose(image)
        case "L":
            stored = Image.fromarray(np.ascontiguousarray(pixels[..., 0]))
        case _:
            stored = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    return np.asarray(profiles.to_srgb(stored, profile))


def _refuse_other_colours(source: bytes, path: str | os.PathLike[str]) -> None:
    """Refuse wide or high-range colours that a file describes by code points (ITU-T H.273) alone."""
    head = source[:_HEAD]
    if source.startswith(b"\x89PNG"):
        size, place = 1, head.find(b"cICP") + 4
    else:
        size, place = 2, head.find(b"colrnclx") + 8
    if place < 8:
        return
    primaries, transfer = (int.from_bytes(head[place + size * i : place + size * (i + 1)], "big") for i in (0, 1))
    if primaries in _WIDE or transfer in _HIGH_RANGE:
        raise ImageError(
            f"{path}: its colours (CICP {primaries}/{transfer}) are wider than sRGB and come without a profile; "
            "convert it first."
        )
