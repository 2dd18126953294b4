"""DISTS (Ding et al. 2020, "Image Quality Assessment: Unifying Structure and Texture Similarity")."""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from allocator.metrics.backbones import (
    SHIPPED,
    StateDict,
    find_backbone,
    find_given,
    make_features,
    read_weights,
    sha256_of,
)
from allocator.metrics.features import NetworkMetric, Reference
from codec import RGBImage

_STAGES = (0, 4, 9, 16, 23, 30)
"""The first and last layers of VGG-16's stages; all but the first begin with a pooling."""
_CHANNELS = 3 + 64 + 128 + 256 + 512 + 512
_STABILISER = 1e-6
"""Constants c1 and c2 of equations 5 and 6."""
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class BlurPool(nn.Module):
    """Halve the size with an l2 pooling, which avoids aliasing (equation 2)."""

    def forward(self, features: Tensor) -> Tensor:
        channels = features.shape[1]
        window = torch.tensor([0.25, 0.5, 0.25], device=features.device, dtype=features.dtype)
        kernel = torch.outer(window, window).expand(channels, 1, 3, 3)
        squares = functional.conv2d(features.square(), kernel, stride=2, padding=1, groups=channels)
        return (squares + 1e-12).sqrt()


class DISTSNet(nn.Module):
    """The distances (B,) between two batches (B, 3, H, W), -1 to 1.

    Args:
        backbone: VGG-16's convolutions, by torchvision's names.
        shares: the published ``alpha`` and ``beta``, (1, 1475, 1, 1) each.
    """

    alpha: Tensor
    beta: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, backbone: StateDict, shares: StateDict) -> None:
        super().__init__()
        features = make_features("vgg")
        own = features.state_dict()
        features.load_state_dict({key: backbone[f"features.{key}"] for key in own}, assign=True)
        self.stages = nn.ModuleList()
        for begin, end in pairwise(_STAGES):
            pool = [BlurPool()] if begin else []
            self.stages.append(nn.Sequential(*pool, *features[begin + len(pool) : end]))
        total = shares["alpha"].sum() + shares["beta"].sum()
        self.register_buffer("alpha", (shares["alpha"] / total).flatten())
        self.register_buffer("beta", (shares["beta"] / total).flatten())
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(3, 1, 1))

    def layers(self, pixels: Tensor) -> list[Tensor]:
        """The images themselves, 0 to 1, and the last features of each stage."""
        image = (pixels + 1) / 2
        found = [image]
        features = (image - self.mean) / self.deviation
        for stage in self.stages:
            features = stage(features)
            found.append(features)
        return found

    def distance(self, moments: Tensor) -> Tensor:
        """The distances (B,) from the means over positions of x, y, xx, yy and xy in each channel, (5, B, 1475)."""
        x, y, xx, yy, xy = moments
        structure = (2 * (xy - x * y) + _STABILISER) / (xx - x.square() + yy - y.square() + _STABILISER)
        texture = (2 * x * y + _STABILISER) / (x.square() + y.square() + _STABILISER)
        similarity: Tensor = (texture * self.alpha + structure * self.beta).sum(-1)
        return 1 - similarity

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        layers = zip(self.layers(one), self.layers(other), strict=True)
        moments = [torch.stack([part.mean((2, 3)) for part in _products(a.float(), b.float())]) for a, b in layers]
        return self.distance(torch.cat(moments, 2))


def _products(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    return a, b, a.square(), b.square(), a * b


class DISTS(NetworkMetric):
    """Similarity of structure and texture by the features of VGG-16, as a distance from 0 (equal) to 1.

    It is computed at the image's own size, as in ``pyiqa``; the authors' script and ``piq`` first scale down images
    whose shorter side has more than 256 pixels.

    Raises:
        MetricError: the weights are unavailable.
    """

    name = "dists"
    strides = (1, 1, 2, 4, 8, 16)

    def __init__(self) -> None:
        self.backbone = find_backbone("vgg")
        self.shares = find_given("dists", _are_shares) or read_weights(SHIPPED / "dists.safetensors")
        self.sha256 = sha256_of(self.model.state_dict())
        self.version = f"1, weights {self.sha256[:16]}"

    @cached_property
    def model(self) -> DISTSNet:
        return DISTSNet(self.backbone, self.shares).requires_grad_(False)

    def layers(self, pixels: Tensor) -> Sequence[Tensor]:
        return self.model.layers(pixels)

    def compare(self, reference: Reference, decoded: RGBImage) -> float:
        decoded = self.mirrored(decoded)
        sums, counts = torch.zeros(5, _CHANNELS, dtype=torch.float64), torch.zeros(_CHANNELS)
        with torch.inference_mode():
            for tile in self.tiles(reference.image):
                channel = 0
                for a, b in self.pairs(reference, decoded, tile):
                    here = slice(channel, channel := channel + a.shape[1])
                    counts[here] += a.shape[2] * a.shape[3]
                    for total, part in zip(sums, _products(a, b), strict=True):
                        total[here] += part.sum((0, 2, 3), dtype=torch.float64)
            return float(self.model.distance((sums / counts)[:, None]))


def _are_shares(tensors: StateDict) -> bool:
    return all((one := tensors.get(name)) is not None and one.numel() == _CHANNELS for name in ("alpha", "beta"))
