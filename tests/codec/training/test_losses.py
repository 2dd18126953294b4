import math

import pytest
import torch
from pytorch_msssim import ssim
from torch import nn

from codec.network import Likelihoods
from codec.training.discriminator import Discriminator
from codec.training.losses import (
    RandomViews,
    RatePrice,
    StructuralLoss,
    bits_per_pixel,
    discriminator_loss,
    generator_loss,
)


def test_bits_are_minus_binary_logarithms_a_pixel() -> None:
    likelihoods = Likelihoods(y=torch.tensor([[0.5, 0.25], [1.0, 0.125]]), z=torch.tensor([[[0.5]], [[1.0]]]))
    assert bits_per_pixel(likelihoods, 4).tolist() == [1.0, 0.75]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_relativistic_average_losses_by_hand() -> None:
    real, fake = [2.0, 0.5], [-1.0, 0.25]
    mean_real, mean_fake = sum(real) / 2, sum(fake) / 2
    looks_real = [sigmoid(x - mean_fake) for x in real]
    looks_fake = [sigmoid(x - mean_real) for x in fake]
    wanted = -sum(map(math.log, looks_real)) / 2 - sum(math.log(1 - x) for x in looks_fake) / 2
    patches = torch.tensor(real).view(1, 1, 1, 2), torch.tensor(fake).view(1, 1, 1, 2)
    assert float(discriminator_loss(*patches)) == pytest.approx(wanted, rel=1e-5)
    wanted = -sum(math.log(1 - x) for x in looks_real) / 2 - sum(map(math.log, looks_fake)) / 2
    assert generator_loss(*patches).tolist() == pytest.approx([wanted], rel=1e-5)


def test_the_two_sides_pull_in_opposite_directions() -> None:
    real, fake = (torch.zeros(2, 1, 1, 2, requires_grad=True) for _ in range(2))
    by_discriminator = torch.autograd.grad(discriminator_loss(real, fake), [real, fake])
    by_generator = torch.autograd.grad(generator_loss(real, fake).mean(), [real, fake])
    assert (by_discriminator[0] < 0).all()  # a step against the gradient raises what real patches get
    assert (by_discriminator[1] > 0).all()
    assert (by_generator[0] > 0).all()
    assert (by_generator[1] < 0).all()


def test_the_price_turns_at_the_target() -> None:
    price = RatePrice(targets=(0.1, 0.5), above=(2.0, 1.0), below=(0.2, 0.1), memory=0.5)
    level = torch.tensor([0, 1])
    price.observe(level, torch.tensor([0.2, 0.3]))
    assert price.rates.tolist() == pytest.approx([0.15, 0.4])
    assert price(level).tolist() == pytest.approx([2.0, 0.1])
    price.observe(level, torch.tensor([0.0, 0.6]))
    assert price(level).tolist() == pytest.approx([0.2, 1.0])
    price.observe(level, torch.tensor([torch.nan, torch.inf]))  # of a step that is left out
    assert price.rates.tolist() == pytest.approx([0.075, 0.5])


def test_the_discriminator_sees_the_image_and_its_latents() -> None:
    torch.manual_seed(0)
    judge = Discriminator(8, (8, 16, 16)).eval()
    image, latents = torch.rand(1, 3, 64, 64), torch.randn(1, 8, 4, 4)
    outputs = judge(image, latents)
    assert outputs.shape[:2] == (1, 1)
    assert outputs.shape[2] > 4  # patches, not images
    assert not torch.equal(outputs, judge(image, -latents))
    assert not torch.equal(outputs, judge(1 - image, latents))


@pytest.mark.parametrize("side", [16, 64, 200])
def test_structural_loss_is_the_packages_ssim_and_grows_with_noise(side: int) -> None:
    torch.manual_seed(0)
    image = nn.functional.avg_pool2d(torch.rand(2, 3, side, side), 5, 1, 2)
    loss = StructuralLoss()
    assert loss(2 * image - 1, 2 * image - 1).abs().max() < 1e-6
    little, much = (image + size * torch.randn_like(image) for size in (0.02, 0.1))
    near, far = (loss(2 * one - 1, 2 * image - 1) for one in (little, much))
    assert near.shape == (2,)
    assert (far > near).all()
    if side == 16:  # one scale
        expected = 1 - ssim(much, image, data_range=1.0, size_average=False)
        torch.testing.assert_close(far, expected)
    with torch.autocast("cpu", torch.bfloat16):  # keeps float32 where mixed precision is on
        torch.testing.assert_close(loss(2 * much - 1, 2 * image - 1), far)


def test_random_views_show_both_images_alike_and_keep_half_of_the_views_exact() -> None:
    class Seen(nn.Module):
        def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            self.one = one
            return (one - other).abs().amax((1, 2, 3))

    torch.manual_seed(0)
    side = 48
    row = torch.arange(side * side, dtype=torch.float32).view(1, side, side) / side**2
    image = torch.cat([row, row.mT, -row]).expand(200, 3, side, side)
    seen = Seen()
    with torch.autocast("cpu", torch.bfloat16):  # positions stay exact in mixed precision
        assert RandomViews(seen)(image, image).max() == 0
    values = set((row.flatten() * side**2).round().int().tolist())
    steps = seen.one[:, 0] * side**2
    exact = [bool((step - step.round()).abs().max() < 0.01) for step in steps]
    assert 60 < sum(exact) < 140
    assert {
        int(value) for step, kept in zip(steps, exact, strict=True) if kept for value in step.round().flatten()
    } <= values
    directions = {
        (bool(step[0, 0] < step[0, 1]), bool(step[0, 0] < step[1, 0]), bool((step[0, 0] - step[0, 1]).abs() > 10))
        for step in seen.one[:, 0, 20:22, 20:22] * side**2
    }
    assert len(directions) == 8  # mirrored and turned
