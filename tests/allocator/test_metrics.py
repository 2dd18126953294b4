import os
import subprocess
import sys
import types
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch

from allocator.metrics import Metric, MetricError, get_metric
from allocator.metrics.backbones import NETS, SHIPPED, WEIGHTS_VARIABLE, find_backbone, read_weights
from allocator.metrics.dists import DISTS
from allocator.metrics.lpips import LPIPS
from allocator.metrics.registry import own_modules
from codec import RGBImage, code_digest, get_codec, read_image
from codec.weights import write_tensors
from tests.helpers import data, run


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
    assert len(list(strips.tiles(image))) > 2
    assert value(strips, image, decoded) == pytest.approx(value(LPIPS(net, weights), image, decoded), rel=1e-6)


def test_the_last_strip_has_features_in_every_layer() -> None:
    weights = backbone("alex")
    strips = LPIPS("alex", weights, tile_pixels=1)  # of 224 pixels
    for length in (225, 289, 449):
        image = np.tile(noise(64, length), (8, 1, 1))[:length]
        decoded = image ^ np.uint8(15)
        assert value(strips, image, decoded) == pytest.approx(value(LPIPS("alex", weights), image, decoded), rel=1e-6)


def uniform(side: int, value: int) -> RGBImage:
    return np.full((side, side, 3), value, np.uint8)


def noise(side: int, seed: int) -> RGBImage:
    values = np.empty(3 * side * side, np.uint8)
    for i in range(len(values)):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        values[i] = seed >> 33 & 255
    return values.reshape(side, side, 3)


def gradient(side: int) -> RGBImage:
    return np.broadcast_to((np.arange(side) * 255 // (side - 1)).astype(np.uint8)[:, None], (side, side, 3))


@pytest.mark.parametrize(
    ("image", "decoded", "published", "within"),
    [
        (gradient(64), uniform(64, 128), -64.56872148, 0.01),
        (noise(64, 42), uniform(64, 128), -47.33572558, 0.01),
        (uniform(32, 128), uniform(32, 178), 85.01409588, 0.5),  # rounding counts in flat images
        (uniform(64, 128), uniform(64, 178), -8.75942256, 0.1),
        (uniform(64, 128), uniform(64, 138), 80.24289393, 0.2),
        (uniform(256, 128), uniform(256, 178), -0.39085784, 0.1),
    ],
)
def test_ssimulacra2_equals_the_program_of_libjxl(
    image: RGBImage, decoded: RGBImage, published: float, within: float
) -> None:
    # libjxl's scores of these images are published with the tests of the Rust crate ssimulacra2
    assert value(get_metric("ssimulacra2"), image, decoded) == pytest.approx(published, abs=within)


def test_colorvideovdp_is_the_packages_own(pair: tuple[RGBImage, RGBImage]) -> None:
    import pycvvdp

    model = pycvvdp.cvvdp(display_name="standard_4k", device=torch.device("cpu"), quiet=True)
    expected = float(model.predict(pair[1], pair[0], dim_order="HWC")[0])
    assert value(get_metric("cvvdp"), *pair) == pytest.approx(expected, abs=1e-4)
    assert 5 < expected < 10


def test_any_metric_of_piq_has_a_name(pair: tuple[RGBImage, RGBImage]) -> None:
    import piq

    image, decoded = (np.tile(side, (2, 2, 1)) for side in pair)
    tensors = [(as_tensor(side) + 1) / 2 for side in (decoded, image)]
    assert value(get_metric("piq:gmsd"), image, decoded) == pytest.approx(piq.gmsd(*tensors).item(), abs=1e-6)
    assert not get_metric("piq:gmsd").higher_is_better
    with pytest.raises(MetricError, match=r"piq has no metric 'nope' .* use dss, fsim,"):
        get_metric("piq:nope")


def test_a_metric_of_pyiqa_keeps_its_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    from allocator.metrics import libraries

    # the package needs gigabytes; this stands for the part of it that is called
    fake = types.ModuleType("pyiqa")
    model = types.SimpleNamespace(lower_better=True)
    monkeypatch.setitem(sys.modules, "pyiqa", fake)
    monkeypatch.setattr(fake, "list_models", lambda metric_mode: ["theirs"], raising=False)
    monkeypatch.setattr(fake, "create_metric", lambda name, device: model, raising=False)
    monkeypatch.setattr(libraries, "version", lambda package: "0.1.16")
    metric = get_metric("pyiqa:theirs")
    assert (metric.name, metric.version, metric.higher_is_better) == ("pyiqa:theirs", "pyiqa 0.1.16", False)
    with pytest.raises(MetricError, match="pyiqa has no full-reference metric 'nope'; use theirs"):
        get_metric("pyiqa:nope")


def test_a_metric_with_a_colon_is_built_allocated_and_weighted(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "run.db"
    assert run("tables", "build", photos / "coffee.png", "-c", "jpeg", "-m", "piq:gmsd", "-o", table).code == 0
    for objective in ("piq:gmsd", "piq:gmsd:0.5"):
        assert "piq:gmsd" in run("solve", table, "-t", "1", "--objective", objective).out
    refused = run("solve", table, "-t", "1", "--objective", "piq:gmsd:much")
    assert refused.code == 2
    assert "write an objective as METRIC or METRIC:WEIGHT" in refused.err
    for images in ("", "c*:"):
        assert run("solve", table, "-t", "1", "--floor", f"{images}piq:gmsd=0.5").code == 0
        refused = run("solve", table, "-t", "1", "--floor", f"{images}piq:gmsd=0")
        assert "The constraints leave no level for coffee" in refused.err
    filled = run("submit", table, "-t", "1", "--fill", "--no-decoder", "-o", tmp_path / "entry")
    assert filled.code == 0, filled.err
    assert "becomes quality" in filled.out


@pytest.mark.parametrize(
    "name", ["lpips-alex", "lpips-squeeze", "ms-ssim", "psnr", "ssimulacra2", "cvvdp", "piq:gmsd", "piq:vif_p"]
)
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (40, 7)])
def test_tiny_images_have_a_value(name: str, shape: tuple[int, int], pair: tuple[RGBImage, RGBImage]) -> None:
    metric = LPIPS("squeeze", backbone("squeeze")) if name == "lpips-squeeze" else get_metric(name)
    image, decoded = (np.resize(side, (*shape, 3)) for side in pair)
    equal, different = value(metric, image, image), value(metric, image, decoded)
    assert np.isfinite([equal, different]).all()
    assert (equal >= different) if metric.higher_is_better else (equal <= different)


def test_lpips_works_offline_with_the_weights_that_ship(tmp_path: Path, pair: tuple[RGBImage, RGBImage]) -> None:
    assert (SHIPPED / "alexnet.safetensors").stat().st_size <= 5_000_000
    code = "from allocator.metrics import get_metric as get; print(get('lpips').name, get('lpips').fingerprint)"
    env = {**os.environ, "TORCH_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9", WEIGHTS_VARIABLE: ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.split() == ["lpips-alex", get_metric("lpips").fingerprint]


def test_half_precision_leaves_lpips_within_a_ten_thousandth() -> None:
    exact = LPIPS("alex", read_weights(data("lpips", "alexnet_features.pth")))
    shipped = LPIPS("alex", read_weights(SHIPPED / "alexnet.safetensors"))
    image, codec = read_image(data("kodak", "kodim05.png")), get_codec("jpeg")
    for level in (0, 5, 12):
        decoded = codec.decode(codec.encode(image, level))
        assert value(shipped, image, decoded) == pytest.approx(value(exact, image, decoded), abs=1e-4)


def test_lpips_of_published_weights_gives_the_published_value() -> None:
    metric = LPIPS("squeeze", read_weights(data("lpips", "squeezenet1_1_features.pth")))
    torch.manual_seed(123)
    first, second = (torch.rand(10, 3, 100, 100) * 2 - 1 for _ in range(2))
    assert metric.model(first, second).mean().item() == pytest.approx(0.1008, abs=5e-5)


@pytest.fixture
def dists(monkeypatch: pytest.MonkeyPatch) -> DISTS:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(data("lpips")))
    metric = get_metric("dists")
    assert isinstance(metric, DISTS)
    return metric


def test_dists_equals_another_implementation(dists: DISTS, pair: tuple[RGBImage, RGBImage]) -> None:
    # piq 0.8.0 with the same weights, on images under the 256 pixels over which it scales them
    image, codec = read_image(data("kodak", "kodim05.png")), get_codec("jpeg")
    decoded = codec.decode(codec.encode(image, 4))
    assert value(dists, image[:250, :240], decoded[:250, :240]) == pytest.approx(0.2460, abs=5e-5)
    with torch.inference_mode():
        assert dists.model(*map(as_tensor, pair)).item() == pytest.approx(value(dists, *pair), rel=1e-4)
    assert value(dists, pair[0], pair[0]) == pytest.approx(0, abs=1e-6)


def test_dists_in_strips_is_dists_of_the_whole(dists: DISTS, photos: Path) -> None:
    image = np.tile(read_image(photos / "chelsea.png"), (1, 12, 1))[:67, :1301]
    codec = get_codec("jpeg")
    decoded = codec.decode(codec.encode(image, 4))
    whole = value(dists, image, decoded)
    dists.tile_pixels = 67 * 700
    assert len(list(dists.tiles(image))) > 2
    assert value(dists, image, decoded) == pytest.approx(whole, rel=1e-6)


def test_weights_are_found_in_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({**backbone("vgg"), "classifier.0.weight": torch.ones(3)}, tmp_path / "mine.pth")
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.save({key: v.half() for key, v in backbone("squeeze").items()}, folder / "squeezenet1_1-half.pth")
    (folder / "notes.txt").write_text("not weights")
    monkeypatch.setenv(WEIGHTS_VARIABLE, f"{tmp_path / 'mine.pth'}{os.pathsep}{folder}")
    assert get_metric("lpips").name == "lpips-alex"
    for net in ("vgg", "squeeze"):
        weights = {key: v.half().float() if net == "squeeze" else v for key, v in backbone(net).items()}
        assert get_metric(f"lpips-{net}").fingerprint == LPIPS(net, weights).fingerprint
    other = backbone("squeeze")
    other["features.0.bias"][0] += 1
    assert get_metric("lpips-squeeze").fingerprint != LPIPS("squeeze", other).fingerprint


def test_torchs_own_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    weights = backbone("squeeze")
    torch.save(weights, cache / "squeezenet1_1-b8a52dc0.pth")
    assert torch.equal(find_backbone("squeeze")["features.0.weight"], weights["features.0.weight"])
    torch.save(backbone("alex"), cache / "squeezenet1_1-b8a52dc0.pth")
    with pytest.raises(MetricError, match="does not contain the weights of squeezenet1_1"):
        find_backbone("squeeze")


def test_missing_weights_give_one_sentence_with_a_remedy(tmp_path: Path) -> None:
    # an address that nothing answers stands for the machine without a network
    code = (
        "import urllib.request as r, allocator.metrics as m\n"
        "r.install_opener(r.build_opener(r.ProxyHandler({'https': 'http://127.0.0.1:9'})))\n"
        "try: m.get_metric('lpips-vgg')\n"
        "except m.MetricError as error: print(error)"
    )
    env = {**os.environ, "TORCH_HOME": str(tmp_path)}
    env.pop(WEIGHTS_VARIABLE, None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert "vgg16-397923af.pth" in done.stdout
    assert "set ALLOCATOR_METRIC_WEIGHTS to the file or its folder" in done.stdout
    assert list(tmp_path.rglob("*.pth")) == []


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", ["empty", "text", "truncated", "another network"])
def test_a_bad_file_of_weights_is_named(
    name: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    save = write_tensors if path.suffix == ".safetensors" else lambda path, tensors: torch.save(tensors, path)
    save(path, {"features.0.weight": torch.ones(300)})
    data = {"empty": b"", "text": b"not a checkpoint", "truncated": path.read_bytes()[:-100]}
    path.write_bytes(data.get(content, path.read_bytes()))
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(path))
    with pytest.raises(MetricError, match=rf"{name}: (is not a|contains no weights of alexnet, squeezenet1_1)"):
        get_metric("lpips-vgg")


def test_the_weights_of_another_net_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    torch.save(backbone("alex"), tmp_path / "vgg16.pth")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "vgg16.pth"))
    with pytest.raises(MetricError, match=r"not among those given \(.*vgg16\.pth\)"):
        get_metric("lpips-vgg")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path))
    with pytest.raises(MetricError, match=r"vgg16\.pth: contains no weights of vgg16"):
        get_metric("dists")


def test_a_checkpoint_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"features.0.weight": Bomb()}, tmp_path / "bomb.pth")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "bomb.pth"))
    with pytest.raises(MetricError):
        get_metric("lpips")
    assert not (tmp_path / "exploded").exists()


class Difference(Metric):
    """The mean difference of samples."""

    name, version = "difference", "1"

    def compare(self, reference: RGBImage, decoded: RGBImage) -> float:
        return float(np.abs(reference.astype(float) - decoded).mean())


def test_fingerprints_change_with_code_that_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    class ByVersion(Difference):
        modules = ()

    recorded = {name: get_metric(name).fingerprint for name in ("psnr", "lpips", "ssimulacra2")}
    assert recorded["psnr"] == "182c32a1fc2b516ec4beb39aca9dfca5"  # as in tables of the first release
    assert Difference().fingerprint != ByVersion().fingerprint
    monkeypatch.setattr(code_digest, "_read_record", lambda package: {})
    assert all(get_metric(name).fingerprint != fingerprint for name, fingerprint in recorded.items())


def test_the_code_of_this_package_is_recorded() -> None:
    changed = [module for module in own_modules() if code_digest.find_unrecorded(module)]
    assert not changed, (
        f"The code of {', '.join(changed)} has changed since {code_digest.RECORD} was written. Change the version of "
        "each metric that now computes other values, then run `python -m allocator.metrics`."
    )
