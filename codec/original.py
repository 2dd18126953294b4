"""The original file as the only level of a codec: chosen if nothing smaller is good enough."""

from collections.abc import Callable

from codec.base import BitstreamError, Codec, CodecError, ImageError, RGBImage
from codec.picture import Picture, read_picture

ORIGINAL = "original"
_DEPLOYABLE = frozenset({"AVIF", "GIF", "JPEG", "JXL", "MPO", "PNG", "WEBP"})
"""Pillow's names of the formats that web browsers show."""


class Original(Codec):
    """The unchanged file, including metadata; only for files to deploy."""

    name = ORIGINAL
    suffix = ".original"
    version = "1"
    levels = ("as is",)
    keeps_alpha = True
    keeps_profile = True

    def fits(self, format: str, *, alpha: bool, profile: bool) -> bool:
        return format in _DEPLOYABLE

    def encode(self, image: RGBImage, level: int) -> bytes:
        raise CodecError("original keeps files as they are; it can't encode pixels.")

    def picture_encoder(self, picture: Picture) -> Callable[[int], bytes]:
        return lambda level: picture.source

    def decode(self, data: bytes) -> RGBImage:
        return self.decode_picture(data).over(0)

    def decode_picture(self, data: bytes) -> Picture:
        try:
            return read_picture("bitstream", "srgb", data)
        except ImageError as error:
            raise BitstreamError(f"not a complete image file ({error}).") from error
