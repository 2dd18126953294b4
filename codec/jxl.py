"""Read the size of a JPEG XL image from its header, because the plugin must decode all pixels for it."""

from typing import BinaryIO

_SIZE_BITS = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"
_HEADER = 16  # bytes that hold a codestream's signature and size


def jxl_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height in pixels (ISO/IEC 18181-1, SizeHeader); None if ``file`` is not a JPEG XL image.

    Args:
        file: a codestream or a container, from its position on.

    Raises:
        ValueError: a container without the header of a codestream.
    """
    head = file.read(len(_SIGNATURE))
    contained = head == _SIGNATURE
    data = _codestream(file) if contained else head + file.read(_HEADER - len(head))
    if data[:2] != b"\xff\x0a":
        if contained:
            raise ValueError("a JPEG XL container without an image")
        return None
    bits, position = int.from_bytes(data[2:_HEADER], "little"), 0

    def read(count: int) -> int:
        nonlocal position
        value = bits >> position & ((1 << count) - 1)
        position += count
        return value

    small = read(1)

    def length() -> int:
        return 8 * (read(5) + 1) if small else read(_SIZE_BITS[read(2)]) + 1

    height = length()
    ratio = read(3)
    if ratio:
        numerator, denominator = _RATIOS[ratio - 1]
        return height * numerator // denominator, height
    return length(), height


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
