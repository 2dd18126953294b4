import pytest

from codec import BitstreamError
from codec.bitstream import MAX_LEVELS, MAX_PIXELS, Stream, pack, unpack


@pytest.mark.parametrize(
    "size", [(1, 1), (1, MAX_PIXELS // 64), (768, 512), (16_384, 4096), (127, 128), (129, 16_385)]
)
def test_headers_come_back_in_twelve_bytes_and_one_for_a_step(size: tuple[int, int]) -> None:
    stream = Stream(0xBEEF, MAX_LEVELS - 1, 0, *size, b"payload")
    data = pack(stream)
    assert unpack(data) == stream
    assert len(data) - len(b"payload") <= 12
    between = stream._replace(step=255)
    assert unpack(pack(between)) == between
    assert len(pack(between)) == len(data) + 1


def test_each_damaged_bit_is_detected() -> None:
    data = pack(Stream(1, 2, 3, 300, 200, b"payload"))
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            unpack(bytes(damaged))
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            unpack(data[:length])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"\x09rest", "format version 9, not 3"),
        (b"\x03\0\0\0", "ends within its header"),
        (b"\x03\0\0\0" + b"\xff" * 40, "size in its header is invalid"),
        (b"\x03\0\0\0\x85\0" + b"\0" * 40, "size in its header is invalid"),  # 5, spelt with two bytes
        (pack(Stream(1, 0, 0, MAX_PIXELS, 2, b"")), "over the limit"),
        (pack(Stream(1, 0, 0, 1 << 22, 1, b"")), "over the limit"),
    ],
)
def test_the_cause_is_named(data: bytes, says: str) -> None:
    with pytest.raises(BitstreamError, match=says):
        unpack(data)
