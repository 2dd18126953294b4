"""Numbers of bytes as people write them: ``2MB``, ``1.5MiB``, ``30%`` of the originals, or plain bytes."""

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
    """So many of a unit."""

    number: Fraction
    unit: str
    """Of bytes; or ``%`` of the originals."""

    @classmethod
    def parse(cls, text: str) -> "Size":
        """A number above 0 and a unit, in any case; without one it's bytes.

        Raises:
            AllocatorError: anything else.
        """
        found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*|%)", text.strip().replace("_", ""))
        unit = found and (_SHARE if found[2] == _SHARE else _BY_SPELLING.get(found[2].lower() or "b"))
        if not found or not unit or len(text) > _LONGEST or not (number := Fraction(Decimal(found[1]))):
            raise AllocatorError(f"A budget is bytes (200000), 2MB, 1.5MiB or 30% of the originals, not {text!r}.")
        return cls(number, unit)

    def in_bytes(self, originals: int | None) -> int:
        """Rounded down.

        Args:
            originals: bytes of all original files, where they are known.

        Raises:
            AllocatorError: it's a share of originals whose size isn't known, or less than a byte.
        """
        if self.unit != _SHARE:
            whole = int(self.number * _UNITS[self.unit])
        elif originals is None:
            raise AllocatorError(
                f"{self}: the table doesn't know how large the originals' files are; continue its build.",
                hint={"command": "tables build"},
            )
        else:
            whole = int(self.number * originals / 100)
        if not whole:
            raise AllocatorError(f"A budget is at least 1 byte, not {self}.")
        return whole

    def __str__(self) -> str:
        whole = self.number.denominator == 1
        digits = f"{int(self.number):,}" if whole else f"{float(self.number):,.6g}"
        return f"{digits}{' bytes' if self.unit == 'B' else self.unit if self.unit == _SHARE else ' ' + self.unit}"


def format_size(count: int, unit: str = "") -> str:
    """A number of bytes with four digits or so, for people.

    Args:
        count: of bytes.
        unit: in which they think; by default the largest decimal one that gives at least 1.
    """
    if unit not in _UNITS:
        unit = next(unit for unit in ("GB", "MB", "kB", "B") if count >= _UNITS[unit] or unit == "B")
    if unit == "B":
        return f"{count:,} bytes"
    value = count / _UNITS[unit]
    return f"{value:,.{max(0, 3 - len(str(int(value))))}f} {unit}"
