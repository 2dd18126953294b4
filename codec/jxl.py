"""The size of a JPEG XL image from its first bytes: the plugin decodes all pixels before anyone can ask it."""

_SIZE_BITS = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def jxl_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels (ISO/IEC 18181-1, SizeHeader); None if ``data`` doesn't begin a JPEG XL image.

    Args:
        data: a codestream or a container, at least its first few kilobytes.
    """
    if data[4:12] == b"JXL \r\n\x87\n":
        data = _codestream(data)
    if data[:2] != b"\xff\x0a":
        return None
    bits, position = int.from_bytes(data[2:16], "little"), 0

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


def _codestream(data: bytes) -> bytes:
    """The first bytes of the codestream inside a container's boxes; empty if they aren't in ``data``."""
    position = 0
    while position + 8 <= len(data):
        size, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        start = position + 8
        if size == 1:
            size, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        if kind in (b"jxlc", b"jxlp"):
            return data[start + (4 if kind == b"jxlp" else 0) :]
        if size < 8:
            break
        position += size
    return b""
