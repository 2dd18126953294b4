"""The generalised coarse-to-fine entropy model (DKIC, equation 2 and section 3.3)."""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from codec.layers.attention import GatedAttention
from codec.layers.convolutions import convolutions

Visit = Callable[[slice, Tensor, Tensor, Tensor], Tensor]
"""Receives a slice of channels, the positions (n,) of one stage in the flattened latents, and the predicted means and
fractional scale indices (B, c, n) there; returns the decoded latents (B, c, n)."""


def stage_map(height: int, width: int, stages: int) -> Tensor:
    """The stage, 0 to ``stages`` - 1, in which each position is coded: int64 (height, width).

    Positions have the order of ordered dithering: each stage is as far as possible from the previous ones. Two
    stages are the checkerboard (He et al. 2021), four are the corners of 2x2 cells (Lu et al. 2022).
    """
    ranks = torch.zeros(1, 1, dtype=torch.int64)
    while ranks.numel() < stages:
        ranks = torch.cat([torch.cat([4 * ranks, 4 * ranks + 2], 1), torch.cat([4 * ranks + 3, 4 * ranks + 1], 1)], 0)
    tile = ranks * stages // ranks.numel()
    side = len(tile)
    return tile[torch.arange(height)[:, None] % side, torch.arange(width) % side]


@functools.lru_cache(maxsize=32)
def _positions(height: int, width: int, stages: int, device: torch.device) -> tuple[Tensor, ...]:
    with torch.inference_mode(False):  # also cached for training
        order = stage_map(height, width, stages).flatten()
        return tuple((order == stage).nonzero()[:, 0].to(device) for stage in range(stages))


class _GuidedContext(nn.Module):
    """g_cp or g_sp as in DKIC's equation 2, with decoded latents (B, c, h, w) and the global context as input."""

    def __init__(self, widths: Sequence[int], kernel: int, global_channels: int) -> None:
        super().__init__()
        inputs, hidden, *_ = (*widths, widths[-1])
        self.decoded = nn.Conv2d(inputs, hidden, kernel, padding=kernel // 2)
        self.guide = nn.Conv2d(global_channels, hidden, 1)
        self.rest = (
            convolutions(nn.Conv2d, widths[1:], kernel) if len(widths) > 2 else nn.Conv2d(hidden, widths[-1], 1)
        )

    def forward(self, decoded: Tensor, context: Tensor) -> Tensor:
        return self.rest(functional.relu(self.decoded(decoded) + self.guide(context)))  # type: ignore[no-any-return]


class SpaceChannelModel(nn.Module):
    """Predicts each latent's mean and scale from everything that was decoded before it.

    The order is by slices of channels, and in each slice by stages of positions. 1x1 convolutions combine three
    contexts: the global context of the hyper-prior, the channel context of the previous slices, and the spatial
    context of the previous stages in the same slice::

        global ──────────────────────────┐
        slices before ── g_cp (5x5s) ────┼── g_ep (1x1s) ── mean, scale
        stages before ── g_sp (5x5) ─────┘

    With ``contexts_see_global``, g_cp and g_sp also receive the global context (z_hat in equation 2): a 1x1
    convolution of it is added before their first activation. This is our choice; the paper does not specify it.

    Special cases: one slice in two stages is the checkerboard model, (16, 16, 32, 64, rest) in two stages each is
    that of ELIC, and with [4, 4, 2, 2, 2] stages that of DKIC. Ten even slices in one stage each are what DKIC's
    table 3 calls Minnen's channel-wise model; the published model, with separate networks for means and scales and
    with residual prediction, is :class:`codec.entropy.channel_wise.ChannelWiseModel`.

    Args:
        global_channels: channels of the global context.
        slices: channels of each slice.
        stages: spatial stages of each slice.
        channel_widths: hidden channels of the channel context's convolutions.
        parameter_widths: hidden channels of the 1x1 convolutions.
        kernel: side of the convolutions over contexts.
        attention: side of the windows in which the previous slices attend to each other, before the channel context's
            convolutions; 0 for none. Only networks of earlier versions use it here.
        contexts_see_global: whether g_cp and g_sp receive the global context; not together with attention.
    """

    def __init__(
        self,
        global_channels: int,
        slices: Sequence[int],
        stages: Sequence[int],
        channel_widths: Sequence[int],
        parameter_widths: Sequence[int],
        kernel: int = 5,
        attention: int = 0,
        contexts_see_global: bool = False,
    ) -> None:
        super().__init__()
        if len(slices) != len(stages) or min(slices, default=0) < 1 or min(stages, default=0) < 1:
            raise ValueError("Each slice needs at least one channel and one stage.")
        if attention and contexts_see_global:
            raise ValueError("Attention and contexts_see_global exclude each other.")
        self.slices, self.stages = tuple(slices), tuple(stages)
        self.channel_contexts, self.spatial_contexts = nn.ModuleList(), nn.ModuleList()
        self.parameter_networks = nn.ModuleList()
        self.contexts_see_global = contexts_see_global
        before = 0
        for channels, number in zip(slices, stages, strict=True):
            contexts = 2 * channels * ((before > 0) + (number > 1))
            context: nn.Module = nn.Identity()
            if before:
                widths = (before, *channel_widths, 2 * channels)
                if contexts_see_global:
                    context = _GuidedContext(widths, kernel, global_channels)
                else:
                    context = convolutions(nn.Conv2d, widths, kernel)
                if attention:
                    context = nn.Sequential(GatedAttention(before, attention), context)
            self.channel_contexts.append(context)
            self.spatial_contexts.append(
                nn.ModuleList(
                    _GuidedContext((channels, 2 * channels), kernel, global_channels)
                    if contexts_see_global
                    else nn.Conv2d(channels, 2 * channels, kernel, padding=kernel // 2)
                    for _ in range(number - 1)
                )
            )
            self.parameter_networks.append(
                convolutions(nn.Conv1d, (global_channels + contexts, *parameter_widths, 2 * channels), 1)
            )
            before += channels

    def forward(self, context: Tensor, visit: Visit, refine: object = None) -> Tensor:
        """Process all slices and stages in coding order.

        Args:
            context: the global context, (B, global_channels, h, w).
            visit: converts predictions to decoded latents, which the next predictions use.
            refine: not used, because this model predicts no residuals.

        Returns:
            The decoded latents, (B, sum of slices, h, w).
        """
        batch, _, height, width = context.shape
        flat = context.flatten(2)
        decoded: list[Tensor] = []
        start = 0
        for i, (channels, number) in enumerate(zip(self.slices, self.stages, strict=True)):
            contexts = [flat]
            if decoded:
                contexts.append(self._see(self.channel_contexts[i], torch.cat(decoded, 1), context).flatten(2))
            known = torch.cat(contexts, 1)
            current = flat.new_zeros(batch, channels, height * width)
            for stage, positions in enumerate(_positions(height, width, number, flat.device)):
                seen = known.index_select(2, positions)
                if number > 1:
                    around = current.view(batch, channels, height, width)
                    spatial = flat.new_zeros(batch, 2 * channels, len(positions))
                    if stage:
                        predict: nn.Module = self.spatial_contexts[i][stage - 1]  # type: ignore[index]
                        spatial = self._see(predict, around, context).flatten(2).index_select(2, positions)
                    seen = torch.cat([seen, spatial], 1)
                if not len(positions):
                    continue
                means, scales = self.parameter_networks[i](seen).chunk(2, 1)
                latents = visit(slice(start, start + channels), positions, means, scales)
                current = current.index_copy(2, positions, latents)
            decoded.append(current.view(batch, channels, height, width))
            start += channels
        return torch.cat(decoded, 1)

    def _see(self, predict: nn.Module, decoded: Tensor, context: Tensor) -> Tensor:
        seen: Tensor = predict(decoded, context) if self.contexts_see_global else predict(decoded)
        return seen
