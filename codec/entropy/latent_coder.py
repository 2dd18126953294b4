"""Code latents exactly, for any network with priors."""

import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from codec.base import BitstreamError
from codec.entropy.channel_wise import Refine
from codec.entropy.coder import MAX_SYMBOL, SymbolDecoder, SymbolEncoder, Symbols, Tables
from codec.entropy.exact import GRID, ReadCloseCalls, Rounding, WriteCloseCalls
from codec.entropy.space_channel import Visit

_CHECKS = 1 << 16
"""The values of the check that ends a stream, over all the latents."""


class PriorNetwork(Protocol):
    """A network's model of its latents' probabilities; see :class:`codec.network.Priors`."""

    def gains(self, level: Tensor) -> Tensor: ...
    def hyper_gains(self, level: Tensor) -> Tensor: ...
    def context(self, hyper_latents: Tensor, level: Tensor, height: int, width: int) -> Tensor: ...
    def code(self, context: Tensor, level: Tensor, visit: Visit, refine: Refine) -> Tensor: ...


class LatentCoder:
    """Codes the latents of one image in one bitstream.

    Args:
        priors: a module, which is converted to float64.
        hyper_tables: the tables of each channel of the hyper-latents, for each gain.
        latent_tables: the table of each scale.
    """

    def __init__(self, priors: nn.Module, hyper_tables: Mapping[int, Tables], latent_tables: Tables) -> None:
        self.priors: PriorNetwork = priors.double().eval().requires_grad_(False)  # type: ignore[assignment]
        self.hyper_tables, self.latent_tables = hyper_tables, latent_tables
        self.close_calls = 0
        """The number of close calls that the last encoding recorded."""

    def encode(self, latents: Tensor, hyper_latents: Tensor, level: float) -> bytes:
        """Code latents (1, M, h, w) and hyper-latents (1, C, h', w'), in the network's own units.

        Between two levels, the latents' gains are interpolated; the hyper-latents are coded as at the lower level.
        """
        coder = SymbolEncoder()
        calls = WriteCloseCalls(coder)
        levels = _tensor(level, latents.device)
        gain = self.priors.gains(levels).flatten(2)
        wanted = latents.double().flatten(2) * gain
        hyper = _bound(hyper_latents.double() * self.priors.hyper_gains(levels.long()))
        coder.encode(_array(hyper), _channels(hyper), self.hyper_tables[int(level)])

        def symbols(channels: slice, positions: Tensor, means: Tensor, scales: Tensor) -> Tensor:
            exact = _bound(wanted[0, channels, positions].flatten().cpu() - means / GRID)
            coder.encode(exact.to(torch.int32).numpy(), scales.numpy(), self.latent_tables)
            return exact

        *_, check = self._go_through(hyper, level, latents.shape[2:], Rounding(calls), symbols)
        coder.encode_uniform(check, _CHECKS)
        self.close_calls = calls.listed
        return coder.finish()

    def decode(
        self, data: bytes, level: float, size: tuple[int, int], hyper_size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Decode latents of ``size`` (h, w).

        Returns:
            The latents (1, M, h, w), float64, in the network's own units; and the values that every machine decodes
            equally, before the gain is removed: int64 (M, h * w), in units of 1 / GRID of a quantisation step.

        Raises:
            BitstreamError: the bytes are not such a bitstream.
        """
        coder = SymbolDecoder(data)
        tables = self.hyper_tables[int(level)]
        shape = (1, len(tables.tables), *hyper_size)
        read = coder.decode(_channels(torch.empty(shape, device="meta")), tables)
        hyper = torch.from_numpy(read).double().view(shape).to(self._device)

        def symbols(channels: slice, positions: Tensor, means: Tensor, scales: Tensor) -> Tensor:
            return torch.from_numpy(coder.decode(scales.numpy(), self.latent_tables)).double()

        latents, exact, check = self._go_through(hyper, level, size, Rounding(ReadCloseCalls(coder)), symbols)
        if coder.decode_uniform(_CHECKS) != check:
            raise BitstreamError("doesn't decode to the latents that were encoded; it is damaged.")
        coder.finish()
        return latents, exact

    @property
    def _device(self) -> torch.device:
        assert isinstance(self.priors, nn.Module)
        return next(self.priors.parameters()).device

    @torch.no_grad()
    def _go_through(
        self,
        hyper: Tensor,
        level: float,
        size: tuple[int, ...],
        rounding: Rounding,
        symbols: Callable[[slice, Tensor, Tensor, Tensor], Tensor],
    ) -> tuple[Tensor, Tensor, int]:
        """The common part of both sides: predict, round, get the symbols, add, refine, repeat.

        Returns latents in both forms, and their checksum. Refined latents are on the grid like all others.
        """
        levels = _tensor(level, hyper.device)
        everything = torch.empty(self.priors.gains(levels).shape[1], size[0] * size[1], dtype=torch.int64)
        check = zlib.crc32(_array(hyper).astype("<i4").tobytes())

        def visit(channels: slice, positions: Tensor, means: Tensor, scales: Tensor) -> Tensor:
            nonlocal check
            predicted = rounding(means.flatten(), scales.flatten())
            values = symbols(channels, positions, predicted.means, predicted.scales)
            exact = (values * GRID).long() + predicted.means
            check = zlib.crc32(exact.numpy().astype("<i8").tobytes(), check)
            everything[channels, positions.cpu()] = exact.view(means.shape[1:])
            return (exact.double() / GRID).view(means.shape).to(means.device)

        def refine(channels: slice, decoded: Tensor, lost: Tensor) -> Tensor:
            nonlocal check
            exact = everything[channels] + rounding.residuals(lost.flatten()).view(decoded.shape[1:])
            check = zlib.crc32(exact.numpy().astype("<i8").tobytes(), check)
            everything[channels] = exact
            return (exact.double() / GRID).view(decoded.shape).to(decoded.device)

        context = self.priors.context(hyper / self.priors.hyper_gains(levels.long()), levels, *size)
        return self.priors.code(context, levels, visit, refine), everything, check % _CHECKS


def _tensor(level: float, device: torch.device) -> Tensor:
    whole = float(level).is_integer()
    return torch.tensor(
        [int(level) if whole else level], dtype=torch.int64 if whole else torch.float64, device=device
    )


def _bound(values: Tensor) -> Tensor:
    return torch.nan_to_num(values).round().clamp(-MAX_SYMBOL // 2, MAX_SYMBOL // 2)


def _array(values: Tensor) -> Symbols:
    return values.flatten().to(torch.int32).cpu().numpy()


def _channels(values: Tensor) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The channel of each element of a flattened (1, C, h, w)."""
    return np.repeat(np.arange(values.shape[1]), values.shape[2] * values.shape[3])
