import pytest
import torch
from torch import Tensor

from codec.entropy.channel_wise import ChannelWiseModel


def made(support: int = 0, attention: int = 0) -> ChannelWiseModel:
    torch.manual_seed(0)
    return ChannelWiseModel(6, (4, 4, 4, 4), (8,), 3, support, attention, residual=True).double()


@pytest.mark.parametrize(("support", "attention"), [(0, 0), (2, 0), (2, 2)])
def test_each_slice_sees_its_support_and_its_half_of_the_context(support: int, attention: int) -> None:
    model = made(support, attention)
    latents = torch.randn(1, 16, 4, 4, dtype=torch.float64, requires_grad=True)
    context = torch.randn(1, 6, 4, 4, dtype=torch.float64, requires_grad=True)
    predicted: list[tuple[Tensor, Tensor]] = []
    residuals: list[Tensor] = []

    def visit(channels: slice, positions: Tensor, means: Tensor, scales: Tensor) -> Tensor:
        predicted.append((means.sum(), scales.sum()))
        return latents.flatten(2)[:, channels, positions]

    def refine(channels: slice, decoded: Tensor, lost: Tensor) -> Tensor:
        residuals.append(lost.sum())
        return decoded

    assert torch.equal(model(context, visit, refine), latents)

    def seen(value: Tensor, of: Tensor) -> list[bool]:
        (gradient,) = torch.autograd.grad(value, of, retain_graph=True, allow_unused=True, materialize_grads=True)
        return [bool(part.any()) for part in torch.split(gradient, 4 if of is latents else 3, 1)]

    for i, (mean, scale) in enumerate(predicted):
        before = [j < min(i, support or 4) for j in range(4)]
        assert seen(mean, latents) == seen(scale, latents) == before
        assert (seen(mean, context), seen(scale, context)) == ([True, False], [False, True])
        assert seen(residuals[i], latents) == [one or j == i for j, one in enumerate(before)]
        assert seen(residuals[i], context) == [True, False]


def test_later_slices_see_refined_latents_and_residuals_are_half_a_step_at_most() -> None:
    model = made()
    for network in model.residual_networks:
        torch.nn.init.constant_(network[-1].bias, 100.0)  # type: ignore[index]
    means_of: list[list[Tensor]] = []
    for refined in (True, False):
        means: list[Tensor] = []

        def visit(
            channels: slice, positions: Tensor, mean: Tensor, scales: Tensor, means: list[Tensor] = means
        ) -> Tensor:
            means.append(mean)
            return torch.zeros_like(mean)

        def refine(channels: slice, decoded: Tensor, lost: Tensor, refined: bool = refined) -> Tensor:
            assert torch.allclose(lost, torch.full_like(lost, 0.5))
            return decoded + lost if refined else decoded

        out = model(torch.zeros(1, 6, 4, 4, dtype=torch.float64), visit, refine)
        assert torch.allclose(out, torch.full_like(out, 0.5 if refined else 0.0))
        means_of.append(means)
    assert torch.equal(means_of[0][0], means_of[1][0])
    assert not torch.allclose(means_of[0][1], means_of[1][1])


def test_an_invalid_model_is_refused() -> None:
    for context, slices in ((6, ()), (6, (4, 0)), (5, (4, 4))):
        with pytest.raises(ValueError, match="at least one channel"):
            ChannelWiseModel(context, slices, (8,))
