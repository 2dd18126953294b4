"""The container of learned bitstreams: at most 13 bytes of header, then one range-coded payload.

=====  ==========================================================
bytes  content
=====  ==========================================================
1      format version
2      bank: the first 16 bits of its identity
1      level; its highest bit says that a step follows
0-1    step to the next level, 1 to 255
2-5    width - 1 and height - 1, seven bits per byte, lowest first
3      CRC-32 of all other bytes, its low 24 bits
=====  ==========================================================
"""

import zlib
from typing import NamedTuple

from codec.base import BitstreamError

VERSION = 3
MAX_PIXELS = 1 << 26
"""The most pixels of a learned bitstream, because networks need about 200 bytes for each."""
CELL = 64
"""Networks compute complete squares of this many pixels per side: one hyper-latent."""
_MOST_CELLS = MAX_PIXELS // CELL**2 * 9 // 8
MAX_LEVELS = _HAS_STEP = 1 << 7
STEPS = 1 << 8
"""Steps from one level to the next."""


class Stream(NamedTuple):
    """The contents of a bitstream."""

    bank: int
    """0 to 65535."""
    level: int
    """Below :data:`MAX_LEVELS`."""
    step: int
    """Beyond the level, below :data:`STEPS`."""
    width: int
    height: int
    payload: bytes


def pack(stream: Stream) -> bytes:
    """The bytes of a bitstream."""
    level = bytes([stream.level | _HAS_STEP, stream.step] if stream.step else [stream.level])
    head = bytes([VERSION]) + stream.bank.to_bytes(2, "big") + level
    head += varint(stream.width - 1) + varint(stream.height - 1)
    return head + _check(head, stream.payload) + stream.payload


def unpack(data: bytes) -> Stream:
    """The inverse of :func:`pack`; it allocates nothing larger than ``data``.

    Raises:
        BitstreamError: the data has another version, is damaged or truncated, or exceeds :data:`MAX_PIXELS`.
    """
    if not data:
        raise BitstreamError("is empty.")
    if data[0] != VERSION:
        raise BitstreamError(
            f"has format version {data[0]}, not {VERSION}; it is damaged, or needs another version of the decoder."
        )
    try:
        level, step = data[3] & ~_HAS_STEP, data[4] if data[3] & _HAS_STEP else 0
        width, position = read_varint(data, 5 if data[3] & _HAS_STEP else 4)
        height, position = read_varint(data, position)
    except IndexError:
        raise BitstreamError("ends within its header.") from None
    stream = Stream(int.from_bytes(data[1:3], "big"), level, step, width + 1, height + 1, data[position + 3 :])
    if pack(stream) != data:
        raise BitstreamError("is damaged or truncated (its checksum does not match).")
    if not is_coded_size(stream.width, stream.height):
        raise BitstreamError(f"claims {stream.width}x{stream.height} pixels, over the limit of {MAX_PIXELS:,}.")
    return stream


def is_coded_size(width: int, height: int) -> bool:
    """Whether a learned bitstream may have this size, also after padding."""
    cells = -(-width // CELL) * -(-height // CELL)
    return width * height <= MAX_PIXELS and cells <= _MOST_CELLS


def _check(head: bytes, payload: bytes) -> bytes:
    return (zlib.crc32(payload, zlib.crc32(head)) & 0xFFFFFF).to_bytes(3, "big")


def varint(value: int) -> bytes:
    """A number of at least 0 in as few bytes as possible."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at a position, and the position after it.

    Raises:
        BitstreamError: it is too long.
        IndexError: the data ends first.
    """
    value = 0
    for shift in range(0, 35, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 and (byte or not shift):  # a size has only one valid encoding
            return value, position
        if not byte:
            break
    raise BitstreamError("is damaged (a size in its header is invalid).")
