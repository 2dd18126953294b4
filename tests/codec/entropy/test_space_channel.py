import pytest
import torch
from torch import Tensor

from codec.entropy.space_channel import SpaceChannelModel, stage_map


def test_two_stages_are_the_checkerboard_and_four_the_corners_of_cells() -> None:
    assert stage_map(2, 4, 2).tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]
    assert sorted(stage_map(2, 2, 4).flatten().tolist()) == [0, 1, 2, 3]
    first, second = ((stage_map(2, 2, 4) == stage).nonzero()[0] for stage in (0, 1))
    assert (first - second).abs().tolist() == [1, 1]  # the second stage lies across from the first


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 5, 8, 16, 64])
def test_any_number_of_stages_covers_every_position_once(stages: int) -> None:
    sizes = torch.bincount(stage_map(16, 24, stages).flatten(), minlength=stages)
    assert len(sizes) == stages
    assert sizes.max() <= 2 * sizes.min()


CASES = {
    "dkic": ((2, 2, 4, 8), (4, 4, 2, 2)),
    "elic": ((2, 2, 4, 8), (2, 2, 2, 2)),
    "channel-wise": ((4, 4, 4, 4), (1, 1, 1, 1)),
    "checkerboard": ((16,), (2,)),
    "multistage": ((16,), (4,)),
    "hyper-prior": ((16,), (1,)),
    "serial": ((16,), (16,)),
    "attention": ((4, 4, 8), (1, 1, 2)),
}


def made(case: str, guided: bool = False) -> SpaceChannelModel:
    torch.manual_seed(0)
    slices, stages = CASES[case]
    attention = 2 * (case == "attention")
    return SpaceChannelModel(6, slices, stages, (8,), (12,), 5, attention, guided).double()


GUIDED = [case for case in CASES if case != "attention"]


@pytest.mark.parametrize(("case", "guided"), [*((case, False) for case in CASES), *((case, True) for case in GUIDED)])
def test_predictions_depend_only_on_latents_decoded_before(case: str, guided: bool) -> None:
    stages = CASES[case][1]
    model = made(case, guided)
    latents = torch.randn(1, 16, 4, 4, dtype=torch.float64, requires_grad=True)
    context = torch.randn(1, 6, 4, 4, dtype=torch.float64)
    order: list[tuple[slice, Tensor]] = []
    predicted: list[Tensor] = []

    def visit(channels: slice, positions: Tensor, means: Tensor, scales: Tensor) -> Tensor:
        order.append((channels, positions))
        predicted.append(means.sum() + scales.sum())
        return latents.flatten(2)[:, channels, positions]

    decoded = model(context, visit)
    assert torch.equal(decoded, latents)
    assert len(order) == sum(stages)
    step = torch.empty(16, 16)
    for number, (channels, positions) in enumerate(order):
        step[channels, positions] = number
    for number, total in enumerate(predicted):
        if not total.requires_grad:
            assert number == 0
            continue
        (gradient,) = torch.autograd.grad(total, latents, retain_graph=True, allow_unused=True)
        seen = torch.zeros(16, 16, dtype=torch.bool) if gradient is None else gradient.flatten(2)[0] != 0
        assert not seen[step >= number].any()
        assert number == 0 or seen[step < number].any()


@pytest.mark.parametrize("guided", [False, True])
def test_contexts_of_decoded_latents_see_the_global_context_where_they_should(guided: bool) -> None:
    model = made("dkic", guided)
    for name, parameter in model.named_parameters():
        if name.startswith("parameter_networks.") and name.endswith(".0.weight"):
            with torch.no_grad():
                parameter[:, :6] = 0  # the way that the global context takes in any case
    context = torch.randn(1, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    latents = torch.randn(1, 16, 16, dtype=torch.float64)
    predicted: list[Tensor] = []

    def visit(channels: slice, positions: Tensor, means: Tensor, scales: Tensor) -> Tensor:
        predicted.append(means.sum())
        return latents[:, channels, positions]

    model(context, visit)
    (gradient,) = torch.autograd.grad(predicted[-1], context, allow_unused=True, materialize_grads=True)
    assert bool(gradient.any()) == guided


def test_special_cases_have_only_the_networks_they_need() -> None:
    charm = SpaceChannelModel(6, (4, 4), (1, 1), (8,), (12,))
    assert not any(len(contexts) for contexts in charm.spatial_contexts)  # type: ignore[arg-type]
    checkerboard = SpaceChannelModel(6, (8,), (2,), (8,), (12,))
    assert not any(isinstance(module, torch.nn.Sequential) for module in checkerboard.channel_contexts)


def test_slices_without_stages_are_refused() -> None:
    with pytest.raises(ValueError, match="Each slice"):
        SpaceChannelModel(6, (4, 4), (1,), (8,), (12,))
