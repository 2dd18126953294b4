"""Read the header of a JPEG XL image: the plugin must decode all pixels for the size, and doesn't know animations."""

from typing import BinaryIO

_SIZE_BITS = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"
_HEADER = 40  # bytes that hold a codestream's signature, size, and the metadata up to the animation
_PREVIEW_EIGHTHS, _PREVIEW_LENGTHS = (0, 0, 5, 9), (6, 8, 10, 12)  # bits


def jxl_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height in pixels (ISO/IEC 18181-1, SizeHeader); None if ``file`` is not a JPEG XL image.

    Args:
        file: a codestream or a container, from its position on.

    Raises:
        ValueError: a container without the header of a codestream.
    """
    bits = _header(file)
    return None if bits is None else _size(bits)


def is_animated_jxl(file: BinaryIO) -> bool:
    """Whether a file is a JPEG XL animation (ISO/IEC 18181-1, ImageMetadata), of which the plugin gives one frame.

    Args:
        file: see :func:`jxl_size`.

    Raises:
        ValueError: see :func:`jxl_size`.
    """
    bits = _header(file)
    if bits is None:
        return False
    _size(bits)
    all_default = bits.read(1)
    if all_default or not bits.read(1):  # without extra fields
        return False
    bits.read(3)  # orientation
    if bits.read(1):  # intrinsic size
        _size(bits)
    if bits.read(1):  # preview
        eighths = bits.read(1)
        lengths = _PREVIEW_EIGHTHS if eighths else _PREVIEW_LENGTHS
        bits.read(lengths[bits.read(2)])
        if not bits.read(3):  # no ratio
            bits.read(lengths[bits.read(2)])
    return bool(bits.read(1))


class _Bits:
    """Numbers from the bits of a header, the lowest first."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")

    def read(self, count: int) -> int:
        value = self._bits & ((1 << count) - 1)
        self._bits >>= count
        return value


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.read(1)

    def length() -> int:
        return 8 * (bits.read(5) + 1) if small else bits.read(_SIZE_BITS[bits.read(2)]) + 1

    height = length()
    ratio = bits.read(3)
    if ratio:
        numerator, denominator = _RATIOS[ratio - 1]
        return height * numerator // denominator, height
    return length(), height


def _header(file: BinaryIO) -> _Bits | None:
    """What follows the codestream's signature; None if ``file`` is not a JPEG XL image."""
    head = file.read(len(_SIGNATURE))
    contained = head == _SIGNATURE
    data = _codestream(file) if contained else head + file.read(_HEADER - len(head))
    if data[:2] != b"\xff\x0a":
        if contained:
            raise ValueError("a JPEG XL container without an image")
        return None
    return _Bits(data[2:_HEADER])


def _codestream(file: BinaryIO) -> bytes:
    """The first bytes of the codestream inside a container's boxes (ISO/IEC 18181-2), wherever these are."""
    found = b""
    while len(found) < _HEADER and len(head := file.read(8)) == 8:
        size, before, kind = int.from_bytes(head[:4], "big"), 8, head[4:]
        if size == 1:
            size, before = int.from_bytes(file.read(8), "big"), 16
        if kind == b"jxlp":
            file.read(4)
            before += 4
        inside = size - before if size else _HEADER  # 0: up to the end of the file
        if inside < 0:
            break
        taken = file.read(min(inside, _HEADER - len(found))) if kind in (b"jxlc", b"jxlp") else b""
        found += taken
        if not size:
            break
        file.seek(inside - len(taken), 1)
    return found
