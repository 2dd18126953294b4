"""LLIC in the bank: three entropy models, one kind of bitstream."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from codec import RGBImage, get_codec
from codec.bank import Bank
from codec.bank_builder import check_bank, create_bank, untrained_network
from codec.configurations import CONFIGURATIONS
from codec.entropy import exact
from codec.entropy.channel_wise import ChannelWiseModel
from codec.entropy.exact import GRID
from codec.families import from_json, to_json
from codec.layers.attention import GatedAttention
from codec.layers.large_kernel import SelfConditionedChannel, SelfConditionedSpatial
from codec.learned import LearnedCodec
from codec.llic import Group, LLICConfig
from codec.network import CompressionNetwork, count_parameters
from codec.tensors import to_tensor
from tests.codec.disturbances import changed_outputs, coder, networks_of, noisy, priors, threads
from tests.codec.networks import TINY_LLIC, fit, network
from tests.helpers import run

CHANNEL_WISE = dataclasses.replace(
    TINY_LLIC, slices=(8,) * 4, stages=(1,) * 4, context_model="channel-wise", residual_prediction=True
)
ENTROPY_MODELS = {
    "stf": dataclasses.replace(CHANNEL_WISE, support_slices=2),
    "elic": TINY_LLIC,
    "tcm": dataclasses.replace(CHANNEL_WISE, slices=(16, 16), stages=(1, 1), attention=4),
    "minnen": CHANNEL_WISE,
    "stf of earlier versions": dataclasses.replace(TINY_LLIC, slices=(8,) * 4, stages=(1,) * 4, mirrored=False),
    "tcm of earlier versions": dataclasses.replace(
        TINY_LLIC, slices=(16, 16), stages=(1, 1), attention=4, mirrored=False
    ),
}


@pytest.mark.parametrize("name", ["llic-stf", "llic-elic", "llic-tcm"])
def test_the_papers_networks_are_configurations(name: str) -> None:
    config = CONFIGURATIONS[name]
    assert isinstance(config, LLICConfig)
    assert (config.channels, config.latent, config.kernels) == ((192,) * 3, 320, (11, 11, 9, 9))
    with torch.device("meta"):
        whole, small = (CompressionNetwork(CONFIGURATIONS[one]) for one in (name, f"{name}-compact"))
    down, up = (
        [[type(block.mix[2]) for block in group] for group in transform.modules() if isinstance(group, Group)]  # type: ignore[index]
        for transform in (whole.analysis, whole.synthesis)
    )
    spatial, channel = SelfConditionedSpatial, SelfConditionedChannel
    assert down == [[spatial, channel] * blocks for blocks in (1, 1, 3, 1)]
    assert up == [[channel, spatial] * blocks for blocks in (1, 3, 1, 1)]
    attention = sum(isinstance(module, GatedAttention) for module in whole.modules())
    assert attention == (10 if name == "llic-tcm" else 0)  # for each of five slices' means and scales
    assert isinstance(whole.priors.space_channel, ChannelWiseModel) == (name != "llic-elic")
    assert count_parameters([small]) < 1e7 < count_parameters([whole])


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        ({"slices": [32] * 10, "stages": [1] * 10}, 44_111_907),
        ({}, 32_771_939),
        ({"slices": [64] * 5, "stages": [1] * 5, "attention": 8}, 33_627_459),
    ],
)
def test_manifests_of_earlier_versions_mean_the_networks_of_then(fields: dict[str, object], parameters: int) -> None:
    then: dict[str, object] = {
        "family": "llic", "channels": [192, 192, 192], "latent": 320, "hyper": 192, "global_channels": 640,
        "slices": [16, 16, 32, 64, 192], "stages": [2, 2, 2, 2, 2], "channel_widths": [224, 128],
        "parameter_widths": [640, 512], "context_kernel": 5, "attention": 0, "levels": 1, "blocks": [1, 2, 3, 1],
        "kernels": [11, 11, 9, 9], "reduction": 4, "gate_ratio": 1.0,
    }  # fmt: skip
    config = from_json(then | fields)
    assert json.loads(json.dumps(to_json(config))) == then | fields  # and so does their identity
    with torch.device("meta"):
        assert count_parameters([CompressionNetwork(config)]) == parameters


def test_residuals_are_on_the_grid_and_change_what_follows(photo: RGBImage, tmp_path: Path) -> None:
    made = network(CHANNEL_WISE)
    for one in made.priors.space_channel.residual_networks:  # type: ignore[union-attr]
        torch.nn.init.normal_(one[-1].bias, std=1.0)
    codec = LearnedCodec(create_bank(tmp_path / "bank", "small", [made]))
    image = photo[:64, :64].copy()
    y, _ = made.latents(to_tensor(image))
    for level in range(3):
        gain = made.priors.gains(torch.tensor([level])).double()
        latents = codec.decode_latents(codec.encode(image, level)).view(y.shape) / GRID
        off = (latents - y * gain).abs().amax((0, 2, 3))
        assert off.max() <= 1 + 1e-3  # half a step by rounding, half by prediction
        assert off.max() > 0.6


def test_residuals_near_a_border_decode_as_they_were_encoded(
    photo: RGBImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Residuals that lie on borders exactly: without close calls another machine would decode others."""
    made = network(CHANNEL_WISE)
    borders = [(n + 0.5) / GRID for n in range(8)]
    for one in made.priors.space_channel.residual_networks:  # type: ignore[union-attr]
        one[-1].weight.data.zero_()
        one[-1].bias.data.copy_(torch.atanh(2 * torch.tensor(borders, dtype=torch.float64)))
    made.priors.double()
    codec = LearnedCodec(create_bank(tmp_path / "bank", "small", [made]))
    for one in priors(codec).space_channel.residual_networks:  # type: ignore[union-attr]
        one[-1].bias.data.copy_(torch.atanh(2 * torch.tensor(borders, dtype=torch.float64)))
    image = photo[:32, :32].copy()
    stream = codec.encode(image, 1)
    assert coder(codec).close_calls >= 4 * 8 * 4
    expected = codec.decode_latents(stream)
    for seed in range(3):
        with changed_outputs(networks_of(priors(codec)), noisy(1e-10, seed)):
            assert torch.equal(codec.decode_latents(stream), expected)
    monkeypatch.setattr(exact.Rounding, "residuals", lambda self, values: (values * GRID).round().long())
    streams = []
    for seed in range(3):
        with changed_outputs(networks_of(priors(codec)), noisy(1e-10, seed)):
            streams.append(codec.encode(image, 1))
    assert len(set(streams)) > 1


@pytest.mark.parametrize("name", ENTROPY_MODELS)
def test_streams_decode_to_the_same_latents_under_every_circumstance(
    name: str, photo: RGBImage, tmp_path: Path
) -> None:
    codec = LearnedCodec(create_bank(tmp_path / "bank", "small", [network(ENTROPY_MODELS[name])]))
    image = photo[:37, :51].copy()
    sizes = []
    for level in range(3):
        stream = codec.encode(image, level)
        assert codec.decode(stream).shape == image.shape
        sizes.append(len(stream))
    assert sizes == sorted(set(sizes))
    expected = codec.decode_latents(stream)
    for count in (1, 2):
        with threads(count):
            assert torch.equal(codec.decode_latents(stream), expected)
    for seed in range(3):
        with changed_outputs(networks_of(priors(codec)), noisy(1e-10, seed)):
            assert torch.equal(codec.decode_latents(stream), expected)
    assert not check_bank(Bank.load(tmp_path / "bank"))


def test_it_learns(photos: Path, photo: RGBImage, tmp_path: Path) -> None:
    before, after = network(TINY_LLIC), fit(network(TINY_LLIC), photos, 60)
    errors = []
    for i, one in enumerate((before, after)):
        codec = LearnedCodec(create_bank(tmp_path / str(i), "small", [one]))
        errors.append(float(np.square(codec.decode(codec.encode(photo, 2)).astype(float) - photo).mean()))
    assert errors[1] < 0.5 * errors[0]


def test_its_latents_see_much_more_of_the_image_than_small_kernels_show() -> None:
    torch.manual_seed(0)

    def reach(config: LLICConfig) -> int:
        image = torch.rand(1, 3, 512, 16, requires_grad=True)
        y = config.analysis()(image)
        (gradient,) = torch.autograd.grad(y[0, :, 16].sum(), image)
        rows = gradient.abs().sum((0, 1, 3))
        return int((rows > 1e-3 * rows.max()).sum())

    assert reach(TINY_LLIC) > 1.5 * reach(dataclasses.replace(TINY_LLIC, kernels=(3, 3, 3, 3)))


def test_a_bank_of_it_is_a_codec(tmp_path: Path, photo: RGBImage, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("bank", "create", "--untrained", "llic-elic-compact", "--name", "llic-elic", "-o", tmp_path / "llic")
    assert made.code == 0, made.err
    monkeypatch.setenv("ALLOCATOR_BANKS", str(tmp_path))
    codec = get_codec("llic-elic")
    assert codec.decode(codec.encode(photo[:20, :30].copy(), 1)).shape == (20, 30, 3)
    assert untrained_network("llic-elic-compact", 2).config.levels == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"kernels": (11, 11, 9)},
        {"kernels": (11, 11, 9, 8)},
        {"blocks": (1, 1, 1)},
        {"gate_ratio": 0},
        {"reduction": 64},
        {"attention": -1},
        {"context_model": "serial"},
        {"context_model": "channel-wise"},
        {"support_slices": 2},
        {"residual_prediction": True},
        {"channels": "8"},
    ],
)
def test_an_invalid_network_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"need|must be|can't be|positive|context model|channel-wise"):
        LLICConfig.from_dict({**dataclasses.asdict(TINY_LLIC), **fields})
