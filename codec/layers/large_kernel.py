"""The blocks of LLIC: large depth-wise kernels and channel importance that depend on the image.

Public descriptions of LLIC (Jiang et al. 2023) specify the parts, their order and the sides of the kernels. The other
details are our choice: internal widths (parameters), generated weights that are added to learned ones, normalisation
before each part, and residual branches that start small.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from codec.layers.blocks import SMALL
from codec.layers.norm import ChannelNorm


def depthwise(features: Tensor, weights: Tensor) -> Tensor:
    """Filter each channel of each image with its own kernel, with zeros around the image.

    The channels of all images are groups of one convolution, so that no neighbourhood is copied.

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
        channels: channels of input and output.
        ratio: channels of each half, relative to ``channels``.
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
    """SCST: a large learned depth-wise kernel, plus weights that a small network computes from the pooled image.

    Args:
        channels: channels of input and output.
        kernel: K, its side.
        reduction: the reduction of channels inside the small network.
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
    """SCCT: every channel times its importance, 0 to 1, which is computed from the means of all channels."""

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
        channels: channels of input and output.
        mixing: :class:`SelfConditionedSpatial` for an STB, :class:`SelfConditionedChannel` for a CTB.
        gate_ratio: the ratio of the gate.
    """

    def __init__(self, channels: int, mixing: nn.Module, gate_ratio: float) -> None:
        super().__init__()
        self.mix = nn.Sequential(ChannelNorm(channels, SMALL), DepthResidualBlock(channels), mixing)
        self.gate = Gate(channels, gate_ratio)

    def forward(self, features: Tensor) -> Tensor:
        return self.gate(features + self.mix(features))  # type: ignore[no-any-return]
