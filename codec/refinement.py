"""Encoding by search: descent on one image's latents, for an unchanged decoder.

The analysis network computes latents in one pass. Descent on the latents and hyper-latents themselves, for the actual
loss of the encoder (this image's distortion and the price of its bytes), finds better ones ("Content Adaptive
Optimization for Neural Image Compression", Campos et al. 2019). Synthesis and contexts use rounded latents, with
straight-through gradients; the rate uses latents that are not rounded.

Each step moves a random share of the latents along the gradient, and is undone unless the loss after rounding
falls. A step changes predicted means, so latents elsewhere are rounded to other values, mostly for the worse: plain
gradient descent and Adam gain for ten steps, and lose afterwards.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from codec.base import CodecError, RGBImage
from codec.bitstream import CELL
from codec.learned import LearnedCodec, memory_named
from codec.network import STRIDE, CompressionNetwork, Likelihoods
from codec.tensors import to_tensor

Distortion = Callable[[Tensor, Tensor], Tensor]
"""Maps a decoded and an original image, (1, 3, H, W) each, 0 to 1, to one number, 0 or more, with gradients."""

SHARE = 0.1
"""The share of the latents that a step moves."""
PACE, SLOWEST_PACE = 4e-3, 3e-4
"""The move of a latent per gradient of one bit per quantisation step, in quantisation steps: initial and minimum."""
FASTER, SLOWER = 1.3, 0.85
"""The factors of the step size after an accepted and after a rejected step."""
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
        raise CodecError(f"A refinement takes at least one step, not {steps}.")
    if tile < CELL or tile % CELL:
        raise CodecError(f"Tiles measure a multiple of {CELL} pixels, not {tile}.")
    if price is not None and not (math.isfinite(price) and price > 0):
        raise CodecError(f"The price of a byte is positive, not {price}.")
    plain = codec.encode(image, level)
    price = price_of_byte(codec, image, level, distortion) if price is None else price
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
    raise CodecError(f"{codec.name} has no levels that tell the price of a byte for this image; give one.")


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
        height, width = self.image.shape[2:]
        seen = window.grown(height, width)
        image = self.image[(..., *seen.slices(1))]
        share = image.numel() / self.image.numel()
        parts = (
            (self.latents, self.network.priors.gains, STRIDE),
            (self.hyper_latents, self.network.priors.hyper_gains, CELL),
        )
        views = [part[(..., *seen.slices(stride))] for part, _, stride in parts]
        units = []  # units of moves: a quantisation step, and 0 outside of the window
        for view, (_, gains, stride) in zip(views, parts, strict=True):
            inside = torch.zeros_like(view)
            inside[(..., *window.slices(stride, seen))] = 1
            units.append(inside / gains(self.gain))
        generator = torch.Generator().manual_seed(0)  # encoding is repeatable
        best, pace = math.inf, PACE
        moved, gradients = [view.clone() for view in views], [torch.zeros_like(view) for view in views]
        for step in range(steps + 1):
            latents = [view.requires_grad_() for view in moved]
            output = self.network.code(latents[0], latents[1], self.gain, *image.shape[2:], relaxed=True)
            distortion = 8 / self.price * share * self.distortion(output.x_hat.clamp(0, 1), image)  # in bits
            loss = float(_bits(output.rounded) + distortion.detach())
            if not math.isfinite(loss):
                raise CodecError("The distortion that latents are refined for isn't finite.")
            if loss < best:
                best, pace = loss, pace * FASTER if step else pace
                for view, found in zip(views, latents, strict=True):
                    view.copy_(found.detach())
                gradients = list(torch.autograd.grad(_bits(output.likelihoods) + distortion, latents))
            else:
                pace = max(pace * SLOWER, SLOWEST_PACE)
            moved = []
            for view, unit, gradient in zip(views, units, gradients, strict=True):
                chosen = (torch.rand(view.shape, generator=generator) < SHARE).to(view.device)
                moved.append(view - pace * chosen * unit.square() * gradient)  # once for the unit of the gradient
            if step:
                yield step


def _bits(likelihoods: Likelihoods) -> Tensor:
    return -torch.stack([part.log2().sum() for part in likelihoods]).sum()


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
