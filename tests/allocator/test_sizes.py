import pytest

from allocator.errors import AllocatorError
from allocator.sizes import Size, format_size


@pytest.mark.parametrize(
    ("text", "count", "shown"),
    [
        ("200000", 200_000, "200,000 bytes"),
        ("2MB", 2_000_000, "2 MB"),
        ("1.5 MiB", 1_572_864, "1.5 MiB"),
        ("2mb", 2_000_000, "2 MB"),
        (".5kB", 500, "0.5 kB"),
        ("30%", 300, "30%"),
        ("0.3333%", 3, "0.3333%"),
    ],
)
def test_sizes_are_read_exactly_and_shown_as_they_were_meant(text: str, count: int, shown: str) -> None:
    size = Size.parse(text)
    assert size.in_bytes(originals=1000) == count
    assert str(size) == shown


@pytest.mark.parametrize("text", ["", "MB", "2 bits", "-1", "0", "0%", "1e400MB", "nan", "2MB2", "9" * 99])
def test_an_invalid_size_is_refused_with_examples(text: str) -> None:
    with pytest.raises(AllocatorError, match=r"A budget must be .*2MB, 1.5MiB or 30% of the originals, not "):
        Size.parse(text)


def test_shares_need_originals_and_leave_a_byte() -> None:
    with pytest.raises(AllocatorError, match="30%: the table lacks the sizes"):
        Size.parse("30%").in_bytes(None)
    with pytest.raises(AllocatorError, match="at least 1 byte"):
        Size.parse("1%").in_bytes(50)


def test_bytes_have_few_digits_in_the_unit_that_people_think_in() -> None:
    assert format_size(1_943_210) == "1.94 MB"
    assert format_size(1_943_210, "MiB") == "1.85 MiB"
    assert format_size(19_432_100, "MB") == "19.4 MB"
    assert format_size(512) == "512 bytes"
    assert format_size(512, "MB") == "512 bytes"
    assert format_size(1_943_210, "B") == "1,943,210 bytes"
