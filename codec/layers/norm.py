"""Normalisation of features."""

from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position of (B, C, H, W)."""

    def __init__(self, channels: int, gain: float = 1.0) -> None:
        super().__init__(channels)
        nn.init.constant_(self.weight, gain)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.movedim(1, -1)).movedim(-1, 1)
