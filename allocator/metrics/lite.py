"""``lpips-lite``: a small network of this project's own in LPIPS's form, which needs no weights from elsewhere.

It was trained to reproduce LPIPS with SqueezeNet (see :mod:`allocator.metrics.distillation`) and stands in for it
where that can't be had. Its values are about LPIPS's, and never called LPIPS.
"""

import hashlib
import itertools
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from allocator.metrics.base import STAND_IN, MetricError
from allocator.metrics.features import FeatureMetric
from codec.weights import WeightsError, read_tensors

SHIPPED = Path(__file__).parent / "lpips-lite.safetensors"
WIDTHS = (24, 40, 64, 112)
STRIDES = (2, 4, 8, 16)
_LEAST = 1e-12


class LiteNet(nn.Module):
    """Features at four sizes, and a weight for each of their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Sequential(nn.Conv2d(3, WIDTHS[0], 5, 2, 2), nn.ReLU())])
        for before, width in itertools.pairwise(WIDTHS):
            self.stages.append(
                nn.Sequential(
                    nn.Conv2d(before, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1), nn.ReLU()
                )
            )
        self.roots = nn.ParameterList(nn.Parameter(torch.full((width,), 0.3)) for width in WIDTHS)
        """Square roots of the channels' weights, which so are never negative."""

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Features (B, C, h, w) for each of :data:`STRIDES`, of images (B, 3, H, W), -1 to 1."""
        layers = []
        for stage in self.stages:
            pixels = stage(pixels)
            layers.append(pixels)
        return layers

    def distance_map(self, original: list[Tensor], decoded: list[Tensor]) -> Tensor:
        """The distance at each position of the coarsest layer, (B, h, w), whose mean is the distance.

        Args:
            original: features as :meth:`forward` gives them.
            decoded: the same of as many images.
        """
        size = (original[-1].shape[2], original[-1].shape[3])
        total = torch.zeros((), device=original[0].device)
        for root, a, b in zip(self.roots, original, decoded, strict=True):
            a, b = a.movedim(1, 3), b.movedim(1, 3)  # with channels last, sums over them are matrix products
            weight = root.square()
            both = torch.stack([torch.ones_like(weight), weight], 1)
            (norm_a, of_a), (norm_b, of_b) = ((x.square() @ both).unbind(3) for x in (a, b))
            norm_a, norm_b = norm_a + _LEAST, norm_b + _LEAST
            weighted = of_a / norm_a + of_b / norm_b - 2 * (a * b @ weight) * (norm_a * norm_b).rsqrt()
            total = total + functional.adaptive_avg_pool2d(weighted.clamp_min(0), size)
        return total


class LPIPSLite(FeatureMetric):
    """The stand-in for LPIPS, from 0 (equal) to about 1.

    Args:
        path: its weights.

    Raises:
        MetricError: they can't be read.
    """

    name = STAND_IN

    def __init__(self, path: Path = SHIPPED) -> None:
        try:
            self.tensors, self.notes = read_tensors(path)
            digest = hashlib.sha256()
            for key, value in sorted(self.model.state_dict().items()):
                digest.update(key.encode() + value.numpy().tobytes())
        except (WeightsError, RuntimeError) as error:
            raise MetricError(f"{path}: holds no weights of lpips-lite ({error}).") from error
        self.sha256 = digest.hexdigest()
        self.version = f"weights {self.sha256[:16]}"

    @cached_property
    def model(self) -> LiteNet:
        """The network with its weights."""
        network = LiteNet()
        network.load_state_dict({name: tensor.float() for name, tensor in self.tensors.items()})
        return network.requires_grad_(False).to(memory_format=torch.channels_last)

    @property
    def strides(self) -> Sequence[int]:
        return STRIDES

    def layers(self, pixels: Tensor) -> Sequence[Tensor]:
        layers: list[Tensor] = self.model(pixels.contiguous(memory_format=torch.channels_last))
        return layers

    def weights(self, layer: int) -> Tensor:
        weights: Tensor = self.model.roots[layer].square()
        return weights
