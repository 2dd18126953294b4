"""Refine one image's bitstream for the distortion that the codec's bank was trained for."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional

from codec import Codec, RGBImage
from codec.base import CodecError
from codec.learned import LearnedCodec
from codec.refinement import Distortion, mse, refine

_MSE_WEIGHT = 150.0
"""The weight of MSE for a weight of 1 of LPIPS, as in the loss that trained `po-dkic`."""
_LEAST_SIDE = 64


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
        distortion: ``mse``, or ``lpips`` for LPIPS (`alex`) and MSE; by default ``lpips`` for banks with LPIPS in
            their training loss, otherwise ``mse``.
        report: called with the number of finished steps and of all steps.

    Raises:
        CodecError: the codec is not that of a bank, or see :func:`codec.refinement.refine`.
    """
    if not isinstance(codec, LearnedCodec):
        raise CodecError(
            f"{codec.name} can't be refined: only the codecs of this project's banks can, such as dkic and po-dkic."
        )
    if distortion is None:
        by_lpips = any(name.startswith("lpips") for name in codec.training_metrics)
        distortion = "lpips" if by_lpips else "mse"
    of = mse if distortion == "mse" else _with_lpips(codec)
    return refine(codec, image, level, steps=steps, distortion=of, report=report)


def _with_lpips(codec: LearnedCodec) -> Distortion:
    from allocator.metrics.lpips import alex

    net = alex().model.to(codec.device)

    def distortion(decoded: Tensor, original: Tensor) -> Tensor:
        pair = [_mirrored(2 * image - 1) for image in (decoded, original)]
        return net(*pair).mean() + _MSE_WEIGHT * mse(decoded, original)  # type: ignore[no-any-return]

    return distortion


def _mirrored(image: Tensor) -> Tensor:
    """Extend to at least 64 pixels a side, which the network needs."""
    height, width = (max(0, _LEAST_SIDE - length) for length in image.shape[2:])
    return functional.pad(image, (0, width, 0, height), mode="replicate") if height or width else image
