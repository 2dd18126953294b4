import pytest
import torch
from torch import Tensor
from torch.nn import functional

from codec.layers.large_kernel import (
    Gate,
    SelfConditionedChannel,
    SelfConditionedSpatial,
    TransformBlock,
    depthwise,
)


def unfolded(features: Tensor, weights: Tensor) -> Tensor:
    """Every neighbourhood copied, then weighed."""
    batch, channels, height, width = features.shape
    side = weights.shape[-1]
    copies = functional.unfold(features, side, padding=side // 2).view(batch, channels, side * side, -1)
    return (copies * weights.flatten(2)[..., None]).sum(2).view(batch, channels, height, width)


@pytest.mark.parametrize("side", [1, 9, 11])
def test_every_image_has_its_own_kernels(side: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 7, 12, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, side, side, dtype=torch.float64, requires_grad=True)
    found, expected = depthwise(features, weights), unfolded(features, weights)
    torch.testing.assert_close(found, expected)
    for one in (features, weights):
        gradients = (torch.autograd.grad(out.square().sum(), one, retain_graph=True)[0] for out in (found, expected))
        torch.testing.assert_close(*gradients)


def test_the_kernels_follow_from_the_image() -> None:
    torch.manual_seed(0)
    layer = SelfConditionedSpatial(8, 5, 4)
    delta = torch.zeros(1, 8, 9, 9)
    delta[..., 4, 4] = 1

    def response(image: Tensor) -> Tensor:
        return depthwise(delta, layer.learned + layer.generated(image))

    dark, bright = torch.zeros(1, 8, 16, 16), torch.ones(1, 8, 16, 16)
    assert not torch.allclose(response(dark), response(bright))
    torch.testing.assert_close(response(dark), response(torch.zeros(1, 8, 30, 20)))


def test_importance_of_channels_lies_between_none_and_all() -> None:
    torch.manual_seed(0)
    features = torch.rand(2, 8, 5, 6) + 0.1
    ratio = SelfConditionedChannel(8, 4)(features) / features
    assert 0 < ratio.min() < ratio.max() < 1
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))  # the same everywhere
    assert not torch.allclose(ratio[0], ratio[1])


def test_blocks_begin_near_the_identity() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 16, 12, 12)
    for block in (Gate(16, 1.0), TransformBlock(16, SelfConditionedSpatial(16, 9, 4), 1.0)):
        change = (block(features) - features).std()
        assert 0 < change < 0.5
