"""DKIC under CompressAI's own evaluation."""

from pathlib import Path

import pytest
import torch

from codec import RGBImage
from codec.bank import Bank
from codec.bitstream import unpack
from codec.learned import LearnedCodec
from codec.network import to_tensor
from tests.codec.conftest import TINY
from tests.conftest import SKIMAGE

pytest.importorskip("compressai")


def test_compressais_evaluation_runs_on_it(bank: Bank, tmp_path: Path) -> None:
    from compressai.registry import MODELS
    from compressai.utils.eval_model.__main__ import eval_model

    from codec.compressai_model import DKICModel

    assert MODELS["dkic"] is DKICModel
    model = DKICModel.from_bank(bank.folder, 1)
    paths = [SKIMAGE / name for name in ("chelsea.png", "coffee.png")]
    options = {"architecture": "dkic", "half": False, "per_image": False}
    real = eval_model(model, tmp_path, SKIMAGE, paths, **options)
    estimated = eval_model(model, tmp_path, SKIMAGE, paths, entropy_estimation=True, **options)
    assert real["psnr-rgb"] > 12
    assert abs(real["psnr-rgb"] - estimated["psnr-rgb"]) < 1  # CompressAI pads to multiples of 64
    assert real["bpp"] > 0.8 * estimated["bpp"]


def test_its_strings_are_the_codecs_payloads(bank: Bank, photo: RGBImage) -> None:
    from codec.compressai_model import DKICModel

    model = DKICModel.from_bank(bank.folder, 2)
    pixels = to_tensor(photo)
    packed = model.compress(pixels.repeat(2, 1, 1, 1))
    payload = unpack(LearnedCodec(bank).encode(photo, 2)).payload
    assert packed["strings"] == [[payload, payload]]
    assert packed["shape"] == tuple(pixels.shape[2:])
    assert model.decompress(**packed)["x_hat"].shape == (2, *pixels.shape[1:])


def test_it_trains_and_compresses_without_a_bank() -> None:
    from codec.compressai_model import DKICModel

    model = DKICModel(TINY).train()
    output = model(torch.rand(2, 3, 64, 64))
    assert output["likelihoods"].keys() == {"y", "z"}
    model.eval()
    image = torch.rand(1, 3, 33, 20)
    with torch.no_grad():
        assert model.decompress(**model.compress(image))["x_hat"].shape == image.shape
