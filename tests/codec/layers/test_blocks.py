import pytest
import torch

from codec.layers.blocks import DynamicResidualBlock, ResidualBottleneck
from codec.layers.norm import ChannelNorm
from codec.tensors import edge_pad

PLACES = {"none": 0, "before": 2, "after": 2, "after-kernel": 1, "after-mlp": 1}


@pytest.mark.parametrize("norm", PLACES)
def test_every_placement_of_the_norm_is_a_setting(norm) -> None:  # type: ignore[no-untyped-def]
    block = DynamicResidualBlock(16, 2, norm=norm, offset_norm=False)  # whose own norms are not counted
    assert sum(isinstance(module, ChannelNorm) for module in block.modules()) == PLACES[norm]
    assert block(torch.randn(1, 16, 5, 6)).shape == (1, 16, 5, 6)


def test_post_norm_closes_both_branches() -> None:
    block = DynamicResidualBlock(16, 2, norm="after")
    for module in block.modules():
        if isinstance(module, ChannelNorm):
            torch.nn.init.zeros_(module.weight)
    features = torch.randn(1, 16, 5, 6)
    assert torch.equal(block(features), features)  # only the shortcuts are left


def test_channel_norm_sees_one_position_at_a_time() -> None:
    features = torch.randn(2, 16, 3, 4) * 5 + 3
    out = ChannelNorm(16)(features)
    torch.testing.assert_close(out.mean(1), torch.zeros(2, 3, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(1, correction=0), torch.ones(2, 3, 4), atol=1e-3, rtol=0)


def test_bottleneck_keeps_the_shape() -> None:
    assert ResidualBottleneck(16)(torch.randn(1, 16, 5, 6)).shape == (1, 16, 5, 6)


def test_padding_repeats_the_edge() -> None:
    padded = edge_pad(torch.arange(6.0).view(1, 1, 2, 3), 4)
    assert padded.shape == (1, 1, 4, 4)
    assert padded[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
