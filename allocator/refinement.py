"""The losses that bitstreams are refined for."""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor

from allocator.errors import AllocatorError
from allocator.metrics import Metric
from allocator.metrics.features import NetworkMetric
from allocator.metrics.fidelity import MSSSIM, PSNR
from codec import Codec, RGBImage
from codec.base import CodecError
from codec.learned import LearnedCodec
from codec.refinement import Distortion, mse, price_of_byte, refine
from codec.tensors import to_tensor

GUARDS = (5.0, 2.5)
"""The weights of MSE and of 1 - MS-SSIM beside a network's distance, in units of the bytes that each is worth."""


class RefinementError(AllocatorError):
    """An objective has no gradients."""


def refined(
    codec: Codec,
    image: RGBImage,
    level: int,
    steps: int,
    distortion: Literal["mse", "lpips"] | None = None,
    report: Callable[[int, int], None] = lambda done, steps: None,
) -> bytes:
    """Encode an image with :func:`codec.refinement.refine`, at the price of a byte between the neighbouring levels.

    Args:
        codec: the codec of a bank.
        image: uint8 (H, W, 3).
        level: from 0, fewest bytes first.
        steps: the number of search steps, at least 1.
        distortion: ``mse``, or ``lpips`` for LPIPS (`alex`) as in :func:`refined_for`; by default ``lpips`` for
            banks with LPIPS in their training loss, otherwise ``mse``.
        report: called with the number of finished steps and of all steps.

    Raises:
        CodecError: the codec is not that of a bank, or see :func:`codec.refinement.refine`.
    """
    if not isinstance(codec, LearnedCodec):
        raise CodecError(
            f"{codec.name} can't be refined: refining needs a bank of this project, such as dkic or po-dkic."
        )
    if distortion is None:
        by_lpips = any(name.startswith("lpips") for name in codec.training_metrics)
        distortion = "lpips" if by_lpips else "mse"
    if distortion == "mse":
        return refine(codec, image, level, steps=steps, report=report)
    from allocator.metrics.lpips import alex

    metric = alex()
    price = price_of_byte(codec, image, level, metric.differentiable(codec.device))
    return refined_for(codec, image, level, [(metric, 1.0)], price, steps, report)


def refined_for(
    codec: LearnedCodec,
    image: RGBImage,
    level: int,
    terms: Sequence[tuple[Metric, float]],
    price: float,
    steps: int,
    report: Callable[[int, int], None] = lambda done, steps: None,
) -> bytes:
    """Encode an image with latents that minimise a mixture of metrics plus the price of the bytes.

    Some changes reduce only one network's distance. Beside such a distance, the search therefore also minimises MSE
    and 1 - MS-SSIM. A byte saves so much of each between the neighbouring levels; in these units, they weigh
    :data:`GUARDS` times as much as the distance, at every rate. The price of a byte rises accordingly.

    Args:
        codec: the codec of a bank.
        image: uint8 (H, W, 3).
        level: the level whose gain and weights are used.
        terms: metrics with gradients, and the weight of each in the mixture: below 0 if higher is better.
        price: the price of a byte, in units of the mixture.
        steps: the number of search steps.
        report: called with the number of finished steps and of all steps.

    Raises:
        RefinementError: a metric has no gradients.
        CodecError: see :func:`codec.refinement.refine`.
    """
    parts: list[tuple[Distortion, float]] = []
    by_network = False
    for metric, weight in terms:
        if isinstance(metric, PSNR):
            # as a mean of squared errors, which adds up over tiles: the slope of the logarithm at the plain image
            error = float(mse(to_tensor(codec.decode(codec.encode(image, level))), to_tensor(image)))
            parts.append((mse, -weight * 10 / math.log(10) / max(error, 1e-10)))
            continue
        of = metric.differentiable(codec.device)
        if of is None:
            raise RefinementError(f"{metric.name} has no gradients, so nothing can be refined for it.")
        parts.append((of, weight))
        by_network |= isinstance(metric, NetworkMetric)
    if by_network:
        paid = price
        similarity = MSSSIM().differentiable(codec.device)
        of_guards: tuple[Distortion, ...] = (mse, lambda decoded, original: 1 - similarity(decoded, original))
        for of, weight in zip(of_guards, GUARDS, strict=True):
            with contextlib.suppress(CodecError):  # no levels determine the price, on tiny images
                parts.append((of, weight * paid / price_of_byte(codec, image, level, of)))
                price += weight * paid

    def distortion(decoded: Tensor, original: Tensor) -> Tensor:
        return sum((weight * of(decoded, original) for of, weight in parts), decoded.new_zeros(()))

    return refine(codec, image, level, steps=steps, distortion=distortion, price=price, report=report)


def check_gradients(metrics: Sequence[Metric]) -> None:
    """Check that bitstreams can be refined for metrics.

    Raises:
        RefinementError: a metric has no gradients.
    """
    for metric in metrics:
        if type(metric).differentiable is Metric.differentiable:
            raise RefinementError(
                f"{metric.name} has no gradients, so bitstreams can't be refined for it; use an objective of lpips, "
                "dists, ms-ssim and psnr."
            )
