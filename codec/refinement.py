"""Encoding by search: descent on one image's latents, for an unchanged decoder.

The analysis network computes latents in one pass. A search on the latents and hyper-latents themselves, for the
actual loss of the encoder (this image's distortion and the price of its bytes), finds better ones ("Content Adaptive
Optimization for Neural Image Compression", Campos et al. 2019). It has two phases:

1. Descent: a step moves a random share of the latents along the gradient. Synthesis and contexts use rounded latents,
   with straight-through gradients; the rate uses latents that are not rounded.
2. Symbols: a step changes the rounded residuals of some latents by one, where this is predicted to lower the loss.
   The prediction is of second order in the distortion and in the rate of other latents, and exact in the latent's own
   rate. A change shifts the predicted means after it, and with them the decoded latents, but no other symbol.

Both decide block by block: the loss is divided among blocks of the image, and the moves of the blocks whose own loss
falls are kept, if the total falls as well. Without this choice, descent and Adam gain for ten steps and lose
afterwards: each move changes means, so latents elsewhere are rounded to other values, mostly for the worse.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from codec.base import CodecError, RGBImage
from codec.bitstream import CELL
from codec.learned import LearnedCodec, memory_named
from codec.network import STRIDE, CompressionNetwork, bits_of
from codec.tensors import to_tensor

Distortion = Callable[[Tensor, Tensor], Tensor]
"""Maps a decoded and an original image, (1, 3, H, W) each, 0 to 1, to one number, 0 or more, with gradients."""

SHARE = 0.1
"""The share of the latents that a step of descent moves."""
PACE, SLOWEST_PACE = 4e-3, 3e-4
"""The move of a latent per gradient of one bit per quantisation step, in quantisation steps: initial and minimum."""
FASTER, SLOWER = 1.3, 0.85
"""The factors of a block's step size after an accepted and after a rejected step."""
DESCENT = 15
"""The number of steps of descent; later steps change symbols."""
SYMBOL_SHARE, SMALLEST_SHARE = 0.25, 0.02
"""The share that a step changes of the symbols whose change is predicted to lower the loss: initial and minimum."""
MORE, FEWER = 1.3, 0.7
"""The factors of a block's share after an accepted and after a rejected step."""
PROBES, SHRINKAGE, CAUTION = 16, 2, 1.5
"""The estimation of curvatures: the number of random probes; the number of probes that a channel's mean counts as; a
safety factor, because the symbols with the greatest predicted gains often have underestimated curvatures."""
TILE = 512
"""Side of the tiles, in pixels, in which larger images are searched one after the other, in bounded memory."""


def mse(decoded: Tensor, original: Tensor) -> Tensor:
    """The mean squared error of samples from 0 to 1."""
    return (decoded - original).square().mean()


def refine(
    codec: LearnedCodec,
    image: RGBImage,
    level: int,
    *,
    steps: int = 60,
    distortion: Distortion = mse,
    price: float | None = None,
    tile: int = TILE,
    report: Callable[[int, int], None] = lambda done, steps: None,
) -> bytes:
    """Encode an image at a level with latents that minimise ``distortion + price x bytes``.

    Args:
        codec: the codec of a bank.
        image: uint8 (H, W, 3).
        level: the level whose gain and weights are used.
        steps: the number of steps.
        distortion: the distortion. It should be a mean over the image, because tiles count by their areas.
        price: the price of a byte, in units of ``distortion``; by default :func:`price_of_byte`.
        tile: side of the tiles, in pixels, a multiple of 64.
        report: called with the number of finished steps and of all steps.

    Returns:
        A bitstream for :meth:`LearnedCodec.decode`. It is that of :meth:`LearnedCodec.encode` unless the refined one
        is better by its actual bytes and by the distortion of its decoded 8-bit pixels.

    Raises:
        CodecError: the codec can't encode the image, steps, price or tile are out of range, the distortion is not
            finite, or there is no price.
    """
    if steps < 1:
        raise CodecError(f"Refining needs at least one step, not {steps}.")
    if tile < CELL or tile % CELL:
        raise CodecError(f"The side of tiles must be a multiple of {CELL} pixels, not {tile}.")
    if price is not None and not (math.isfinite(price) and price > 0):
        raise CodecError(f"The price of a byte must be positive, not {price}.")
    plain = codec.encode(image, level)
    price = price_of_byte(codec, image, level, distortion, tile) if price is None else price
    height, width = image.shape[:2]
    windows = list(_windows(height, width, tile))
    with memory_named(width, height):
        search = _Search(codec, image, level, distortion, price)
        for i, window in enumerate(windows):
            for step in search.improve(window, steps):
                report(i * steps + step, len(windows) * steps)
    refined = codec.encode_latents(search.latents, search.hyper_latents, level, width, height)

    def cost(data: bytes) -> float:
        return _distortion_of(codec, image, data, distortion, tile) + price * len(data)

    return min(plain, refined, key=cost)


def price_of_byte(
    codec: LearnedCodec, image: RGBImage, level: int, distortion: Distortion = mse, tile: int = TILE
) -> float:
    """The price of a byte at a level of an image, in units of ``distortion``: the slope between its neighbours.

    If these do not trade bytes for distortion, as on tiny images, the next levels beyond are used.

    Raises:
        CodecError: no two levels around this one trade bytes for distortion.
    """
    encode, last = codec.encoder(image), len(codec.levels) - 1
    for reach in range(1, last + 1):
        ends = [encode(max(0, level - reach)), encode(min(last, level + reach))]
        low, high = (_distortion_of(codec, image, data, distortion, tile) for data in ends)
        if len(ends[0]) < len(ends[1]) and high < low:
            return (low - high) / (len(ends[1]) - len(ends[0]))
    raise CodecError(f"{codec.name} has no levels that determine the price of a byte for this image; give a price.")


def _distortion_of(codec: LearnedCodec, image: RGBImage, data: bytes, distortion: Distortion, tile: int) -> float:
    """The distortion of a bitstream's decoded pixels: the mean over the tiles by their areas."""
    decoded, total = codec.decode(data), 0.0
    height, width = image.shape[:2]
    for window in _windows(height, width, tile):
        pair = (to_tensor(one[window.slices(1)]).to(codec.device) for one in (decoded, image))
        with torch.no_grad():
            total += window.pixels * float(distortion(*pair))
    return total / (height * width)


class _Search:
    """The latents of one image, improved window by window."""

    def __init__(
        self, codec: LearnedCodec, image: RGBImage, level: int, distortion: Distortion, price: float
    ) -> None:
        setting = codec.bank.levels[level]
        self.network: CompressionNetwork = codec.bank.network(setting.weights).to(
            codec.device
        )  # also priors in float32
        self.image, self.distortion, self.price = to_tensor(image).to(codec.device), distortion, price
        self.gain = torch.tensor([setting.gain], device=codec.device)
        with torch.no_grad():
            self.latents, self.hyper_latents = self.network.latents(self.image)

    def improve(self, window: "_Region", steps: int) -> Iterator[int]:
        """Search the latents of one window, including its surroundings in the image; keep the best ones.

        Yields the number of each finished step.
        """
        seen = window.grown(*self.image.shape[2:])
        views = [
            part[(..., *seen.slices(stride))] for part, stride in ((self.latents, STRIDE), (self.hyper_latents, CELL))
        ]
        inside = [torch.zeros_like(view) for view in views]
        for mask, stride in zip(inside, (STRIDE, CELL), strict=True):
            mask[(..., *window.slices(stride, seen))] = 1
        generator = torch.Generator().manual_seed(0)  # encoding is repeatable
        best = self.code(views, seen, relaxed=True)
        phase: _Descent | _SymbolChanges = _Descent(inside, best, generator)
        bent = moved = 0.0  # the distortion's second derivative along all changes of pixels, and their squared length
        for step in range(1, steps + 1):
            if step == DESCENT + 1:
                best = self.code(best.latents, seen, relaxed=False)
                phase = _SymbolChanges(inside[0], best, max(bent, 0.0) / moved if moved else 0.0, generator)
            relaxed = isinstance(phase, _Descent)
            tried = phase.propose(best)
            found = self.code(tried, seen, relaxed=relaxed, differentiable=False)
            change = found.image - best.image
            bent += float(((found.slopes - best.slopes) * change).sum())
            moved += float(change.square().sum())
            # the trapezoidal rule is exact for MSE
            distortion = _by_block((found.slopes + best.slopes) / 2 * change, CELL)
            kept = found.bits - best.bits + distortion < 0
            if kept.any():
                both = zip(tried, best.latents, strict=True)
                mixed = [torch.where(_spread(kept, one), one, other) for one, other in both]
                coded = self.code(mixed, seen, relaxed=relaxed)
                if coded.loss < best.loss:
                    best = coded
                else:
                    kept = torch.zeros_like(kept)
            phase.adapt(kept)
            for view, values in zip(views, best.latents, strict=True):
                view.copy_(values)
            yield step

    def code(
        self, latents: Sequence[Tensor], seen: "_Region", *, relaxed: bool, differentiable: bool = True
    ) -> "_Coded":
        """Code latents and hyper-latents of a region.

        Gradients are those of either phase: with ``relaxed``, straight through rounding, and of the rate of latents
        that are not rounded; otherwise those of changes of symbols, without their own rates.
        """
        priors, original = self.network.priors, self.image[(..., *seen.slices(1))]
        gain, hyper_gain = priors.gains(self.gain), priors.hyper_gains(self.gain)
        prior = self.network.hyper_prior
        with torch.set_grad_enabled(differentiable):
            y, z = (part.detach().requires_grad_() for part in latents)
            steps = z * hyper_gain
            rounded = steps.round().detach()
            record = _Record(y, gain, relaxed)
            context = priors.context((rounded + (steps - steps.detach())) / hyper_gain, self.gain, *y.shape[2:])
            decoded = priors.code(context, self.gain, record.visit, lambda channels, values, lost: values + lost)
            image = self.network.reconstruct(decoded, self.gain, *original.shape[2:]).clamp(0, 1)
            rates = record.rates
            if relaxed and differentiable:
                rates = [-prior.likelihood(z, 1 / hyper_gain).log2().flatten(), *rates]
        pixels = image.detach().requires_grad_()
        with torch.enable_grad():
            share = original.numel() / self.image.numel()
            distortion = 8 / self.price * share * self.distortion(pixels, original)
            (slopes,) = torch.autograd.grad(distortion, pixels)
        symbols, scales = record.symbols(), record.scales()
        with torch.no_grad():
            hyper_bits = -prior.likelihood(rounded / hyper_gain, 1 / hyper_gain).log2()
            bits = _by_block(bits_of(symbols, scales), CELL // STRIDE) + hyper_bits.sum((0, 1))
        loss = float(bits.sum() + distortion.detach())
        if not (math.isfinite(loss) and slopes.isfinite().all()):
            raise CodecError("The distortion that latents are refined for isn't finite.")
        return _Coded(
            (y.detach() if relaxed else record.coded.view_as(y), z.detach()),
            pixels.detach(),
            slopes,
            bits,
            loss,
            symbols,
            scales,
            (gain, hyper_gain),
            (y, z, image, torch.cat(rates)) if differentiable else None,
        )


class _Record:
    """What the entropy model gives for each latent, in the order of its visits.

    Args:
        latents: (1, M, h, w).
        gain: (1, M, 1, 1).
        relaxed: as in :meth:`_Search.code`.
    """

    def __init__(self, latents: Tensor, gain: Tensor, relaxed: bool) -> None:
        self._latents, self._gain, self._relaxed = latents.flatten(2), gain.flatten(2), relaxed
        self._shape = latents.shape
        self._numbers = torch.arange(latents.numel(), device=latents.device).view(self._latents.shape[1:])
        self._order: list[Tensor] = []
        self._symbols: list[Tensor] = []
        self._scales: list[Tensor] = []
        self.coded = torch.empty_like(self._latents)
        """The latents (1, M, h w) as decoded."""
        self.rates: list[Tensor] = []
        """Bits, with gradients."""

    def visit(self, channels: slice, positions: Tensor, means: Tensor, scales: Tensor) -> Tensor:
        """Code latents with their predicted means and scales; returns the values, scaled by the gains."""
        gain = self._gain[:, channels]
        wanted = self._latents[:, channels].index_select(2, positions) * gain
        residuals = wanted - means
        symbols = residuals.round().detach()
        if torch.is_grad_enabled():
            self.rates.append(bits_of(residuals if self._relaxed else symbols, scales).flatten())
        self._order.append(self._numbers[channels][:, positions].flatten())
        self._symbols.append(symbols.flatten())
        self._scales.append(scales.detach().flatten())
        within = (symbols + means.detach()) / gain
        self.coded[:, channels] = self.coded[:, channels].index_copy(2, positions, within)
        moving = residuals if self._relaxed else wanted
        carried: Tensor = symbols + means + (moving - moving.detach())
        return carried

    def symbols(self) -> Tensor:
        """The rounded residuals (1, M, h, w)."""
        return self._ordered(self._symbols)

    def scales(self) -> Tensor:
        """The predicted scales (1, M, h, w)."""
        return self._ordered(self._scales)

    def _ordered(self, parts: list[Tensor]) -> Tensor:
        values = torch.empty_like(self._latents).flatten()
        values[torch.cat(self._order)] = torch.cat(parts)
        return values.view(self._shape)


@dataclass(frozen=True)
class _Coded:
    """What a region's latents became."""

    latents: tuple[Tensor, Tensor]
    """Latents and hyper-latents, as given; in the second phase, latents as decoded, which have the same symbols."""
    image: Tensor
    slopes: Tensor
    """The gradient of the distortion, in bits, by the pixels."""
    bits: Tensor
    """Of each block of :data:`CELL` pixels."""
    loss: float
    """In bits."""
    symbols: Tensor
    scales: Tensor
    gains: tuple[Tensor, Tensor]
    graph: tuple[Tensor, Tensor, Tensor, Tensor] | None
    """Latents, hyper-latents, image and rates."""

    @functools.cached_property
    def gradients(self) -> tuple[Tensor, ...]:
        """The gradients of the loss by the latents and hyper-latents. They free the graph."""
        assert self.graph
        y, z, image, rates = self.graph
        return torch.autograd.grad([image, rates], (y, z), [self.slopes, torch.ones_like(rates)])

    def curvature(self, of_pixels: float, generator: torch.Generator) -> Tensor:
        """The diagonal of the Gauss-Newton matrix of the loss by the symbols, in bits, estimated by random probes.

        It is computed before the gradients.

        Args:
            of_pixels: the mean second derivative of the distortion by a pixel.
            generator: of the probes.
        """
        assert self.graph
        y, _, image, rates = self.graph
        # the expected second derivative of -log p is the expected square of its first
        sizes = (of_pixels**0.5, math.log(2) ** 0.5)
        total = torch.zeros_like(y)
        for _ in range(PROBES):
            probes = [
                size * torch.randn(part.shape, generator=generator).to(part.device)
                for size, part in zip(sizes, (image, rates), strict=True)
            ]
            (found,) = torch.autograd.grad([image, rates], (y,), probes, retain_graph=True)
            total += (found / self.gains[0]).square()
        mean = total.mean((2, 3), keepdim=True) / PROBES
        estimate: Tensor = (total + SHRINKAGE * mean) / (PROBES + SHRINKAGE)
        return estimate


class _Descent:
    """The first phase: moves of a random share of the latents and hyper-latents along the gradient.

    Args:
        inside: 1 where latents and hyper-latents may move, elsewhere 0.
        best: the latents that the phase begins with.
        generator: chooses the latents.
    """

    def __init__(self, inside: Sequence[Tensor], best: _Coded, generator: torch.Generator) -> None:
        self._inside, self._generator = inside, generator
        self._paces = torch.full_like(best.bits, PACE)

    def propose(self, best: _Coded) -> list[Tensor]:
        """Moved latents and hyper-latents."""
        return [
            values
            - _spread(self._paces, values) * _chosen(SHARE, values, self._generator) * mask * gradient / gain.square()
            for values, mask, gradient, gain in zip(
                best.latents, self._inside, best.gradients, best.gains, strict=True
            )
        ]

    def adapt(self, kept: Tensor) -> None:
        """Learn which blocks' moves were kept."""
        self._paces = (self._paces * torch.where(kept, FASTER, SLOWER)).clamp_min(SLOWEST_PACE)


class _SymbolChanges:
    """The second phase: changes by one of a random share of the symbols whose change is predicted to lower the loss.

    Args:
        inside: 1 where latents may change, elsewhere 0.
        best: the latents that the phase begins with.
        of_pixels: the mean second derivative of the distortion by a pixel.
        generator: chooses the symbols.
    """

    def __init__(self, inside: Tensor, best: _Coded, of_pixels: float, generator: torch.Generator) -> None:
        self._inside, self._generator = inside, generator
        self._shares = torch.full_like(best.bits, SYMBOL_SHARE)
        self._curvature = CAUTION * best.curvature(of_pixels, generator)

    def propose(self, best: _Coded) -> list[Tensor]:
        """Latents with changed symbols, and the hyper-latents."""
        latents, hyper_latents = best.latents
        slope = best.gradients[0] / best.gains[0]
        less, own, more = (bits_of(best.symbols + change, best.scales) for change in (-1, 0, 1))
        less, more = less - own - slope + self._curvature / 2, more - own + slope + self._curvature / 2
        moves = torch.where(less < more, -1.0, 1.0) * (torch.minimum(less, more) < 0)
        moves = moves * _chosen(_spread(self._shares, latents), latents, self._generator) * self._inside
        return [latents + moves / best.gains[0], hyper_latents]

    def adapt(self, kept: Tensor) -> None:
        """Learn which blocks' changes were kept."""
        self._shares = (self._shares * torch.where(kept, MORE, FEWER)).clamp(SMALLEST_SHARE, 1)


def _chosen(share: Tensor | float, of: Tensor, generator: torch.Generator) -> Tensor:
    """A random share of the positions: true or false for each."""
    return torch.rand(of.shape, generator=generator).to(of.device) < share


def _by_block(values: Tensor, side: int) -> Tensor:
    """The sums over blocks of values (1, C, H, W): (rows, columns)."""
    height, width = values.shape[2:]
    padded = functional.pad(values.sum((0, 1)), (0, -width % side, 0, -height % side))
    return padded.view(-(-height // side), side, -(-width // side), side).sum((1, 3))


def _spread(blocks: Tensor, over: Tensor) -> Tensor:
    """The value of each position's block: (h, w) of latents or hyper-latents."""
    height, width = over.shape[2:]
    side = 1 if blocks.shape == over.shape[2:] else CELL // STRIDE
    return blocks.repeat_interleave(side, 0).repeat_interleave(side, 1)[:height, :width]


@dataclass(frozen=True)
class _Region:
    """A rectangle of an image, in pixels; top and left are multiples of :data:`CELL`."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def pixels(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    def grown(self, height: int, width: int) -> "_Region":
        """The rectangle with the surroundings that its latents affect, within the image."""
        bottom, right = min(self.bottom + CELL, height), min(self.right + CELL, width)
        return _Region(max(self.top - CELL, 0), max(self.left - CELL, 0), bottom, right)

    def slices(self, stride: int, within: "_Region | None" = None) -> tuple[slice, slice]:
        """Rows and columns of features, one for every ``stride`` pixels, of the image or within another region."""
        top, left = (within.top, within.left) if within else (0, 0)
        rows = slice((self.top - top) // stride, -(-(self.bottom - top) // stride))
        return rows, slice((self.left - left) // stride, -(-(self.right - left) // stride))


def _windows(height: int, width: int, side: int) -> Iterator[_Region]:
    """An image in rectangles of about equal size, at most ``side`` pixels each way."""
    rows, columns = (CELL * math.ceil(length / math.ceil(length / side) / CELL) for length in (height, width))
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield _Region(top, left, min(top + rows, height), min(left + columns, width))
