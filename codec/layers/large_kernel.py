"""The blocks of LLIC: large depth-wise kernels and importance of channels that follow from the image itself.

Public descriptions of LLIC (Jiang et al. 2023) name the parts, the order in each and the sides of the kernels. What
they leave open is chosen here: widths inside (parameters), generated weights that are added to learned ones,
normalisation before each part, residual branches that start small.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from codec.layers.blocks import SMALL
from codec.layers.norm import ChannelNorm


def depthwise(features: Tensor, weights: Tensor) -> Tensor:
    """Filter each channel of each image with a kernel of its own, zeros around.

    All images' channels are groups of one convolution, so that no neighbourhood is copied.

    Args:
        features: (B, C, H, W).
        weights: (B, C, K, K), K odd.

    Returns:
        (B, C, H, W).
    """
    batch, channels, height, width = features.shape
    groups = batch * channels
    side = weights.shape[-1]
    out = functional.conv2d(
        features.reshape(1, groups, height, width),
        weights.reshape(groups, 1, side, side),
        padding=side // 2,
        groups=groups,
    )
    return out.view(batch, channels, height, width)


class DepthResidualBlock(nn.Module):
    """DepthRB, the non-linear embedding: 1x1, depth-wise 3x3 and 1x1 convolutions, and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.branch(features)  # type: ignore[no-any-return]


class Gate(nn.Module):
    """Expand, split, multiply, project, and a shortcut.

    Args:
        channels: in and out.
        ratio: channels of each half, over ``channels``.
    """

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        hidden = round(channels * ratio)
        self.norm = ChannelNorm(channels)
        self.expand, self.project = nn.Conv2d(channels, 2 * hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.project.weight.data *= SMALL

    def forward(self, features: Tensor) -> Tensor:
        one, other = self.expand(self.norm(features)).chunk(2, 1)
        return features + self.project(one * other)  # type: ignore[no-any-return]


class SelfConditionedSpatial(nn.Module):
    """SCST: a large depth-wise kernel, learned, plus what a small network makes of the image, pooled to its size.

    Args:
        channels: in and out.
        kernel: K, its side.
        reduction: of channels inside the small network.
    """

    def __init__(self, channels: int, kernel: int, reduction: int) -> None:
        super().__init__()
        self.learned = nn.Parameter(torch.randn(channels, kernel, kernel) / kernel)
        self.generated = nn.Sequential(
            nn.AdaptiveAvgPool2d(kernel),
            nn.Conv2d(channels, channels // reduction, 1),
            nn.GELU(),
            nn.Conv2d(channels // reduction, channels, 1),
        )
        for parameter in self.generated[-1].parameters():
            parameter.data *= SMALL

    def forward(self, features: Tensor) -> Tensor:
        return depthwise(features, self.learned + self.generated(features))


class SelfConditionedChannel(nn.Module):
    """SCCT: every channel times its importance, 0 to 1, which follows from the means of all of them."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.importance = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // reduction, 1),
            nn.GELU(),
            nn.Conv2d(channels // reduction, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features * self.importance(features)  # type: ignore[no-any-return]


class TransformBlock(nn.Module):
    """STB and CTB: embedding and self-conditioned mixing with a shortcut, then the gate.

    Args:
        channels: in and out.
        mixing: :class:`SelfConditionedSpatial` makes it an STB, :class:`SelfConditionedChannel` a CTB.
        gate_ratio: of the gate.
    """

    def __init__(self, channels: int, mixing: nn.Module, gate_ratio: float) -> None:
        super().__init__()
        self.mix = nn.Sequential(ChannelNorm(channels, SMALL), DepthResidualBlock(channels), mixing)
        self.gate = Gate(channels, gate_ratio)

    def forward(self, features: Tensor) -> Tensor:
        return self.gate(features + self.mix(features))  # type: ignore[no-any-return]
