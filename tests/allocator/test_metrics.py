import os
import subprocess
import sys
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch

from allocator.metrics import Metric, MetricError, get_metric
from allocator.metrics.lite import SHIPPED
from allocator.metrics.lpips import BACKBONE_VARIABLE, LPIPS, NETS, find_backbone
from codec import RGBImage, get_codec, read_image
from tests.conftest import SKIMAGE, run, started


@pytest.fixture
def pair(photos: Path) -> tuple[RGBImage, RGBImage]:
    image = read_image(photos / "coffee.png")
    codec = get_codec("jpeg")
    return image, codec.decode(codec.encode(image, 4))


def backbone(net: str) -> dict[str, torch.Tensor]:
    """A random backbone as torchvision would save it."""
    torch.manual_seed(7)
    model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    return {"features." + key.partition(".")[2]: value.clone() for key, value in model.net.state_dict().items()}


def as_tensor(image: RGBImage) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float() / 127.5 - 1


def value(metric: Metric, image: RGBImage, decoded: RGBImage) -> float:
    return metric.compare(metric.reference(image), decoded)


def test_psnr_by_hand() -> None:
    black = np.zeros((2, 2, 3), np.uint8)
    gray = black.copy()
    gray[0, 0, 0] = 12  # mse = 144 / 12
    assert value(get_metric("psnr"), black, gray) == pytest.approx(10 * np.log10(255**2 / 12))
    assert value(get_metric("psnr"), black, black) == 100
    assert value(get_metric("psnr"), black, np.full_like(black, 255)) == pytest.approx(0, abs=1e-9)


def test_ms_ssim_agrees_with_its_library_on_all_channels_at_once(pair: tuple[RGBImage, RGBImage]) -> None:
    from pytorch_msssim import ms_ssim

    large = [np.tile(image, (2, 2, 1)) for image in pair]
    tensors = [torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None] for image in large]
    expected = ms_ssim(*tensors, data_range=255).item()
    assert value(get_metric("ms-ssim"), *large) == pytest.approx(expected, abs=1e-6)
    assert expected < 0.99


@pytest.mark.parametrize("net", sorted(NETS))
def test_lpips_is_the_packages_own(net: str, pair: tuple[RGBImage, RGBImage]) -> None:
    metric = LPIPS(net, backbone(net))
    with torch.inference_mode():
        expected = metric.model(*map(as_tensor, pair)).item()
    assert expected > 1e-4
    assert value(metric, *pair) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("net", sorted(NETS))
@pytest.mark.parametrize("turned", [False, True])
def test_lpips_in_strips_is_lpips_of_the_whole(net: str, turned: bool, photos: Path) -> None:
    image = np.tile(read_image(photos / "chelsea.png"), (1, 12, 1))[:101, :1301]
    if turned:
        image = image.transpose(1, 0, 2).copy()
    codec = get_codec("jpeg")
    decoded = codec.decode(codec.encode(image, 4))
    weights = backbone(net)
    strips = LPIPS(net, weights, tile_pixels=101 * 700)
    assert len(list(strips._tiles(image))) > 2
    assert value(strips, image, decoded) == pytest.approx(value(LPIPS(net, weights), image, decoded), rel=1e-6)


@pytest.mark.parametrize("name", ["lpips-squeeze", "ms-ssim", "psnr"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (40, 7)])
def test_tiny_images_have_a_value(name: str, shape: tuple[int, int], pair: tuple[RGBImage, RGBImage]) -> None:
    metric = LPIPS("squeeze", backbone("squeeze")) if name.startswith("lpips") else get_metric(name)
    image, decoded = (np.resize(side, (*shape, 3)) for side in pair)
    equal, different = value(metric, image, image), value(metric, image, decoded)
    assert np.isfinite([equal, different]).all()
    assert (equal >= different) if metric.higher_is_better else (equal <= different)


def test_a_backbone_file_is_found_by_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({**backbone("vgg"), "classifier.0.weight": torch.ones(3)}, tmp_path / "vgg.pth")
    torch.save({key: v.half() for key, v in backbone("squeeze").items()}, tmp_path / "squeeze.pth")
    monkeypatch.setenv(BACKBONE_VARIABLE, f"{tmp_path / 'vgg.pth'}{os.pathsep}{tmp_path / 'squeeze.pth'}")
    assert get_metric("lpips").name == "lpips-vgg"
    assert get_metric("lpips-squeeze").name == "lpips-squeeze"
    other = backbone("squeeze")
    other["features.0.bias"][0] += 1
    assert get_metric("lpips-squeeze").fingerprint != LPIPS("squeeze", other).fingerprint


def test_torchs_own_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BACKBONE_VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    weights = backbone("squeeze")
    torch.save(weights, cache / "squeezenet1_1-b8a52dc0.pth")
    assert torch.equal(find_backbone("squeeze")["features.0.weight"], weights["features.0.weight"])
    torch.save(backbone("alex"), cache / "squeezenet1_1-b8a52dc0.pth")
    with pytest.raises(MetricError, match="doesn't hold the weights of squeezenet1_1"):
        find_backbone("squeeze")


def test_without_weights_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    # an address that nothing answers stands for the machine without a network
    code = (
        "import urllib.request as r, allocator.metrics as m\n"
        "r.install_opener(r.build_opener(r.ProxyHandler({'https': 'http://127.0.0.1:9'})))\n"
        "try: m.get_metric('lpips-alex')\n"
        "except m.MetricError as error: print(error)"
    )
    env = {**os.environ, "TORCH_HOME": str(tmp_path)}
    env.pop(BACKBONE_VARIABLE, None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert "alexnet-owt-7be5be79.pth" in done.stdout
    assert "--lpips-backbone or ALLOCATOR_LPIPS_BACKBONE" in done.stdout
    assert list(tmp_path.rglob("*.pth")) == []


def test_without_lpips_a_table_is_built_by_its_stand_in_which_never_counts_as_it(
    photos: Path, tmp_path: Path
) -> None:
    env = {"TORCH_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9", BACKBONE_VARIABLE: ""}
    table = tmp_path / "run.db"
    with started("tables", "build", photos, "-c", "jpeg", "-o", table, env=env) as process:
        out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert "note: Measuring lpips-lite, which stands in for LPIPS: LPIPS (alex) needs" in err
    assert "80 operating points measured" in out
    solved = run("solve", table, "--target", "0.5")
    assert "lpips-lite, mean" in solved.out
    refused = run("solve", table, "--target", "0.5", "--objective", "lpips")
    assert refused.code == 2
    assert "holds no metric 'lpips'; measured are lpips-lite." in refused.err


def test_the_stand_in_that_ships_is_small_and_orders_levels() -> None:
    assert SHIPPED.stat().st_size <= 600_000
    metric, jpeg = get_metric("lpips-lite"), get_codec("jpeg")
    image = read_image(SKIMAGE / "coffee.png")
    reference = metric.reference(image)
    values = [metric.compare(reference, jpeg.decode(jpeg.encode(image, level))) for level in range(0, 16, 3)]
    assert values == sorted(values, reverse=True)
    assert metric.compare(reference, image) == 0
    assert 0.3 < values[0] < 0.9
    assert values[-1] < 0.05


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_bad_backbone_file_is_named(content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    if content is None:
        torch.save({"features.0.weight": torch.ones(3)}, path)
    else:
        path.write_bytes(content)
    monkeypatch.setenv(BACKBONE_VARIABLE, str(path))
    with pytest.raises(MetricError, match=r"weights\.pth: (is not a file of LPIPS|holds no weights)"):
        get_metric("lpips")


def test_a_checkpoint_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"features.0.weight": Bomb()}, tmp_path / "bomb.pth")
    monkeypatch.setenv(BACKBONE_VARIABLE, str(tmp_path / "bomb.pth"))
    with pytest.raises(MetricError):
        get_metric("lpips")
    assert not (tmp_path / "exploded").exists()


def test_the_published_check_of_squeeze() -> None:
    from tests.conftest import data

    os.environ[BACKBONE_VARIABLE] = str(data("lpips", "squeezenet1_1_features.pth"))
    try:
        model = get_metric("lpips-squeeze").model  # type: ignore[attr-defined]
    finally:
        del os.environ[BACKBONE_VARIABLE]
    torch.manual_seed(123)
    first, second = (torch.rand(10, 3, 100, 100) * 2 - 1 for _ in range(2))
    assert model(first, second).mean().item() == pytest.approx(0.1008, abs=5e-5)
