"""Find the end of a standard image file: libraries ignore bytes that are appended."""

import re
from collections.abc import Callable

_MARKER = re.compile(rb"\xff+[^\x00\xff]")
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""Bytes after 0xFF that are not markers: those of entropy-coded data and restart markers."""
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_SOC, _SOT, _EOC = b"\xff\x4f", b"\xff\x90", b"\xff\xd9"
_IDLE_BOXES = {b"free", b"skip", b"uuid"}


def jpeg_end(data: bytes) -> int:
    """The end of a JPEG file (ITU-T T.81, annex B): after its EOI marker.

    Raises:
        ValueError: it has none.
    """
    position, kind = 2, _SOI
    while kind != _EOI:
        found = _MARKER_IN_SCAN.search(data, position) if kind == _SOS else _MARKER.match(data, position)
        if not found:
            raise ValueError("its end is missing")
        position, kind = found.end(), data[found.end() - 1]
        if kind not in (_SOI, _EOI):
            position += int.from_bytes(data[position : position + 2], "big")
    return position


def jpeg2000_end(data: bytes) -> int:
    """The end of a JPEG 2000 codestream (ITU-T T.800, annex A): after its EOC marker.

    Raises:
        ValueError: it has none.
    """
    position = 2 if data.startswith(_SOC) else len(data)
    while (marker := data[position : position + 2]) != _EOC:
        at, size = (position + 6, 4) if marker == _SOT else (position + 2, 2)
        length = int.from_bytes(data[at : at + size], "big")
        if not length or position >= len(data):
            raise ValueError("its end is missing")
        position += length if marker == _SOT else 2 + length
    return position + 2


def webp_end(data: bytes) -> int:
    """The end of a WebP file (RFC 9649, section 2.3), according to its RIFF header."""
    return 8 + int.from_bytes(data[4:8], "little")


def boxes_end(data: bytes) -> int:
    """The end of an AVIF or HEIF file (ISO/IEC 14496-12): after its last box.

    A box that repeats another, is free space, or extends to the end of the file counts as appended.
    """
    position, kinds = 0, set(_IDLE_BOXES)
    while len(head := data[position : position + 16]) > 8:
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if size < 8 or kind in kinds:
            break
        kinds.add(kind)
        position += size
    return position


ENDS: dict[str, Callable[[bytes], int]] = {
    "AVIF": boxes_end,
    "HEIF": boxes_end,
    "JPEG": jpeg_end,
    "JPEG2000": jpeg2000_end,
    "WEBP": webp_end,
}
"""The functions above by Pillow's names of the formats."""
