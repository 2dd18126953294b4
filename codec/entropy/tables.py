"""Integer frequency tables: the probabilities in both sides of the coder."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TOTAL = 1 << 16
"""The sum of every table's frequencies."""
SCALES = 64
"""The number of scales of a latent; between neighbours the rate changes by less than 0.2 %."""
SMALLEST_SCALE, LARGEST_SCALE = 0.11, 256.0
SCALE_STEP = math.log(LARGEST_SCALE / SMALLEST_SCALE) / (SCALES - 1)
_TAIL = 2.0**-18
"""The probability of the values on each side of a table, which are escaped."""
_FARTHEST = 4096
"""The largest symbol in a table."""


def scale_of(index: Tensor) -> Tensor:
    """The standard deviations of (fractional) scale indices, 0 to :data:`SCALES` - 1."""
    return SMALLEST_SCALE * torch.exp(index * SCALE_STEP)


@dataclass(frozen=True)
class FrequencyTable:
    """Frequencies of the symbols ``first``, ``first + 1``, ...; the last entry is that of the escape."""

    first: int
    frequencies: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.frequencies) < 2 or min(self.frequencies) < 1 or sum(self.frequencies) != TOTAL:
            raise ValueError(f"Frequencies must be positive, at least two, and sum to {TOTAL}.")


def make_tables(cumulative: Callable[[Tensor], Tensor]) -> list[FrequencyTable]:
    """The tables of integer variables, one for each row of distribution functions.

    Args:
        cumulative: maps float64 points (N,) to P(X <= point) of V variables, (V, N), each rising from 0 to 1.
    """
    reach = 64
    while True:  # widen until the tails are thin
        below = cumulative(torch.arange(-reach, reach + 1, dtype=torch.float64) - 0.5)
        if bool((below[:, 0] <= _TAIL).all() and (below[:, -1] >= 1 - _TAIL).all()) or reach >= _FARTHEST:
            return [_table(row, reach) for row in below]
        reach *= 2


def _table(below: Tensor, reach: int) -> FrequencyTable:
    inside = ((below[1:] > _TAIL) & (below[:-1] < 1 - _TAIL)).nonzero()[:, 0]
    first, last = (int(inside[0]), int(inside[-1])) if len(inside) else (reach, reach)
    mass = (below[first + 1 : last + 2] - below[first : last + 1]).clamp_min(0)
    escape = (1 - mass.sum()).clamp_min(0)
    return FrequencyTable(first - reach, _frequencies([*mass.tolist(), float(escape)]))


def gaussian_tables() -> list[FrequencyTable]:
    """The table of a rounded zero-mean Gaussian for each scale."""
    scales = scale_of(torch.arange(SCALES, dtype=torch.float64))[:, None]
    return make_tables(lambda points: torch.special.ndtr(points / scales))


def _frequencies(probabilities: Sequence[float]) -> tuple[int, ...]:
    """Integers of at least 1, in proportion to the probabilities, with the sum :data:`TOTAL`."""
    free = TOTAL - len(probabilities)
    total = sum(probabilities)
    wanted = [free * p / total for p in probabilities]
    whole = [math.floor(w) for w in wanted]
    by_remainder = sorted(range(len(wanted)), key=lambda i: (whole[i] - wanted[i], i))
    for i in by_remainder[: free - sum(whole)]:
        whole[i] += 1
    return tuple(w + 1 for w in whole)


def pack_tables(tables: Sequence[FrequencyTable]) -> dict[str, Tensor]:
    """Tables as three integer tensors: all frequencies concatenated, and each table's length and first symbol."""
    frequencies = [f - 1 for table in tables for f in table.frequencies]  # at most TOTAL - 1, which fits 16 bits
    return {
        "frequencies": torch.tensor(frequencies, dtype=torch.int32).to(torch.uint16),
        "lengths": torch.tensor([len(table.frequencies) for table in tables], dtype=torch.int32),
        "firsts": torch.tensor([table.first for table in tables], dtype=torch.int32),
    }


def unpack_tables(packed: dict[str, Tensor]) -> list[FrequencyTable]:
    """The inverse of :func:`pack_tables`.

    Raises:
        ValueError: the tensors do not describe tables.
    """
    frequencies = (packed["frequencies"].to(torch.int32) + 1).tolist()
    lengths, firsts = packed["lengths"].tolist(), packed["firsts"].tolist()
    if any(packed[key].is_floating_point() for key in ("frequencies", "lengths", "firsts")):
        raise ValueError("Tables must contain integers.")
    if max(map(abs, firsts), default=0) > 2 * _FARTHEST:
        raise ValueError("A table's values are out of range.")
    if len(lengths) != len(firsts) or min(lengths, default=0) < 0 or sum(lengths) != len(frequencies):
        raise ValueError("The lengths of the tables do not match their frequencies.")
    tables, start = [], 0
    for length, first in zip(lengths, firsts, strict=True):
        tables.append(FrequencyTable(first, tuple(frequencies[start : start + length])))
        start += length
    return tables
