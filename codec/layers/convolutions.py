"""Sequences of convolutions."""

import itertools
from collections.abc import Callable, Sequence

from torch import nn


def convolutions(
    kind: Callable[..., nn.Module], widths: Sequence[int], kernel: int, activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Convolutions from each width to the next, which keep the size, with activations between them.

    Args:
        kind: a convolution class of torch, of any dimension.
        widths: channels, from the input to the output.
        kernel: side of each, odd.
        activation: an activation class of torch.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [kind(inputs, outputs, kernel, padding=kernel // 2), activation()]
    return nn.Sequential(*layers[:-1])
