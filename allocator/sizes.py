"""Sizes as users write them: ``2MB``, ``1.5MiB``, ``30%`` of the originals, or plain bytes."""

import re
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from allocator.errors import AllocatorError

_UNITS = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_BY_SPELLING = {unit.lower(): unit for unit in _UNITS}
_SHARE = "%"
_LONGEST = 30


class Size(NamedTuple):
    """The number of units."""

    number: Fraction
    unit: str
    """A unit of bytes, or ``%`` of the originals."""

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Parse a number above 0 and a unit in upper or lower case; without a unit, the number is bytes.

        Raises:
            AllocatorError: the text has another form.
        """
        found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*|%)", text.strip().replace("_", ""))
        unit = found and (_SHARE if found[2] == _SHARE else _BY_SPELLING.get(found[2].lower() or "b"))
        if not found or not unit or len(text) > _LONGEST or not (number := Fraction(Decimal(found[1]))):
            raise AllocatorError(
                f"A budget must be bytes (200000), 2MB, 1.5MiB or 30% of the originals, not {text!r}."
            )
        return cls(number, unit)

    def in_bytes(self, originals: int | None) -> int:
        """Rounded down.

        Args:
            originals: bytes of all original files, if known.

        Raises:
            AllocatorError: it is a percentage of originals of unknown size, or less than a byte.
        """
        if self.unit != _SHARE:
            whole = int(self.number * _UNITS[self.unit])
        elif originals is None:
            raise AllocatorError(
                f"{self}: the table lacks the sizes of the original files; run its build again.",
                hint={"command": "tables build"},
            )
        else:
            whole = int(self.number * originals / 100)
        if not whole:
            raise AllocatorError(f"A budget must be at least 1 byte, not {self}.")
        return whole

    def __str__(self) -> str:
        whole = self.number.denominator == 1
        digits = f"{int(self.number):,}" if whole else f"{float(self.number):,.6g}"
        return f"{digits}{' bytes' if self.unit == 'B' else self.unit if self.unit == _SHARE else ' ' + self.unit}"


def format_size(count: int, unit: str = "") -> str:
    """Format a number of bytes with about four digits.

    Args:
        count: the number of bytes.
        unit: the unit to use if it gives at least 1; by default the largest decimal one that does.
    """
    if unit not in _UNITS or count < _UNITS[unit]:
        unit = next(unit for unit in ("GB", "MB", "kB", "B") if count >= _UNITS[unit] or unit == "B")
    if unit == "B":
        return f"{count:,} bytes"
    value = count / _UNITS[unit]
    return f"{value:,.{max(0, 3 - len(str(int(value))))}f} {unit}"
