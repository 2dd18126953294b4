"""Inspect networks: sampling locations, latents by slice, effective receptive fields (DKIC, figures 3, 4, 7).

LAM stands for local attribution maps (Gu and Dong, CVPR 2021, "Interpreting super-resolution networks with local
attribution maps"), which DKIC's section 4.5 uses for effective receptive fields.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from codec.layers.dynamic_kernel import LiteDCN
from codec.network import STRIDE, CompressionNetwork

_TINY = 1e-12  # under a square root, whose slope is infinite at 0


class Sampling(NamedTuple):
    """The sampling locations of a dynamic kernel, for every position of its output (DKIC, figure 3).

    The output's position (row, column) corresponds to the pixel (row * stride, column * stride).
    """

    positions: Tensor
    """(G, K, 2, h, w): positions of each group's samples, x before y, in pixels; they may be outside the image."""
    weights: Tensor
    """(G, K, h, w): weights of the samples, above 0; the K weights of a kernel sum to 1."""
    stride: int
    """The stride of the output's positions in pixels of the image."""


@torch.no_grad()
def sampling_locations(network: CompressionNetwork, image: Tensor, level: int = 0) -> dict[str, Sampling]:
    """The sampling locations of the transforms' dynamic kernels for an image, without rounding.

    Args:
        network: a network of any configuration; one without dynamic kernels gives an empty result.
        image: (1, 3, H, W), 0 to 1.
        level: the level of the synthesis transform.

    Returns:
        Locations by each kernel's name among the network's modules, in the order of use.
    """
    transforms = {"analysis": network.analysis, "synthesis": network.synthesis}
    layers = {
        f"{part}.{name}": layer
        for part, transform in transforms.items()
        for name, layer in transform.named_modules()
        if isinstance(layer, LiteDCN)
    }
    inputs: dict[LiteDCN, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda module, given: inputs.update({module: given[0]}))
        for layer in layers.values()
    ]
    try:
        y, _ = network.latents(image)
        network.reconstruct(y, torch.tensor([level], device=image.device), *image.shape[2:])
    finally:
        for hook in hooks:
            hook.remove()
    height = STRIDE * y.shape[2]
    return {name: _sampling(layer, inputs[layer], height // inputs[layer].shape[2]) for name, layer in layers.items()}


def _sampling(layer: LiteDCN, features: Tensor, stride: int) -> Sampling:
    """The positions p + p_k + offset of equation 4, and their weights."""
    height, width = features.shape[2:]
    offsets = layer.offsets(features)[0].unflatten(0, (layer.groups, layer.positions, 2))
    weights = layer.modulation(features)[0].unflatten(0, (layer.groups, layer.positions)).softmax(1)
    side = math.isqrt(layer.positions)
    device = features.device
    k = torch.arange(layer.positions, device=device)
    kernel = torch.stack([k % side, k // side], 1) - side // 2
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    undisturbed = torch.stack([columns, rows]) + kernel[:, :, None, None]
    return Sampling((undisturbed + offsets) * stride, weights, stride)


def slice_magnitudes(latents: Tensor, slices: Sequence[int]) -> Tensor:
    """The mean magnitude of each slice's latents: the mean of |y| over its channels (DKIC, figure 4).

    Args:
        latents: (B, M, h, w).
        slices: channels of each of the S slices; M together.

    Returns:
        (B, S, h, w), in the unit of the latents.
    """
    return torch.stack([part.abs().mean(1) for part in latents.split_with_sizes(list(slices), 1)], 1)


def spatial_correlation(latents: Tensor, slices: Sequence[int], reach: int = 2) -> Tensor:
    """The correlation of latents with their neighbours in the same channel, slice by slice (DKIC, figure 4).

    The paper shows pictures but no formula. Here it is Pearson's coefficient of all pairs at the distance
    (dy, dx): covariances and variances about each channel's mean, summed over a slice's channels and the
    batch, so that channels count by their energy.

    Args:
        latents: (B, M, h, w), h and w above ``reach``.
        slices: channels of each of the S slices; M together.
        reach: r, the farthest neighbour.

    Returns:
        (S, 2r + 1, 2r + 1), -1 to 1, and 1 in the centre; entry (r + dy, r + dx) is for (dy, dx). NaN if a
        slice is constant.
    """
    height, width = latents.shape[2:]
    shifts = range(-reach, reach + 1)

    def window(shift: int, size: int) -> slice:
        return slice(max(0, shift), size + min(0, shift))

    def coefficient(part: Tensor, dy: int, dx: int) -> Tensor:
        here = part[:, :, window(-dy, height), window(-dx, width)]
        there = part[:, :, window(dy, height), window(dx, width)]
        here, there = (one - one.mean((0, 2, 3), keepdim=True) for one in (here, there))
        return (here * there).sum() / (here.square().sum() * there.square().sum()).sqrt()

    parts = latents.double().split_with_sizes(list(slices), 1)
    found = torch.stack([coefficient(part, dy, dx) for part in parts for dy in shifts for dx in shifts])
    return found.view(len(parts), len(shifts), len(shifts)).to(latents.dtype)


def attribution(
    function: Callable[[Tensor], Tensor],
    image: Tensor,
    rows: slice,
    columns: slice,
    *,
    sigma: float = 1.2,
    steps: int = 50,
) -> Tensor:
    """The influence of every pixel on the detail in a part of an output: LAM, an effective receptive field.

    Detail is the sum of the length of the output's spatial gradient over channels and positions of the
    part. Its derivative with respect to the image is integrated along a path from a blurred image, which has little
    detail, to the image itself; the sum of all attributions is the detail that the part gains along the path.

    Args:
        function: a differentiable function from images (1, 3, H, W) to outputs (1, C, h, w), such as a network's
            transforms.
        image: (1, 3, H, W).
        rows: rows of the output, at least two.
        columns: columns of the output, at least two.
        sigma: the Gaussian blur at the start of the path, in pixels; by default that of LAM.
        steps: the steps of the path; by default 50 as in LAM; 10 give nearly the same picture.

    Returns:
        (3, H, W), of either sign, in the output's unit.
    """
    total = torch.zeros_like(image)
    for step in range(steps):
        start, middle, end = (_blur(image, sigma * (1 - (step + part) / steps), sigma) for part in (0, 0.5, 1))
        with torch.enable_grad():
            middle.requires_grad_()
            detail = _detail(function(middle)[:, :, rows, columns])
        total += torch.autograd.grad(detail, middle)[0] * (end - start)
    return total[0]


def _detail(part: Tensor) -> Tensor:
    across = part[:, :, :-1, 1:] - part[:, :, :-1, :-1]
    down = part[:, :, 1:, :-1] - part[:, :, :-1, :-1]
    return (across.square() + down.square() + _TINY).sqrt().sum()


@torch.no_grad()
def _blur(image: Tensor, sigma: float, widest: float) -> Tensor:
    """A Gaussian blur, with a kernel of the size that the ``widest`` blur needs."""
    reach = math.ceil(4 * widest)
    distance = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = (-0.5 * (distance / max(sigma, 1e-3)).square()).exp()
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, 1, -1)
    for _ in range(2):  # columns, then rows
        padded = functional.pad(image, (reach, reach, 0, 0), mode="replicate")
        image = functional.conv2d(padded, kernel, groups=image.shape[1]).transpose(2, 3)
    return image


def diffusion_index(attributions: Tensor) -> float:
    """The diffusion of attributions: LAM's DI, 100 (1 - G), where G is Gini's coefficient of the pixels' amounts.

    Args:
        attributions: (C, H, W), from :func:`attribution`.

    Returns:
        About 0 if one pixel has everything, up to 100 if all pixels have the same. Compare only images of one size.
    """
    amounts = attributions.abs().sum(0).flatten().double().sort().values
    count = len(amounts)
    ranks = torch.arange(1, count + 1, dtype=torch.float64, device=amounts.device)
    return float(100 * (1 - ((2 * ranks - count - 1) * amounts).sum() / (count * amounts.sum())))
