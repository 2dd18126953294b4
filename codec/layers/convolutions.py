"""Convolutions one behind the other."""

import itertools
from collections.abc import Callable, Sequence

from torch import nn


def convolutions(
    kind: Callable[..., nn.Module], widths: Sequence[int], kernel: int, activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """A convolution from each width to the next, which keep the size, with activations between.

    Args:
        kind: a convolution of torch's, of any dimension.
        widths: channels, from those that come in to those that go out.
        kernel: side of each, odd.
        activation: of torch's.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [kind(inputs, outputs, kernel, padding=kernel // 2), activation()]
    return nn.Sequential(*layers[:-1])
