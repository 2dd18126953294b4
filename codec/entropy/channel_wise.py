"""The channel-wise entropy model of Minnen and Singh (2020), as used by STF and TCM."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from codec.entropy.space_channel import Visit
from codec.layers.attention import GatedAttention
from codec.layers.convolutions import convolutions

Refine = Callable[[slice, Tensor, Tensor], Tensor]
"""Receives a slice of channels, its decoded latents (B, c, n) and a prediction (B, c, n) of the rounding error, in
quantisation steps; returns the latents that all later parts use."""


class ChannelWiseModel(nn.Module):
    """Predicts each slice of channels from the hyper-prior and the previous slices, means and scales separately.

    For each slice, with the same structure for the mean and for the scale::

        half of the global context ─┐
        slices before ──────────────┴─ (SWAtten) ─ support ─ convolutions ── mean, or scale
                                                   of the mean └─┐
        the slice itself, decoded ───────────────────────────────┴─ convolutions ─ tanh / 2 ── residual

    The residual prediction adds the expected rounding error to decoded latents, at most half a step.

    Minnen and Singh: ten slices, which see all previous ones, residual prediction. STF (Zou et al. 2022): slices see
    at most the first five. TCM (Liu et al. 2023): five slices, attention before each network.

    Args:
        global_channels: channels of the global context, even: the first half is for means, the second for scales.
        slices: channels of each slice.
        widths: hidden channels of the convolutions.
        kernel: their side.
        support: the number of first slices that later ones see; 0 for all.
        attention: side of SWAtten's windows; 0 for none.
        residual: whether residuals are predicted.
    """

    def __init__(
        self,
        global_channels: int,
        slices: Sequence[int],
        widths: Sequence[int],
        kernel: int = 5,
        support: int = 0,
        attention: int = 0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        if min(slices, default=0) < 1 or global_channels % 2:
            raise ValueError("Each slice needs at least one channel, and the global context an even number.")
        self.slices, self.support, self.residual = tuple(slices), support or len(slices), residual
        self.mean_supports, self.mean_networks = nn.ModuleList(), nn.ModuleList()
        self.scale_supports, self.scale_networks = nn.ModuleList(), nn.ModuleList()
        self.residual_networks = nn.ModuleList()
        for i, channels in enumerate(slices):
            seen = global_channels // 2 + sum(self.slices[: min(i, self.support)])
            for supports, networks in (
                (self.mean_supports, self.mean_networks),
                (self.scale_supports, self.scale_networks),
            ):
                supports.append(GatedAttention(seen, attention) if attention else nn.Identity())
                networks.append(convolutions(nn.Conv2d, (seen, *widths, channels), kernel, nn.GELU))
            if residual:
                self.residual_networks.append(
                    convolutions(nn.Conv2d, (seen + channels, *widths, channels), kernel, nn.GELU)
                )

    def forward(self, context: Tensor, visit: Visit, refine: Refine) -> Tensor:
        """Process all slices in coding order.

        Args:
            context: the global context, (B, global_channels, h, w).
            visit: converts predictions to decoded latents.
            refine: adds predicted residuals to them.

        Returns:
            The decoded latents, (B, sum of slices, h, w), with their residuals.
        """
        for_means, for_scales = context.chunk(2, 1)
        batch, _, height, width = context.shape
        everywhere = torch.arange(height * width, device=context.device)
        decoded: list[Tensor] = []
        start = 0
        for i, count in enumerate(self.slices):
            before = decoded[: self.support]
            mean_support = self.mean_supports[i](torch.cat([for_means, *before], 1))
            scale_support = self.scale_supports[i](torch.cat([for_scales, *before], 1))
            means, scales = self.mean_networks[i](mean_support), self.scale_networks[i](scale_support)
            channels = slice(start, start + count)
            latents = visit(channels, everywhere, means.flatten(2), scales.flatten(2))
            if self.residual:
                whole = latents.view(batch, count, height, width)
                lost = 0.5 * torch.tanh(self.residual_networks[i](torch.cat([mean_support, whole], 1)))
                latents = refine(channels, latents, lost.flatten(2))
            decoded.append(latents.view(batch, count, height, width))
            start += count
        return torch.cat(decoded, 1)
