"""How the learning rate goes, and the average of weights that is kept."""

import math

import torch
from torch import nn

from codec.training.recipe import Stage


def learning_rate(stage: Stage, number: int) -> float:
    """The learning rate at a step of a stage."""
    rise = min(1.0, (number + 1) / stage.warmup) if stage.warmup else 1.0
    done = number / stage.steps
    if stage.schedule == "cosine":
        low = stage.final_learning_rate
        return rise * (low + (stage.learning_rate - low) * (1 + math.cos(math.pi * done)) / 2)
    return rise * stage.learning_rate * 0.1 ** sum(done >= drop for drop in stage.drops)


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, keep: float, step: int) -> None:
    """Move averaged weights towards a network's, faster in the first steps.

    Args:
        average: whose weights are moved.
        network: of the same shape.
        keep: what stays of the average in a step, later on; 0 for the network's own weights.
        step: from 0.
    """
    keep = min(keep, (1 + step) / (10 + step))
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - keep)
