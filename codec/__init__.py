"""Codecs: an RGB image to a bitstream and back, at many quality levels."""

from codec.base import BitstreamError, Codec, CodecError, ImageError, RGBImage
from codec.entry_points import UnknownName
from codec.formats import write_png
from codec.image import pixels_sha256, read_image
from codec.registry import codec_for_file, get_codec, names
from codec.registry import get_codec as get

__all__ = [
    "BitstreamError",
    "Codec",
    "CodecError",
    "ImageError",
    "RGBImage",
    "UnknownName",
    "codec_for_file",
    "get",
    "get_codec",
    "names",
    "pixels_sha256",
    "read_image",
    "write_png",
]
