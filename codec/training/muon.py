"""Muon: gradient descent by orthogonal steps, for the weights of convolutions (Jordan et al. 2024)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Steps whose singular values are all about one, with Nesterov's momentum.

    A weight (out, in, h, w) counts as a matrix of ``out`` rows. Steps are scaled to the size of Adam's (Liu et al.
    2025, section 2.2), so that both take the same learning rate.

    As torch's Adam, it leaves a step out where its attribute ``found_inf`` is set to a tensor of 1.

    Args:
        params: of at least two dimensions each.
        lr: learning rate, as Adam's.
        momentum: what the running mean of gradients keeps at each step.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move each parameter that has a gradient."""
        for group in self.param_groups:
            momentum = group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                mean, gradient = state["mean"], parameter.grad
                if self.found_inf is not None:
                    gradient = gradient.where(self.found_inf == 0, mean)
                mean.lerp_(gradient, 1 - momentum)
                step = orthogonal(gradient.lerp(mean, momentum).flatten(1))
                if self.found_inf is not None:
                    step = step * (1 - self.found_inf)
                size = 0.2 * max(step.shape) ** 0.5
                parameter.add_(step.reshape(parameter.shape).to(parameter.dtype), alpha=-group["lr"] * size)


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """A matrix with the singular vectors of one (R, C) and singular values of about one, 0.7 to 1.2.

    Newton and Schulz's iteration with the published quintic polynomial, which is steep near zero.
    """
    tall = len(matrix) > matrix.shape[1]
    current = (matrix.T if tall else matrix).bfloat16()
    current = current / current.norm().clamp_min(1e-7)
    for _ in range(iterations):
        square = current @ current.T
        current = 3.4445 * current + (-4.7750 * square + 2.0315 * square @ square) @ current
    result: Tensor = current.T if tall else current
    return result


def mixes_channels(module: nn.Module, parameter: Tensor) -> bool:
    """Whether a module's parameter is a matrix that mixes channels."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
    return isinstance(module, kinds) and module.groups == 1 and parameter is module.weight
