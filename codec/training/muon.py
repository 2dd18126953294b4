"""Muon: gradient descent by orthogonal steps, for the weights of convolutions (Jordan et al. 2024)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Steps whose singular values are all about 1, with Nesterov's momentum.

    A weight (out, in, h, w) is treated as a matrix with ``out`` rows. Steps are scaled to the size of Adam's (Liu et
    al. 2025, section 2.2), so that both use the same learning rate.

    Like torch's Adam, it skips a step if its attribute ``found_inf`` is a tensor of 1.

    Args:
        params: of at least two dimensions each.
        lr: learning rate, as Adam's.
        momentum: the share of the running mean of gradients that remains at each step.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update each parameter that has a gradient; those of equal shape together."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.flatten(1).shape, []).append(parameter)
            for parameters in alike.values():
                self._move(parameters, group["lr"], group["momentum"])

    def _move(self, parameters: list[nn.Parameter], rate: float | Tensor, momentum: float) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["mean"] = torch.zeros_like(parameter)
        kept = [self.state[parameter]["mean"] for parameter in parameters]
        gradients, means = torch.stack([_gradient(p) for p in parameters]), torch.stack([m.flatten(1) for m in kept])
        if self.found_inf is not None:
            gradients = gradients.where(self.found_inf == 0, means)
        means.lerp_(gradients, 1 - momentum)
        steps = orthogonal(gradients.lerp_(means, momentum)).float()
        if self.found_inf is not None:
            steps *= 1 - self.found_inf
        size = 0.2 * max(steps.shape[1:]) ** 0.5
        torch._foreach_copy_(kept, [m.view(p.shape) for m, p in zip(means, parameters, strict=True)])
        steps *= -size * rate
        moved: list[Tensor] = [parameter.detach() for parameter in parameters]
        torch._foreach_add_(moved, [s.reshape(p.shape) for s, p in zip(steps, parameters, strict=True)])


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.flatten(1)


def orthogonal(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Matrices with the singular vectors of the given ones, (N, R, C), and singular values of about 1 (0.7 to 1.2).

    Newton and Schulz's iteration with the published quintic polynomial, which is steep near zero.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    current = (matrices.mT if tall else matrices).bfloat16()
    current = current / current.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(iterations):
        square = current @ current.mT
        factor = torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315)
        current = torch.baddbmm(current, factor, current, beta=3.4445)
    return current.mT if tall else current


def mixes_channels(module: nn.Module, parameter: Tensor) -> bool:
    """Whether a module's parameter is a matrix that mixes channels."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
    return isinstance(module, kinds) and module.groups == 1 and parameter is module.weight
