"""LLIC in the bank: three entropy models, one kind of bitstream."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from codec import RGBImage, get_codec
from codec.bank import Bank
from codec.bank_builder import check_bank, create_bank, untrained_network
from codec.configurations import CONFIGURATIONS
from codec.layers.attention import GatedAttention
from codec.learned import LearnedCodec
from codec.llic import LLICConfig
from codec.network import CompressionNetwork, count_parameters
from tests.codec.conftest import fit, network
from tests.codec.test_learned import changed_outputs, networks_of, noisy, priors, threads
from tests.conftest import run

TINY = LLICConfig(
    channels=(8, 8, 16),
    latent=32,
    blocks=(0, 1, 1, 1),
    hyper=16,
    global_channels=32,
    slices=(4, 4, 8, 16),
    stages=(2, 2, 2, 2),
    channel_widths=(16,),
    parameter_widths=(32,),
    context_kernel=3,
    levels=3,
)
ENTROPY_MODELS = {
    "stf": dataclasses.replace(TINY, slices=(8,) * 4, stages=(1,) * 4),
    "elic": TINY,
    "tcm": dataclasses.replace(TINY, slices=(16, 16), stages=(1, 1), attention=4),
}


@pytest.mark.parametrize("name", ["llic-stf", "llic-elic", "llic-tcm"])
def test_the_papers_networks_are_configurations(name: str) -> None:
    config = CONFIGURATIONS[name]
    assert isinstance(config, LLICConfig)
    assert (config.channels, config.latent, config.kernels) == ((192,) * 3, 320, (11, 11, 9, 9))
    assert all(1 <= blocks <= 3 for blocks in config.blocks)
    with torch.device("meta"):
        whole, small = (CompressionNetwork(CONFIGURATIONS[one]) for one in (name, f"{name}-compact"))
    assert any(isinstance(module, GatedAttention) for module in whole.modules()) == (name == "llic-tcm")
    assert count_parameters([small]) < 7e6 < count_parameters([whole])


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
    before, after = network(TINY), fit(network(TINY), photos, 60)
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

    assert reach(TINY) > 1.5 * reach(dataclasses.replace(TINY, kernels=(3, 3, 3, 3)))


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
        {"channels": "8"},
    ],
)
def test_what_makes_no_network_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"have|can't be|positive"):
        LLICConfig.from_dict({**dataclasses.asdict(TINY), **fields})
