import pytest
import torch
from torch import nn

from codec.training.muon import Muon, mixes_channels, orthogonal


@pytest.mark.parametrize("shape", [(24, 100), (100, 24), (32, 32)])
def test_steps_turn_like_the_gradient_with_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    left, values, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    gradient = left @ torch.diag(torch.linspace(1, 0.1, len(values))) @ right
    step = orthogonal(gradient[None])[0].float()
    assert step.shape == shape
    assert torch.linalg.svdvals(step) == pytest.approx(torch.ones(len(values)), abs=0.4)
    inner = torch.diag(left.T @ step @ right.T)
    assert (inner > 0.6).all()


def test_its_steps_are_as_large_as_adams() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(64, 32, 3, 3))
    weight.grad = torch.randn_like(weight)
    before = weight.detach().clone()
    Muon([weight], lr=1e-2).step()
    size = float((weight.detach() - before).square().mean().sqrt())
    assert size == pytest.approx(0.2e-2, rel=0.3)  # a fifth of the rate, Adam's usual step


def test_it_is_for_matrices_that_mix_channels() -> None:
    mixing, depthwise, norm = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 4, 3, groups=4), nn.LayerNorm(4)
    assert mixes_channels(mixing, mixing.weight)
    assert mixing.bias is not None
    assert not mixes_channels(mixing, mixing.bias)
    assert not mixes_channels(depthwise, depthwise.weight)
    assert not mixes_channels(norm, norm.weight)
