import dataclasses
from typing import Any

import pytest
import torch

from codec.dkic import REFERENCE, DKICConfig
from codec.layers.dynamic_kernel import LiteDCN
from codec.network import CompressionNetwork, count_parameters
from tests.codec.networks import TINY, network

EVEN = ((4,) * 8, (1,) * 8)
ABLATIONS: dict[str, dict[str, Any]] = {  # the rows of DKIC's tables 2, 3 and 4
    "rbb for drb": {"block": "rbb"},
    "convolution for ldcn": {"aggregation": "convolution"},
    "1x1": {"kernel": 1},
    "3x3": {"kernel": 3},
    "5x5": {"kernel": 5},
    "[1, 1, 1, 1]": {"stages": (1, 1, 1, 1)},
    "[2, 2, 2, 2]": {"stages": (2, 2, 2, 2)},
    "[4, 2, 2, 2]": {"stages": (4, 2, 2, 2)},
    "[4, 4, 4, 4]": {"stages": (4, 4, 4, 4)},
    "no slicing, 2 stages": {"slices": (32,), "stages": (2,)},
    "no slicing, 4 stages": {"slices": (32,), "stages": (4,)},
    "even slices": {"slices": EVEN[0], "stages": EVEN[1]},
    "even slices, 2 stages": {"slices": EVEN[0], "stages": (2,) * 8},
    "even slices, 4 stages": {"slices": EVEN[0], "stages": (4,) * 8},
    "no norm": {"norm": "none"},
    "pre-norm": {"norm": "before"},
    "norm behind ldcn": {"norm": "after-kernel"},
    "norm behind mlp": {"norm": "after-mlp"},
    "offsets from the depth-wise convolution alone": {"offset_norm": False},
    "contexts without the global one": {"contexts_see_global": False},
}


def test_the_reference_has_the_papers_parameters() -> None:
    with torch.device("meta"):
        parameters = count_parameters([CompressionNetwork(REFERENCE)])
    assert REFERENCE.channels == (192, 192, 192)
    assert REFERENCE.latent == 320
    assert parameters == pytest.approx(53.3e6, rel=0.03)


@pytest.mark.parametrize("row", ABLATIONS)
def test_every_ablation_is_a_configuration(row: str) -> None:
    model = CompressionNetwork(dataclasses.replace(TINY, **ABLATIONS[row]))
    output = model.eval()(torch.rand(1, 3, 20, 33))
    assert output.x_hat.shape == (1, 3, 20, 33)
    assert output.likelihoods.y.numel() == 32 * 2 * 3
    dynamic = any(isinstance(module, LiteDCN) for module in model.modules())
    assert dynamic == (row not in ("rbb for drb", "convolution for ldcn"))


def test_ten_even_slices_are_a_configuration_of_the_reference() -> None:
    config = dataclasses.replace(REFERENCE, slices=(32,) * 10, stages=(1,) * 10)
    assert sum(config.slices) == config.latent


def test_training_reaches_every_parameter() -> None:
    model = network().train().requires_grad_(True)
    output = model(torch.rand(2, 3, 64, 64), torch.tensor([0, 2]))
    rate = sum(-part.log2().sum() for part in output.likelihoods)
    (output.x_hat.square().sum() + rate).backward()
    untouched = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or not torch.isfinite(p.grad).all() or not p.grad.any()
    ]
    assert untouched == []


def test_training_counts_the_bits_that_would_be_coded() -> None:
    """Beside the differentiable stand-in, which is noisy and higher where latents are nearly always zero."""
    model, image, level = network(), torch.rand(2, 3, 64, 64), torch.tensor([0, 2])
    coded = model.eval()(image, level).likelihoods
    output = model.train()(image, level)
    for one, other in zip(coded, output.rounded, strict=True):
        assert torch.allclose(one, other)
    assert not torch.allclose(output.likelihoods.y, output.rounded.y)


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    model = CompressionNetwork(TINY).train()
    model.priors.gains.log.data += 2
    image = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4), size=64, mode="bilinear")
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    losses = []
    for _ in range(30):
        output = model(image)
        rate = sum(-part.log2().sum() for part in output.likelihoods) / image[:, 0].numel()
        loss = 100 * (output.x_hat - image).square().mean() + 0.1 * rate
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_levels_differ_by_their_gains_in_rate() -> None:
    model = network()
    image = torch.rand(1, 3, 64, 64)
    rates = [
        float(sum(-part.log2().sum() for part in model(image, torch.tensor([level])).likelihoods))
        for level in range(3)
    ]
    assert rates[0] < rates[1] < rates[2]


def test_levels_may_be_mixed_in_a_batch() -> None:
    model = network()
    image = torch.rand(2, 3, 48, 32)
    both = model(image, torch.tensor([0, 2])).x_hat
    each = torch.cat([model(image[i : i + 1], torch.tensor([level])).x_hat for i, level in enumerate((0, 2))])
    torch.testing.assert_close(both, each, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {"slices": (4, 4)},
        {"block": "mlp"},
        {"norm": "between"},
        {"channels": (16, 16, 40)},
        {"channels": (16, 16, -32)},
        {"group_channels": 0},
        {"blocks": (1, 1)},
        {"hyper": "16"},
        {"context_kernel": 2},
        {"stages": (1,)},
        {"colour": 1},
        {"offset_norm": 1},
        {"contexts_see_global": "yes"},
    ],
)
def test_configurations_that_make_no_network_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        DKICConfig.from_dict({**dataclasses.asdict(TINY), **fields})
