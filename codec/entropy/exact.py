"""Means and scales that are equal on every machine.

The networks that predict a latent's mean and scale run in float64, from inputs that are identical on both sides.
The sums of another machine can still differ in the last digits, by about 1e-13. Means are therefore rounded to a
grid, and scales to the index of a table. If a value is so close to a rounding border that another machine could round
it differently (a *close call*), the encoder records its decision in the bitstream. The latent, symbol plus mean, is
then identical on both sides, and no error accumulates from one prediction to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from codec.base import BitstreamError
from codec.entropy.coder import SymbolDecoder, SymbolEncoder, Tables
from codec.entropy.tables import SCALES, TOTAL, FrequencyTable

GRID = 256
"""Means are multiples of 1 / GRID."""
MARGIN = 2.0**-28
"""The distance from a rounding border below which a mean or scale index is a close call: 3.7e-9."""
MAX_MEAN = 1 << 14
_NONE_CLOSE = Tables([FrequencyTable(0, (TOTAL - 256, 240, 12, 2, 1, 1))])
"""The distribution of the number of close calls in a prediction: nearly always none."""


class Prediction(NamedTuple):
    """The means and scales of N latents, equal on every machine."""

    means: Tensor
    """int64 (N,), in units of 1 / GRID."""
    scales: Tensor
    """int64 (N,), indices of :func:`codec.entropy.tables.gaussian_tables`."""


class CloseCalls(Protocol):
    """Decides the close calls, which machines could round differently."""

    def settle(self, close: Tensor, natural: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the recorded ones of ``count`` values, and whether each of them is rounded up.

        Args:
            close: int64 indices of the values within the margin on this machine, increasing.
            natural: bool, whether this machine rounds each of them up.
            count: the number of all values.
        """


@dataclass
class WriteCloseCalls:
    """The encoder: use this machine's rounding, and record it."""

    coder: SymbolEncoder
    listed: int = 0

    def settle(self, close: Tensor, natural: Tensor, count: int) -> tuple[Tensor, Tensor]:
        number = torch.tensor([len(close)], dtype=torch.int32).numpy()
        self.coder.encode(number, number.astype("int64") * 0, _NONE_CLOSE)
        for index, up in zip(close.tolist(), natural.tolist(), strict=True):
            for value, base in zip(_digits(index, count), _bases(count), strict=True):
                self.coder.encode_uniform(value, base)
            self.coder.encode_uniform(int(up), 2)
        self.listed += len(close)
        return close, natural


@dataclass
class ReadCloseCalls:
    """The decoder: repeat the encoder's decisions."""

    coder: SymbolDecoder

    def settle(self, close: Tensor, natural: Tensor, count: int) -> tuple[Tensor, Tensor]:
        import numpy as np

        number = int(self.coder.decode(np.zeros(1, np.int64), _NONE_CLOSE)[0])
        if not 0 <= number <= min(count, self.coder.bits):
            raise BitstreamError("is damaged (too many recorded roundings).")
        places, ups = [], []
        for _ in range(number):
            place = 0
            for base in _bases(count):
                place = place * base + self.coder.decode_uniform(base)
            places.append(place)
            ups.append(self.coder.decode_uniform(2))
        if places and max(places) >= count:
            raise BitstreamError("is damaged (a recorded rounding is out of range).")
        return torch.tensor(places, dtype=torch.int64), torch.tensor(ups, dtype=torch.bool)


def _bases(count: int) -> Sequence[int]:
    """A position among ``count`` is coded in digits, because the coder's precision is 24 bits."""
    return (1 << max(0, (count - 1).bit_length() - 16), min(1 << 16, 1 << (count - 1).bit_length()))


def _digits(place: int, count: int) -> Sequence[int]:
    return divmod(place, _bases(count)[1])


@dataclass
class Rounding:
    """Rounds predictions, with the same result in encoder and decoder."""

    calls: CloseCalls
    margin: float = field(default=MARGIN)

    def __call__(self, means: Tensor, scales: Tensor) -> Prediction:
        """Round float64 means (N,) to the grid and fractional scale indices (N,) to whole ones."""
        n = means.numel()
        indices = torch.nan_to_num(scales).clamp(0, SCALES - 1)
        margins = torch.tensor([self.margin * GRID, self.margin], dtype=scales.dtype).repeat_interleave(n)
        rounded = self._settle(torch.cat([_on_grid(means), indices]).cpu(), margins)
        return Prediction(rounded[:n], rounded[n:].clamp(0, SCALES - 1))

    def residuals(self, values: Tensor) -> Tensor:
        """Round float64 predictions (N,) of the rounding error to the grid: int64 (N,), in units of 1 / GRID."""
        units = _on_grid(values).cpu()
        return self._settle(units, torch.full_like(units, self.margin * GRID))

    def _settle(self, values: Tensor, margins: Tensor) -> Tensor:
        """The nearest integers; for close calls, the encoder's decision."""
        shifted = values + 0.5
        border = shifted.round()
        rounded = shifted.floor().long()
        close = ((shifted - border).abs() < margins).nonzero()[:, 0]
        listed, up = self.calls.settle(close, rounded[close] == border[close].long(), len(values))
        rounded[listed] = border[listed].long() - 1 + up.long()
        return rounded


def _on_grid(values: Tensor) -> Tensor:
    return torch.nan_to_num(values).clamp(-MAX_MEAN, MAX_MEAN) * GRID
