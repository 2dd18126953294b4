"""Means and scales that come out the same on every machine.

The networks that predict a latent's mean and scale run in float64, from inputs that both sides have bit for bit.
Another machine's sums still end otherwise in the last digits, about 1e-13. So a mean is rounded to a grid and a
scale to the index of its table; and where a value lies so near a rounding border that another machine could take
the other side, the encoder says in the stream which side it took. The latent, symbol plus mean, is then the same on
both sides, and nothing adds up from one prediction to the next.
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
"""How near a rounding border a mean or scale index must lie to be listed: 3.7e-9."""
MAX_MEAN = 1 << 14
_NONE_CLOSE = Tables([FrequencyTable(0, (TOTAL - 256, 240, 12, 2, 1, 1))])
"""How many close calls a prediction has: nearly always none."""


class Prediction(NamedTuple):
    """Of N latents, the same on every machine."""

    means: Tensor
    """int64 (N,), in units of 1 / GRID."""
    scales: Tensor
    """int64 (N,), indices of :func:`codec.entropy.tables.gaussian_tables`."""


class CloseCalls(Protocol):
    """Decides the roundings that machines could disagree about."""

    def settle(self, close: Tensor, natural: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Say which of ``count`` values are listed, and for each of them whether it goes up.

        Args:
            close: int64 indices of the values within the margin on this machine, rising.
            natural: bool, whether each of them is rounded up on this machine.
            count: of all values.
        """


@dataclass
class WriteCloseCalls:
    """The encoder's side: take this machine's rounding, and write it down."""

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
    """The decoder's side: do as the encoder did."""

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
    """A place among ``count`` is coded in digits, for the coder's precision ends at 24 bits."""
    return (1 << max(0, (count - 1).bit_length() - 16), min(1 << 16, 1 << (count - 1).bit_length()))


def _digits(place: int, count: int) -> Sequence[int]:
    return divmod(place, _bases(count)[1])


@dataclass
class Rounding:
    """Rounds what networks predict, with close calls settled between encoder and decoder."""

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
        """Round float64 predictions (N,) of what rounding has lost to the grid: int64 (N,), in units of 1 / GRID."""
        units = _on_grid(values).cpu()
        return self._settle(units, torch.full_like(units, self.margin * GRID))

    def _settle(self, values: Tensor, margins: Tensor) -> Tensor:
        """The nearest integers; where another machine could see another one, the encoder's."""
        shifted = values + 0.5
        border = shifted.round()
        rounded = shifted.floor().long()
        close = ((shifted - border).abs() < margins).nonzero()[:, 0]
        listed, up = self.calls.settle(close, rounded[close] == border[close].long(), len(values))
        rounded[listed] = border[listed].long() - 1 + up.long()
        return rounded


def _on_grid(values: Tensor) -> Tensor:
    return torch.nan_to_num(values).clamp(-MAX_MEAN, MAX_MEAN) * GRID
