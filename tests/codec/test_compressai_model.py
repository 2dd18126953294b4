"""DKIC in CompressAI's own training and evaluation."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codec import RGBImage, read_image
from codec.bank import Bank
from codec.bitstream import unpack
from codec.formats import write_png
from codec.learned import LearnedCodec
from codec.tensors import to_tensor
from tests.codec.networks import TINY
from tests.helpers import SKIMAGE

pytest.importorskip("compressai")


def test_compressais_evaluation_runs_on_it(bank: Bank, tmp_path: Path) -> None:
    from compressai.registry import MODELS
    from compressai.utils.eval_model.__main__ import eval_model

    from codec.compressai_model import DKICModel

    assert MODELS["dkic"] is DKICModel
    model = DKICModel.from_bank(bank.folder, 1)
    paths = [tmp_path / name for name in ("chelsea.png", "coffee.png")]
    for path in paths:  # CompressAI pads to multiples of 64, but not to estimate
        write_png(path, np.ascontiguousarray(read_image(SKIMAGE / path.name)[:256, :320]))
    options = {"architecture": "dkic", "half": False, "per_image": False}
    real = eval_model(model, tmp_path, tmp_path, paths, **options)
    estimated = eval_model(model, tmp_path, tmp_path, paths, entropy_estimation=True, **options)
    assert real["psnr-rgb"] > 12
    assert real["psnr-rgb"] == pytest.approx(estimated["psnr-rgb"], abs=0.01)
    assert real["bpp"] == pytest.approx(estimated["bpp"], rel=0.02)


def train(model: Any, folder: Path, steps: int) -> tuple[dict[str, Any], list[float], list[float]]:
    """The loop of CompressAI's examples/train.py, with its data set, loss and two optimizers."""
    from compressai.datasets import ImageFolder
    from compressai.losses import RateDistortionLoss
    from compressai.optimizers import net_aux_optimizer
    from torchvision import transforms

    crops = transforms.Compose([transforms.RandomCrop(64), transforms.ToTensor()])
    loader = torch.utils.data.DataLoader(ImageFolder(folder, crops), batch_size=4, shuffle=True)
    learning = {"net": {"type": "Adam", "lr": 2e-3}, "aux": {"type": "Adam", "lr": 1.0}}
    optimizers = net_aux_optimizer(model, learning)
    assert [len(group["params"]) for group in optimizers["aux"].param_groups] == [1]
    criterion = RateDistortionLoss(lmbda=0.01)
    model.train()
    losses, aux_losses = [], []
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for batch in itertools.islice(batches, steps):
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        criterion_output = criterion(model(batch), batch)
        criterion_output["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers["net"].step()
        aux_loss = model.aux_loss()
        before = [parameter.grad.clone() for parameter in model.network.hyper_prior.parameters()]
        aux_loss.backward()
        after = [parameter.grad for parameter in model.network.hyper_prior.parameters()]
        assert all(map(torch.equal, before, after))  # the density isn't bent to the quantiles
        optimizers["aux"].step()
        losses.append(criterion_output["loss"].item())
        aux_losses.append(aux_loss.item())
    state = {"epoch": 0, "state_dict": model.state_dict()}
    state |= {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
    return state, losses, aux_losses


def test_compressais_training_example_runs_on_it(tmp_path: Path, photo: RGBImage) -> None:
    from compressai.utils.eval_model.__main__ import main
    from compressai.zoo import models

    from codec import get_codec
    from codec.compressai_model import DKICModel

    torch.manual_seed(0)
    (tmp_path / "train").mkdir()
    large = read_image(SKIMAGE / "coffee.png")
    for i in range(2):  # CompressAI's MS-SSIM takes no less than 161 pixels
        write_png(tmp_path / "train" / f"{i}.png", np.ascontiguousarray(large[:170, 200 * i : 200 * i + 165]))
    model = models["dkic"](quality=3, configuration=TINY, level=1)
    state, losses, aux_losses = train(model, tmp_path, 20)
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert aux_losses[-1] < 0.9 * aux_losses[0]
    torch.save(state, checkpoint := tmp_path / "checkpoint.pth.tar")

    loaded = torch.load(checkpoint, weights_only=True)  # tensors and numbers alone
    same = DKICModel(TINY)
    assert not any(same.load_state_dict(loaded["state_dict"]))
    assert same.level == 1
    of_file = DKICModel.from_state_dict(loaded["state_dict"]).eval()
    pixels = to_tensor(photo)
    packed = model.eval().compress(pixels)
    assert same.eval().compress(pixels) == of_file.compress(pixels) == packed
    with pytest.raises(ValueError, match="another configuration"):
        DKICModel("compact").load_state_dict(loaded["state_dict"])

    main(["checkpoint", str(tmp_path / "train"), "-a", "dkic", "-d", str(tmp_path), "-p", str(checkpoint)])
    [results] = tmp_path.glob("*.json")
    measured = json.loads(results.read_text())["results"]
    assert measured["psnr-rgb"][0] > 12
    codec = get_codec(f"module:codec.compressai_model.DKICModel@{checkpoint}")
    assert codec.decode(codec.encode(photo, 0)).shape == photo.shape


def test_tables_are_built_on_demand_and_never_outdated(photo: RGBImage) -> None:
    from codec.compressai_model import DKICModel

    model = DKICModel(TINY).eval()
    assert [model.update(), model.update(), model.update(force=True), model.update(force=False)] == [
        True, False, True, False
    ]  # fmt: skip
    pixels = to_tensor(photo[:40, :40].copy())
    before = model.compress(pixels)
    model.train()
    with torch.no_grad():
        for parameter in model.network.hyper_prior.parameters():
            parameter.mul_(1.5)
    after = model.eval().compress(pixels)
    assert after["strings"] != before["strings"]
    assert model.decompress(**after)["x_hat"].shape == pixels.shape


def test_checkpoints_from_before_the_quantiles_load() -> None:
    from codec.compressai_model import DKICModel

    model = DKICModel(TINY)
    old = {key: value for key, value in model.state_dict().items() if key.startswith("network.")}
    assert not any(DKICModel(TINY).load_state_dict(old))
    with pytest.raises(ValueError, match="names no configuration"):
        DKICModel.from_state_dict(old)


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
