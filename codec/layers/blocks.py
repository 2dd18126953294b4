"""Residual blocks of the DKIC transforms (DKIC, section 3.2 and figure 2)."""

from typing import Literal

from torch import Tensor, nn

from codec.layers.dynamic_kernel import LiteDCN
from codec.layers.norm import ChannelNorm

Aggregation = Literal["dynamic", "convolution"]
"""The aggregation of the neighbourhood in a residual block: dynamic kernel or ordinary convolution (table 2)."""
NormPlacement = Literal["none", "before", "after", "after-kernel", "after-mlp"]
"""The place of normalisation in a residual block: none, before or after both parts, or after one (table 4)."""


def down(channels: int, out: int, kernel: int = 5) -> nn.Conv2d:
    """Halve the size, rounded up."""
    return nn.Conv2d(channels, out, kernel, stride=2, padding=kernel // 2)


def up(channels: int, out: int, kernel: int = 5) -> nn.ConvTranspose2d:
    """Double the size."""
    return nn.ConvTranspose2d(channels, out, kernel, stride=2, padding=kernel // 2, output_padding=1)


def fold(out: int, side: int) -> nn.Module:
    """Convert an image (B, 3, H, W) to features (B, out, H / side, W / side)."""
    if side == 2:
        return down(3, out)
    return nn.Sequential(nn.PixelUnshuffle(side), nn.Conv2d(3 * side**2, out, 3, padding=1))


def unfold(channels: int, side: int) -> nn.Module:
    """Convert features (B, channels, h, w) to an image (B, 3, side h, side w)."""
    if side == 2:
        return up(channels, 3)
    return nn.Sequential(nn.Conv2d(channels, 3 * side**2, 3, padding=1), nn.PixelShuffle(side))


SMALL = 0.1
"""The initial weight of residual branches, so that a deep network starts near the identity and learns quickly."""


class ResidualBottleneck(nn.Module):
    """RBB: 1x1, 3x3 and 1x1 convolutions around half the channels, and a shortcut (ELIC's block)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        last = nn.Conv2d(half, channels, 1)
        last.weight.data *= SMALL
        self.branch = nn.Sequential(
            nn.Conv2d(channels, half, 1),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1),
            nn.ReLU(),
            last,
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.branch(features)  # type: ignore[no-any-return]


class Mlp(nn.Sequential):
    """Equation 5: 1x1 convolution, GELU, 1x1 convolution."""

    def __init__(self, channels: int, ratio: float) -> None:
        hidden = round(channels * ratio)
        super().__init__(nn.Conv2d(channels, hidden, 1), nn.GELU(), nn.Conv2d(hidden, channels, 1))


class DynamicResidualBlock(nn.Module):
    """DRB: the dynamic kernel, then an MLP, each with a shortcut and followed by layer normalisation.

    Args:
        channels: features are (B, channels, H, W) in and out.
        groups: groups of the dynamic kernel.
        kernel: side of the kernel.
        mlp_ratio: hidden channels of the MLP, relative to ``channels``.
        norm: the place of normalisation.
        aggregation: the dynamic kernel, or the convolution that replaces it.
        offset_norm: see :class:`codec.layers.dynamic_kernel.LiteDCN`.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        kernel: int = 3,
        mlp_ratio: float = 4,
        norm: NormPlacement = "after",
        aggregation: Aggregation = "dynamic",
        offset_norm: bool = True,
    ) -> None:
        super().__init__()
        self.aggregation: nn.Module = (
            LiteDCN(channels, groups, kernel, offset_norm)
            if aggregation == "dynamic"
            else nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        )
        self.mlp = Mlp(channels, mlp_ratio)

        def norm_at(gain: float, *places: str) -> nn.Module:
            return ChannelNorm(channels, gain) if norm in places else nn.Identity()

        self.before_aggregation, self.before_mlp = norm_at(1, "before"), norm_at(1, "before")
        self.after_aggregation = norm_at(SMALL, "after", "after-kernel")
        self.after_mlp = norm_at(SMALL, "after", "after-mlp")

    def forward(self, features: Tensor) -> Tensor:
        features = features + self.after_aggregation(self.aggregation(self.before_aggregation(features)))
        return features + self.after_mlp(self.mlp(self.before_mlp(features)))  # type: ignore[no-any-return]
