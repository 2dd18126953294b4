"""The terms of the training loss (PO-DKIC, section 2.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from codec.network import Likelihoods


def bits_per_pixel(likelihoods: Likelihoods, pixels: int) -> Tensor:
    """Estimated rate of each sample, (B,), from likelihoods whose first dimension is the batch."""
    return sum(-part.float().log2().flatten(1).sum(1) for part in likelihoods) / pixels  # type: ignore[return-value]


class RatePrice(nn.Module):
    """The two-valued price of rate (equation 2): high while a level's rate is at its target or above.

    The paper compares one model's rate with its target; here each level keeps a running mean of its own.

    Args:
        targets: bits per pixel of each level.
        above: price while the rate is at least the target.
        below: price under it.
        memory: what the running mean keeps of its past at each sample.
    """

    def __init__(
        self, targets: tuple[float, ...], above: tuple[float, ...], below: tuple[float, ...], memory: float
    ) -> None:
        super().__init__()
        for name, values in (("targets", targets), ("above", above), ("below", below), ("rates", targets)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).clone())
        self.targets: Tensor
        self.above: Tensor
        self.below: Tensor
        self.rates: Tensor
        self.memory = memory

    def observe(self, level: Tensor, rates: Tensor) -> None:
        """Let the rates (B,) of samples at levels (B,) enter their levels' means."""
        for index, rate in zip(level.tolist(), rates, strict=True):
            if torch.isfinite(rate):
                self.rates[index] = self.memory * self.rates[index] + (1 - self.memory) * rate

    def forward(self, level: Tensor) -> Tensor:
        """The price for each sample (B,) of levels (B,)."""
        return torch.where(self.rates >= self.targets, self.above, self.below)[level]


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic average loss of the discriminator, from its outputs for patches before the sigmoid.

    Equation 4 as printed subtracts the mean output from the image, inside of the network; as in the ESRGAN paper that
    it cites, the mean of the other kind's outputs is subtracted from the output.
    """
    return _relativistic(real, fake) + _relativistic(-fake, -real)


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic average loss of the generator: the discriminator's with the kinds exchanged.

    Equation 5 prints ``1 - log D`` in its first term; the known form, used here, is ``log(1 - D)``.
    """
    return _relativistic(fake, real) + _relativistic(-real, -fake)


def _relativistic(higher: Tensor, lower: Tensor) -> Tensor:
    """-E[log sigmoid(higher - E[lower])]."""
    return functional.softplus(lower.mean() - higher).mean()
