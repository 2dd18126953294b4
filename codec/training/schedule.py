"""The schedule of the learning rate, and the average of weights."""

import math

import torch
from torch import Tensor, nn

from codec.training.recipe import Stage


def learning_rate(stage: Stage, number: int) -> float:
    """The learning rate at a step of a stage."""
    rise = min(1.0, (number + 1) / stage.warmup) if stage.warmup else 1.0
    done = number / stage.steps
    if stage.schedule == "cosine":
        low = stage.final_learning_rate
        return rise * (low + (stage.learning_rate - low) * (1 + math.cos(math.pi * done)) / 2)
    return rise * stage.learning_rate * 0.1 ** sum(done >= drop for drop in stage.drops)


def averaging(keep: float, step: int) -> float:
    """The memory of the weights' average at a step: ``keep``, but less in the first steps."""
    return min(keep, (1 + step) / (10 + step))


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, keep: Tensor) -> None:
    """Move averaged weights towards a network's.

    Args:
        average: the averaged network, which is updated.
        network: a network of the same shape.
        keep: the memory of the average, a scalar; 0 for the network's own weights.
    """
    means: list[Tensor] = [mean.detach() for mean in average.parameters()]
    values: list[Tensor] = [value.detach() for value in network.parameters()]
    torch._foreach_mul_(means, keep)
    torch._foreach_add_(means, list(torch._foreach_mul(values, 1 - keep)))
