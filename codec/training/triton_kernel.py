"""The dynamic kernel and its gradients on a GPU, in one pass each, with Triton (which torch installs)."""

import importlib.util
from typing import Any

import torch
from torch import Tensor

from codec.layers.dynamic_kernel import training_kernels

if importlib.util.find_spec("triton"):
    from codec.training import triton_source

_BLOCK = 64
"""Positions that one program takes."""


def triton_kernel(features: Tensor, offsets: Tensor, modulation: Tensor) -> Tensor | None:
    """:func:`codec.layers.dynamic_kernel.dynamic_kernel` on a GPU in float32, or None for other inputs.

    Groups have a power of two of channels.
    """
    channels = features.shape[1] // modulation.shape[1]
    if not features.is_cuda or features.dtype != torch.float32 or channels & (channels - 1):
        return None
    return run(features, offsets, modulation)


def run(features: Tensor, offsets: Tensor, modulation: Tensor) -> Tensor:
    """The sums, with gradients."""
    return _TritonKernel.apply(features, offsets.flatten(1, 3), modulation.flatten(1, 2), modulation.shape[1])  # type: ignore[no-any-return]


def install() -> None:
    """Let the dynamic kernel use Triton, if it is installed, whenever gradients are needed."""
    if importlib.util.find_spec("triton") and triton_kernel not in training_kernels:
        training_kernels.append(triton_kernel)


class _TritonKernel(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, features: Tensor, offsets: Tensor, modulation: Tensor, groups: int) -> Tensor:
        features = features.contiguous(memory_format=torch.channels_last)
        offsets, modulation = _rows_joined(offsets), _rows_joined(modulation)
        context.save_for_backward(features, offsets, modulation)
        context.groups = groups
        out = torch.empty_like(features)
        _launch(triton_source.forward, [features, offsets, modulation], [out], groups)
        return out

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        features, offsets, modulation = context.saved_tensors
        gradient = gradient.to(features.dtype).contiguous(memory_format=torch.channels_last)
        to_features, to_offsets = torch.zeros_like(features), torch.empty_like(offsets)
        to_modulation = torch.empty_like(modulation)
        others = [gradient, to_features, to_offsets, to_modulation]
        _launch(triton_source.backward, [features, offsets, modulation], others, context.groups)
        return to_features, to_offsets, to_modulation, None


def _rows_joined(values: Tensor) -> Tensor:
    """The values (B, C, H, W) with one stride for all positions."""
    return values if values.stride(2) == values.shape[3] * values.stride(3) else values.contiguous()


def _launch(kernel: Any, inputs: list[Tensor], others: list[Tensor], groups: int) -> None:
    features, offsets, modulation = inputs
    batch, channels, height, width = features.shape
    strides = [values.stride(axis) for values in (features, offsets, modulation) for axis in (0, 1, 3)]
    kernel[-(-height * width // _BLOCK), batch * groups](
        *inputs,
        *others,
        height,
        width,
        *strides,
        GROUPS=groups,
        CHANNELS=channels // groups,
        SIDE=round((modulation.shape[1] // groups) ** 0.5),
        BLOCK=_BLOCK,
    )
