"""What a codec is. Subclass :class:`Codec`, register it as an entry point, and every table can hold it."""

import contextlib
import functools
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from codec.picture import Picture

RGBImage: TypeAlias = NDArray[np.uint8]
"""Pixels as uint8 of shape (height, width, 3), sRGB, 0 to 255."""


def is_codec_name(name: str) -> bool:
    """Whether a name can be typed, and be the ending of a file."""
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name))


def shown(text: str, line_breaks: bool = True) -> str:
    """A text that does nothing to a terminal: what isn't printed is escaped, as in JSON.

    Names of files, and whatever strangers' files hold, may steer a terminal, turn the direction of writing, or be no
    text at all (halves of surrogate pairs stand for bytes that aren't UTF-8).

    Args:
        text: to be printed.
        line_breaks: keep them.
    """
    kept = "\n" if line_breaks else ""
    return _UNPRINTED.sub(lambda one: one[0] if one[0] == kept else f"\\u{ord(one[0]):04x}", text)


_UNPRINTED = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(Exception):
    """An error that its message explains to a person: what is wrong, where, and what to do.

    Args:
        message: in most cases one sentence.
        hint: parameters that would help, by name, and a value for each (True: no value). The command line shows
            them as its options.
    """

    def __init__(self, message: str = "", *, hint: Mapping[str, str | bool] | None = None) -> None:
        super().__init__(message)
        self.hint: Mapping[str, str | bool] = hint or {}


class CodecError(UserError):
    """Base of all errors of this package."""


class BitstreamError(CodecError):
    """A bitstream is damaged, truncated, too large, or of another codec."""


class ImageError(CodecError):
    """An image file can't be read or written; the message names the file and the reason."""


@contextlib.contextmanager
def foreign_errors(what: str) -> Iterator[None]:
    """Turn whatever someone's codec or metric raises into one sentence that begins with ``what``.

    Raises:
        CodecError: instead of any other exception but a lack of memory; that one is its cause.
    """
    try:
        yield
    except (CodecError, MemoryError):
        raise
    except Exception as error:
        raise CodecError(f"{what} ({reason(error)}).") from error


def reason(error: BaseException) -> str:
    """An exception in a few words: its type and its first line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(".: ")


def _takes_images(encode: Callable[[Any, RGBImage, int], bytes]) -> Callable[[Any, Any, int], bytes]:
    @functools.wraps(encode)
    def wrapped(self: Any, image: Any, level: int) -> bytes:
        if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,)):
            from codec.picture import as_rgb

            image = as_rgb(image)
        return encode(self, image, level)

    return wrapped


class Codec(ABC):
    """An image coder with an ordered bank of quality levels.

    Encoding must be deterministic: the same pixels and level give the same bytes.
    """

    name: str
    """What people type: ``hevc``."""
    suffix: str
    """Ending of a bitstream's file name, dot included; no two codecs share one."""
    version: str
    """Names what changes bytes or pixels besides the level and the code: libraries, settings, weights."""
    levels: Sequence[str]
    """The setting of each level, fewest bytes first: ``("crf50", "crf48", ...)``."""
    exact_pixels: bool = True
    """Whether every machine decodes a bitstream to the very same pixels; else a few may differ by a step."""
    portable: bool = True
    """Whether other machines decode its bitstreams to (nearly) these pixels; else they may read other symbols."""
    keeps_alpha: bool = False
    """Whether :meth:`picture_encoder` keeps transparency."""
    keeps_profile: bool = False
    """Whether it writes a colour profile into its bitstreams."""
    training_metrics: frozenset[str] = frozenset()
    """Names of the metrics that were in the loss that trained it, by which figures flatter it."""
    requirements: Sequence[str] = ()
    """Distributions that decoding imports, beside torch, numpy and Pillow: a submission brings them along."""

    def __init_subclass__(cls) -> None:
        """Let callers give :meth:`encode` files and Pillow images; implementations always get pixels."""
        super().__init_subclass__()
        if "encode" in vars(cls):
            cls.encode = _takes_images(cls.encode)  # type: ignore[assignment,method-assign]

    @abstractmethod
    def encode(self, image: Any, level: int) -> bytes:
        """Encode ``image`` at ``levels[level]`` into one complete bitstream.

        Args:
            image: an :data:`RGBImage`, which is what subclasses get; callers may also give whatever
                :func:`codec.picture.as_rgb` takes: a file, an address, a Pillow image, another array.
            level: from 0, fewest bytes first.

        Raises:
            ImageError: ``image`` can't be read, or isn't one.
            CodecError: the codec can't hold this image (its size, say).
        """

    def encoder(self, image: RGBImage) -> Callable[[int], bytes]:
        """:meth:`encode` for one image at many levels; to be overridden where levels share work."""
        return functools.partial(self.encode, image)

    def fits(self, format: str, *, alpha: bool, profile: bool) -> bool:
        """Whether it can encode such pictures.

        Args:
            format: Pillow's name of the file's format.
            alpha: some pixels are transparent.
            profile: its colours need a profile in the bitstream.
        """
        return (self.keeps_alpha or not alpha) and (self.keeps_profile or not profile)

    def picture_encoder(self, picture: "Picture") -> Callable[[int], bytes]:
        """:meth:`encoder` for a picture that :meth:`fits`; to be overridden where more than RGB is kept."""
        return self.encoder(picture.pixels)

    def decode_picture(self, data: bytes) -> "Picture":
        """:meth:`decode` with all that a viewer needs; to be overridden where more than RGB is kept."""
        from codec.picture import Picture

        return Picture(self.decode(data))

    @abstractmethod
    def decode(self, data: bytes) -> RGBImage:
        """Decode a bitstream made by :meth:`encode` at any level.

        Raises:
            BitstreamError: ``data`` isn't such a bitstream, or not a whole one.
        """

    def between(self, level: int) -> Sequence[str]:
        """Settings finer than the levels, between one and the next, fewest bytes first; by default there are none."""
        return ()

    def encoder_between(self, image: RGBImage, level: int) -> Callable[[int], bytes]:
        """Encodes an image with one of the settings of :meth:`between`, given by its index."""
        raise NotImplementedError(f"{self.name} has nothing between its levels.")

    @property
    def shares_cores(self) -> bool:
        """Whether several processes decode faster than one: not where they'd share one GPU."""
        return True

    def decode_memory(self, data: bytes) -> int:
        """About how many bytes of memory decoding takes beyond an idle process.

        Raises:
            BitstreamError: as :meth:`decode`, where a look at the header tells.
        """
        return 256 << 20

    @property
    def modules(self) -> Sequence[str]:
        """Modules whose code its bytes and pixels follow from, as :mod:`codec.code_digest` sees it.

        By default that of its class. Override it to name others too, or none where ``version`` tells all.
        """
        return (type(self).__module__,)

    def fingerprint(self, level: int, setting: str | None = None) -> str:
        """32 hex digits that change whenever the bytes or pixels of a level (or a setting beside it) might."""
        from codec.code_digest import unrecorded_code

        code = [digest for module in self.modules for digest in unrecorded_code(module)]
        identity = json.dumps([self.name, level, setting or self.levels[level], self.version, *code])
        return hashlib.sha256(identity.encode()).hexdigest()[:32]
