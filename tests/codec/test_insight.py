import dataclasses

import pytest
import torch
from torch import Tensor, nn

from codec.dkic import DKICConfig
from codec.insight import (
    Sampling,
    attribution,
    diffusion_index,
    sampling_locations,
    slice_magnitudes,
    spatial_correlation,
)
from codec.layers.dynamic_kernel import LiteDCN
from codec.network import CompressionNetwork
from tests.codec.networks import TINY, network


def grid(sampling: Sampling) -> Tensor:
    """The pixels, x before y, that the output's positions lie on: (2, h, w)."""
    height, width = sampling.positions.shape[3:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return sampling.stride * torch.stack([columns, rows])


def test_untrained_kernels_sample_the_regular_neighbourhood() -> None:
    found = sampling_locations(CompressionNetwork(TINY).eval(), torch.rand(1, 3, 40, 64))
    assert {name: (s.stride, tuple(s.positions.shape)) for name, s in found.items()} == {
        "analysis.3.0.aggregation": (4, (1, 9, 2, 12, 16)),
        "analysis.5.0.aggregation": (8, (2, 9, 2, 6, 8)),
        "synthesis.groups.0.0.aggregation": (8, (2, 9, 2, 6, 8)),
        "synthesis.groups.1.0.aggregation": (4, (1, 9, 2, 12, 16)),
    }
    for sampling in found.values():
        distances = (sampling.positions - grid(sampling)) / sampling.stride
        for k, (dx, dy) in enumerate((dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
            assert torch.equal(distances[:, k, 0], torch.full_like(distances[:, k, 0], dx))
            assert torch.equal(distances[:, k, 1], torch.full_like(distances[:, k, 1], dy))
        torch.testing.assert_close(sampling.weights, torch.full_like(sampling.weights, 1 / 9))


def test_the_layers_output_is_the_weighted_sum_of_samples_at_these_locations() -> None:
    made = network()
    layer = made.get_submodule("analysis.5.0.aggregation")
    assert isinstance(layer, LiteDCN)
    seen: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    sampling = sampling_locations(made, torch.rand(1, 3, 80, 96))["analysis.5.0.aggregation"]
    hook.remove()
    features, out = seen[0]
    values = layer.value(features)[0].unflatten(0, (layer.groups, -1))
    size = torch.tensor([features.shape[3], features.shape[2]])
    where = (2 * sampling.positions / sampling.stride + 1).movedim(2, -1) / size - 1  # as grid_sample counts
    expected = torch.zeros_like(values)
    for k in range(layer.positions):
        samples = nn.functional.grid_sample(values, where[:, k], align_corners=False)
        expected += samples * sampling.weights[:, None, k]
    torch.testing.assert_close(layer.output(expected.flatten(0, 1)[None]), out, rtol=1e-4, atol=1e-5)
    bent = sampling.positions - grid(sampling)
    assert bent.abs().max() > 8  # so that the comparison means something


def test_a_network_without_dynamic_kernels_has_no_locations() -> None:
    made = CompressionNetwork(dataclasses.replace(TINY, aggregation="convolution")).eval()
    assert sampling_locations(made, torch.rand(1, 3, 32, 32)) == {}


def test_magnitudes_are_means_over_each_slice() -> None:
    latents = torch.tensor([1.0, -3.0, 0.5, 0.5, -2.0]).view(1, 5, 1, 1) * torch.ones(1, 1, 2, 3)
    found = slice_magnitudes(latents, (2, 3))
    assert found.shape == (1, 2, 2, 3)
    assert torch.equal(found[0, :, 1, 2], torch.tensor([2.0, 1.0]))


def test_correlation_of_latents_with_a_known_one() -> None:
    torch.manual_seed(0)
    noise = torch.randn(2, 6, 120, 121)
    across = (noise[..., 1:] + noise[..., :-1]) / 2**0.5  # neighbours in a row share half of their energy
    shifted = torch.cat([across[:, :3], noise[:, 3:, :, :120]], 1)
    found = spatial_correlation(shifted + 7, (3, 3), reach=2)  # a constant adds nothing
    expected = torch.zeros(2, 5, 5)
    expected[:, 2, 2] = 1
    expected[0, 2, 1] = expected[0, 2, 3] = 0.5
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


def test_correlation_points_down_and_right() -> None:
    """Each row is the row above, moved by one to the right."""
    torch.manual_seed(0)
    row = torch.randn(60)
    latents = torch.stack([row.roll(i) for i in range(40)])[None, None, :, 20:55]
    found = spatial_correlation(latents, (1,), reach=1)[0]
    assert found[2, 2] == pytest.approx(1)
    assert found[0, 0] == pytest.approx(1)
    assert found[0, 2].abs() < 0.5


def test_correlation_of_a_constant_slice_is_not_a_number() -> None:
    assert spatial_correlation(torch.ones(1, 2, 6, 6), (2,)).isnan().all()


def convolutions(layers: int) -> nn.Sequential:
    torch.manual_seed(0)
    stack: list[nn.Module] = []
    for _ in range(layers):
        stack += [nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()]
    return nn.Sequential(*stack).requires_grad_(False)


def test_nothing_outside_the_receptive_field_counts() -> None:
    image = torch.rand(1, 3, 40, 48)
    found = attribution(convolutions(3), image, slice(20, 24), slice(10, 15), steps=4).abs().sum(0)
    inside = found[20 - 3 : 24 + 3, 10 - 3 : 15 + 3]
    assert all(border.any() for border in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
    inside.zero_()
    assert not found.any()


def test_attributions_add_up_to_the_detail_that_is_gained() -> None:
    """Integrated gradients are complete (Sundararajan et al. 2017)."""
    rows, columns = slice(8, 20), slice(8, 20)
    image = torch.rand(1, 3, 28, 28)

    def detail(images: Tensor) -> float:
        part = images[:, :, rows, columns]
        across, down = part.diff(dim=3)[:, :, :-1], part.diff(dim=2)[..., :-1]
        return float((across.square() + down.square()).sqrt().sum())

    stack = convolutions(2)
    total = float(attribution(stack, image, rows, columns, sigma=6, steps=50).sum())
    mean = image.mean((2, 3), keepdim=True).expand_as(image)  # what so wide a blur comes near to
    assert total == pytest.approx(detail(stack(image)) - detail(stack(mean)), rel=0.1)
    assert total == pytest.approx(float(attribution(stack, image, rows, columns, sigma=6, steps=200).sum()), rel=0.02)


def test_attribution_goes_through_a_codecs_transforms() -> None:
    made = network(DKICConfig(**{**dataclasses.asdict(TINY), "levels": 1}))

    def transforms(image: Tensor) -> Tensor:
        return made.reconstruct(made.latents(image)[0], torch.zeros(1, dtype=torch.int64), *image.shape[2:])

    found = attribution(transforms, torch.rand(1, 3, 64, 64), slice(28, 36), slice(28, 36), steps=2)
    assert found.shape == (3, 64, 64)
    assert found[:, 28:36, 28:36].abs().sum() > 0


def test_the_diffusion_index_of_known_spreads() -> None:
    assert diffusion_index(torch.ones(3, 10, 10)) == pytest.approx(100)
    one = torch.zeros(1, 10, 10)
    one[0, 4, 5] = -3
    assert diffusion_index(one) == pytest.approx(1)
    half = torch.zeros(1, 10, 10)
    half[0, :5] = 2
    assert diffusion_index(half) == pytest.approx(50)
