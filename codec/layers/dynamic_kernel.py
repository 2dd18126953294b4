"""The dynamic kernel: every group of channels samples where its own learned offsets point (DKIC, equation 4)."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from codec.layers.norm import ChannelNorm

_BAND = 6144
"""The number of positions that are sampled together, so that their samples stay in the processor's cache."""


def dynamic_kernel(features: Tensor, offsets: Tensor, modulation: Tensor) -> Tensor:
    """Weighted sums of bilinear samples at learned positions; values outside the features are zero.

    ``out[c, p] = sum_k modulation[g(c), k, p] * features[c, p + p_k + offsets[g(c), k, p]]`` with ``p_k`` the
    positions of a ``sqrt(K)`` by ``sqrt(K)`` kernel in raster order (DKIC, equation 4; each of the G groups of
    C / G neighbouring channels shares its positions and weights).

    The samples of one kernel position are added before those of the next one are read, and the gradient reads them
    again, so the memory stays near that of the features. Under :func:`torch.compile` on a GPU use
    :func:`dynamic_kernel_gathered`, which the compiler fuses into one pass.

    Args:
        features: (B, C, H, W), floating.
        offsets: (B, G, K, 2, H, W), in positions, x before y.
        modulation: (B, G, K, H, W), the weights.

    Returns:
        (B, C, H, W).
    """
    if features.is_cuda and not torch.is_grad_enabled() and (fuse := _find_fused()):
        try:
            fused: Tensor = fuse(features, offsets, modulation)
            return fused
        except Exception:  # any error means that this machine has no compiler
            _without_compiler.append(True)
    if torch.is_grad_enabled():
        for kernel in training_kernels:
            if (found := kernel(features, offsets, modulation)) is not None:
                return found
    result: Tensor = _DynamicKernel.apply(features, offsets, modulation)
    return result


def dynamic_kernel_gathered(features: Tensor, offsets: Tensor, modulation: Tensor) -> Tensor:
    """The same sums as :func:`dynamic_kernel` with plain indexing, which a compiler can fuse.

    Without a compiler, it needs memory for all samples, K times that of the features.
    """
    batch, channels, height, width = features.shape
    groups, kernel = modulation.shape[1:3]
    flat = features.reshape(batch, groups, channels // groups, 1, height * width)
    x, y = _positions(offsets, slice(0, height))
    left, top = x.floor(), y.floor()
    right, below = x - left, y - top
    out = torch.zeros((), dtype=features.dtype, device=features.device)
    for row, row_weight in ((top, 1 - below), (top + 1, below)):
        for column, column_weight in ((left, 1 - right), (left + 1, right)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            index = index.reshape(batch, groups, 1, kernel, -1).expand(-1, -1, channels // groups, -1, -1)
            samples = flat.expand(-1, -1, -1, kernel, -1).gather(4, index)
            weight = (modulation * row_weight * column_weight * inside).reshape(batch, groups, 1, kernel, -1)
            out = out + (samples * weight).sum(3)
    return out.reshape(features.shape)


training_kernels: list[Callable[[Tensor, Tensor, Tensor], Tensor | None]] = []
"""Faster forms with gradients, which return None if they can't be used. Training adds some; decoding needs none."""

_without_compiler: list[bool] = []


def _find_fused() -> Callable[..., Tensor] | None:
    """The compiled form, if there is a compiler."""
    return None if _without_compiler else _make_fused()


@functools.cache
def _make_fused() -> Callable[..., Tensor]:
    return torch.compile(dynamic_kernel_gathered, dynamic=True)  # imports a compiler, which takes seconds


def _positions(offsets: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """The kernel's positions in the features: x and y, each (B, G, K, rows, W)."""
    kernel, width = offsets.shape[2], offsets.shape[5]
    side = round(kernel**0.5)

    def count(start: int, stop: int) -> Tensor:
        return torch.arange(start, stop, dtype=offsets.dtype, device=offsets.device)

    k = torch.arange(kernel, device=offsets.device)
    dx, dy = ((n - side // 2).to(offsets.dtype)[:, None, None] for n in (k % side, k // side))
    band = offsets[..., rows, :]
    return band[:, :, :, 0] + (count(0, width) + dx), band[:, :, :, 1] + (count(rows.start, rows.stop)[:, None] + dy)


def _grid(offsets: Tensor, k: int, rows: slice) -> Tensor:
    """Position ``k`` of the kernel in the coordinates of ``grid_sample``: (B * G, rows, W, 2)."""
    kernel, height, width = offsets.shape[2], *offsets.shape[4:]
    side = round(kernel**0.5)
    scale = offsets.new_tensor([2 / width, 2 / height])
    x = torch.arange(width, dtype=offsets.dtype, device=offsets.device) + (k % side - side // 2 + 0.5)
    y = torch.arange(rows.start, rows.stop, dtype=offsets.dtype, device=offsets.device)
    y = y + (k // side - side // 2 + 0.5)
    undisturbed = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, width)], -1) * scale - 1
    return torch.addcmul(undisturbed, offsets[:, :, k, :, rows].flatten(0, 1).movedim(1, 3), scale)


class _DynamicKernel(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, features: Tensor, offsets: Tensor, modulation: Tensor) -> Tensor:
        context.save_for_backward(features, offsets, modulation)
        batch, channels, height, width = features.shape
        groups, kernel = modulation.shape[1:3]
        images = features.reshape(batch * groups, channels // groups, height, width)
        out = torch.empty_like(images)
        step = max(1, _BAND // width)
        for start in range(0, height, step):
            rows = slice(start, min(start + step, height))
            weights = modulation[:, :, :, None, rows].flatten(0, 1)
            band = _sample(images, _grid(offsets, 0, rows)).mul_(weights[:, 0])
            for k in range(1, kernel):
                band.addcmul_(_sample(images, _grid(offsets, k, rows)), weights[:, k])
            out[:, :, rows] = band
        return out.view(batch, channels, height, width)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, offsets, modulation = context.saved_tensors
        batch, channels, height, width = features.shape
        groups, kernel = modulation.shape[1:3]
        images = features.reshape(batch * groups, channels // groups, height, width)
        gradient = gradient.reshape(images.shape).to(images.dtype)
        to_images = torch.zeros_like(images)
        to_offsets, to_modulation = torch.empty_like(offsets), torch.empty_like(modulation)
        scale = offsets.new_tensor([2 / width, 2 / height])
        for k in range(kernel):
            grid = _grid(offsets, k, slice(0, height))
            samples = _sample(images, grid)
            to_modulation[:, :, k] = (samples * gradient).sum(1).view(batch, groups, height, width)
            weighted = gradient * modulation[:, :, k].flatten(0, 1)[:, None]
            to_image, to_grid = torch.ops.aten.grid_sampler_2d_backward(
                weighted, images, grid, 0, 0, False, [True, True]
            )
            to_images += to_image
            to_offsets[:, :, k] = (to_grid * scale).view(batch, groups, height, width, 2).movedim(4, 2)
        return to_images.view_as(features), to_offsets, to_modulation


def _sample(images: Tensor, grid: Tensor) -> Tensor:
    return torch.grid_sampler_2d(images, grid, 0, 0, False)  # bilinear, zeros outside, pixel centres


class LiteDCN(nn.Module):
    """Lite deformable convolution: projection, :func:`dynamic_kernel`, projection (DKIC, section 3.2).

    Offsets and modulation come from a depth-wise convolution each, layer normalisation, GELU and a projection, as in
    the DCNv3 of InternImage (Wang et al. 2022) that the paper follows; softmax over the kernel's positions normalises
    the modulation. Both start at zero: an average over the regular kernel.

    Args:
        channels: C; features are (B, C, H, W) in and out.
        groups: G; each group of C / G channels has its own positions and weights.
        kernel: side of the kernel: 1, 3 or 5.
        offset_norm: whether normalisation and GELU are between depth-wise convolution and projection.
    """

    def __init__(self, channels: int, groups: int, kernel: int = 3, offset_norm: bool = True) -> None:
        super().__init__()
        self.groups, self.positions = groups, kernel**2
        self.value = nn.Conv2d(channels, channels, 1)
        self.offsets = self._from_depthwise(channels, 2 * groups * self.positions, offset_norm)
        self.modulation = self._from_depthwise(channels, groups * self.positions, offset_norm)
        self.output = nn.Conv2d(channels, channels, 1)

    @staticmethod
    def _from_depthwise(channels: int, out: int, norm: bool) -> nn.Sequential:
        depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        project = nn.Conv2d(channels, out, 1)
        nn.init.zeros_(project.weight)
        nn.init.zeros_(project.bias)  # type: ignore[arg-type]
        between = (ChannelNorm(channels), nn.GELU()) if norm else ()
        return nn.Sequential(depthwise, *between, project)

    def forward(self, features: Tensor) -> Tensor:
        offsets = self.offsets(features).unflatten(1, (self.groups, self.positions, 2))
        modulation = self.modulation(features).unflatten(1, (self.groups, self.positions)).softmax(2)
        value = self.value(features)
        with torch.autocast(value.device.type, enabled=False):  # positions need more than bfloat16's 8 bits
            wide = torch.promote_types(value.dtype, torch.float32)
            sampled = dynamic_kernel(value.to(wide), offsets.to(wide), modulation.to(wide))
        return self.output(sampled)  # type: ignore[no-any-return]
