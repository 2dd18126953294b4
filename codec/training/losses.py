"""The terms of the training loss (PO-DKIC, section 2.2)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from codec.network import Likelihoods

_SHIFT = 8
"""The largest shift of a random view, in pixels."""
_ZOOM = (0.7, 1.6)
"""The smallest and largest scale of a random view."""


def bits_per_pixel(likelihoods: Likelihoods, pixels: int) -> Tensor:
    """Estimated rate of each sample, (B,), from likelihoods whose first dimension is the batch."""
    return sum(-part.float().log2().flatten(1).sum(1) for part in likelihoods) / pixels  # type: ignore[return-value]


class PerceptualLoss(nn.Module):
    """A weighted sum of perceptual distances.

    Args:
        nets: the nets by the names of their metrics; each maps two batches (B, 3, H, W), -1 to 1, to B distances.
        weights: the weight of each net.
        sha256: the hashes of the nets' own weights, for the run's notes.
    """

    def __init__(
        self, nets: Mapping[str, nn.Module], weights: Mapping[str, float], sha256: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets.values())
        self.weights = [weights[name] for name in nets]
        self.notes = {
            name: {"weight": weights[name]} | ({"sha256": sha256[name]} if name in sha256 else {}) for name in nets
        }
        """The metrics in the training loss, and their weights."""

    def forward(self, one: Tensor, other: Tensor, *, views: bool = True) -> Tensor:
        """The sum for each sample, (B,); without ``views``, nets see the images as they are."""
        total = one.new_zeros(len(one), dtype=torch.float32)
        for net, weight in zip(self.nets, self.weights, strict=True):
            compare = net.net if isinstance(net, RandomViews) and not views else net
            total = total + weight * compare(one, other).float().flatten()
        return total


class RandomViews(nn.Module):
    """A distance of two images that are seen through the same random view, with a new view for each pair.

    A view is mirrored, turned by quarters and shifted by whole pixels; half of the views are also scaled. A codec can
    exploit the positions, directions and scale at which a net samples an image; such a codec's values are worse for
    shifted images, and by other metrics. Random transforms prevent that (E-LPIPS, Kettunen et al. 2019).

    Args:
        net: maps two batches (B, 3, H, W) to B distances.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """The distances of square images."""
        with torch.autocast(one.device.type, enabled=False):  # positions need float32
            grid = _random_grid(one.shape, one.device)
            one, other = (
                functional.grid_sample(image.float(), grid, padding_mode="reflection", align_corners=False)
                for image in (one, other)
            )
        return self.net(one, other)  # type: ignore[no-any-return]


def _random_grid(shape: torch.Size, device: torch.device) -> Tensor:
    """Where each pixel of random views of square images (B, C, side, side) lies: (B, side, side, 2), -1 to 1."""
    batch, side = shape[0], shape[3]
    mirrored = torch.randint(2, (batch, 2), device=device) * 2.0 - 1
    turned, scaled = torch.rand(2, batch, device=device) < 0.5
    low, high = (math.log(zoom) for zoom in _ZOOM)
    zoom = (scaled * (low + (high - low) * torch.rand(batch, device=device))).exp()
    matrix = torch.diag_embed(mirrored / zoom[:, None])
    matrix = torch.where(turned[:, None, None], matrix.flip(2), matrix)
    shift = torch.randint(-_SHIFT, _SHIFT + 1, (batch, 2, 1), device=device) * (2 / side)
    return functional.affine_grid(torch.cat([matrix, shift], 2), list(shape), align_corners=False)


class StructuralLoss(nn.Module):
    """1 - SSIM (Wang et al. 2004), the mean of up to four scales, each half as large as the one before.

    MS-SSIM's product over five scales needs larger crops. The metric ``ms-ssim`` flatters codecs trained by it.
    """

    scales = 4

    def __init__(self) -> None:
        super().__init__()
        distance = torch.arange(11) - 5.0
        window = torch.exp(-distance.square() / (2 * 1.5**2))
        self.register_buffer("window", (window / window.sum()).repeat(3, 1, 1, 1))
        self.window: Tensor

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """The distances (B,), 0 (equal) to 1, of two batches (B, 3, H, W) of at least 11 pixels per side, -1 to 1."""
        from pytorch_msssim import ssim

        values: list[Tensor] = []
        with torch.autocast(one.device.type, enabled=False):  # variances are differences of nearly equal numbers
            one, other = one.float() / 2 + 0.5, other.float() / 2 + 0.5  # the ratio of means is defined for 0 to 1
            while len(values) < self.scales and min(one.shape[2:]) >= self.window.shape[-1]:
                values.append(ssim(one, other, data_range=1.0, size_average=False, win=self.window))
                one, other = functional.avg_pool2d(one, 2), functional.avg_pool2d(other, 2)
        return 1 - torch.stack(values).mean(0)


class RatePrice(nn.Module):
    """The two-valued price of rate (equation 2): high while a level's rate is at or above its target.

    The paper compares one model's rate with its target; here each level has its own running mean.

    Args:
        targets: bits per pixel of each level.
        above: the price while the rate is at least the target.
        below: the price below the target.
        memory: the factor of the running mean's past at each sample.
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
        """Update the levels' means with the rates (B,) of samples at levels (B,), one after the other."""
        finite = rates.isfinite()
        levels = torch.arange(len(self.rates), device=level.device)
        of_level = ((level[:, None] == levels) & finite[:, None]).to(rates.dtype)  # (B, levels)
        later = of_level.flip(0).cumsum(0).flip(0) - of_level
        shares = of_level * (1 - self.memory) * self.memory**later
        rates = rates.where(finite, 0)[:, None]
        self.rates.copy_(self.memory ** of_level.sum(0) * self.rates + (shares * rates).sum(0))

    def forward(self, level: Tensor) -> Tensor:
        """The price for each sample (B,) of levels (B,)."""
        return torch.where(self.rates >= self.targets, self.above, self.below)[level]


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic average loss of the discriminator, from its outputs for patches (B, 1, h, w) before the sigmoid.

    Equation 4 as printed subtracts the mean output from the image, inside the network. As in the ESRGAN paper, which
    it cites, this function subtracts the mean output for the other kind from the output.
    """
    return (_relativistic(real, fake) + _relativistic(-fake, -real)).mean()


def generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic average loss of the generator for each sample, (B,): the discriminator's with the kinds exchanged.

    Equation 5 has ``1 - log D`` in its first term; the known form, used here, is ``log(1 - D)``.
    """
    return _relativistic(fake, real) + _relativistic(-real, -fake)


def _relativistic(higher: Tensor, lower: Tensor) -> Tensor:
    """-E[log sigmoid(higher - E[lower])] over the patches of each sample."""
    return functional.softplus(lower.mean() - higher).flatten(1).mean(1)
