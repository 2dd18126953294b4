"""Attention within windows, as in the entropy model of TCM (Liu, Sun and Katto 2023)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from codec.layers.blocks import Mlp, ResidualBottleneck
from codec.layers.norm import ChannelNorm


class WindowAttention(nn.Module):
    """Each position of (B, C, H, W) attends to those of its window.

    Args:
        channels: channels of input and output.
        side: side of the windows, which are cut off at the borders.
        heads: the number of separate heads.
        shift: the shift of the windows to the left and above the features' corner.
    """

    def __init__(self, channels: int, side: int, heads: int, shift: int = 0) -> None:
        super().__init__()
        self.side, self.heads, self.shift = side, heads, shift
        self.queries_keys_values = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self.bias = nn.Parameter(torch.zeros(heads, (2 * side - 1) ** 2))
        """A bias for each distance between two positions of a window."""

    def forward(self, features: Tensor) -> Tensor:
        height, width = features.shape[2:]
        below, right = -(height + self.shift) % self.side, -(width + self.shift) % self.side
        borders = (self.shift, right, self.shift, below)
        windows = self._windows(functional.pad(self.queries_keys_values(features), borders))
        inside = self._windows(functional.pad(torch.ones_like(features[:1, :1]), borders))  # (1, rows, columns, n, 1)
        split = windows.reshape(*windows.shape[:4], 3, self.heads, -1)
        queries, keys, values = split.movedim((4, 5), (0, 4))
        near = self.bias[:, self._distances()].masked_fill(inside.movedim(4, 3)[..., None, :] == 0, -1e9)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, near.to(queries.dtype))
        batch, rows, columns, _, n, _ = mixed.shape
        whole = mixed.movedim(4, 3).reshape(batch, rows, columns, self.side, n // self.side, -1)
        whole = whole.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return self.out(whole[:, :, self.shift : self.shift + height, self.shift : self.shift + width])  # type: ignore[no-any-return]

    def _distances(self) -> Tensor:
        """The index of the bias for each pair of a window's positions."""
        place = torch.arange(self.side**2, device=self.bias.device)
        y, x = (n[:, None] - n + self.side - 1 for n in (place // self.side, place % self.side))
        return y * (2 * self.side - 1) + x

    def _windows(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to (B, rows, columns, side * side, C)."""
        batch, channels, height, width = features.shape
        cut = features.reshape(batch, channels, height // self.side, self.side, width // self.side, self.side)
        return cut.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)


class _Transformer(nn.Module):
    def __init__(self, channels: int, side: int, heads: int, shift: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(ChannelNorm(channels), WindowAttention(channels, side, heads, shift))
        self.mix = nn.Sequential(ChannelNorm(channels), Mlp(channels, 2))

    def forward(self, features: Tensor) -> Tensor:
        features = features + self.attend(features)
        return features + self.mix(features)  # type: ignore[no-any-return]


class GatedAttention(nn.Module):
    """TCM's SWAtten: features plus the output of residual units, gated by attention in (shifted) windows.

    Args:
        channels: channels of the features (B, channels, H, W), input and output.
        side: side of the windows, even.
        width: internal channels; a multiple of ``heads``.
        heads: heads of the attention.
    """

    def __init__(self, channels: int, side: int, width: int = 128, heads: int = 8) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels, 1)
        self.branch = ResidualBottleneck(width)
        self.gate = nn.Sequential(
            _Transformer(width, side, heads, 0),
            _Transformer(width, side, heads, side // 2),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        inner = self.enter(features)
        return features + self.leave(self.branch(inner) * torch.sigmoid(self.gate(inner)))  # type: ignore[no-any-return]
