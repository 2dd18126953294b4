"""lpips-lite: trained in seconds here, to show that training, resuming and the metric work."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from allocator.errors import AllocatorError
from allocator.metrics import MetricError
from allocator.metrics.distillation import PAIRS, WEIGHTS, Distillation, Run
from allocator.metrics.lite import STRIDES, WIDTHS, LiteNet, LPIPSLite
from allocator.metrics.lpips import LPIPS
from codec import get_codec, read_image
from tests.allocator.test_metrics import backbone

SMALL = Distillation(crop=64, crops_per_photo=1, steps=30, warmup=5)


def distilled(photos: Path, folder: Path, settings: Distillation = SMALL) -> Run:
    return Run(photos, folder, [get_codec("jpeg")], LPIPS("squeeze", backbone("squeeze")), settings)


@pytest.fixture(scope="module")
def ran(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    folder = tmp_path_factory.mktemp("distilled")
    run = distilled(photos, folder)
    run.prepare()
    losses: list[float] = []
    while run.step < 30:
        losses.append(run._train_step(sorted((folder / PAIRS).glob("*.npz")))[0])
        run.step += 1
    run.save()
    return folder, losses


def test_it_learns_what_the_teacher_says(ran: tuple[Path, list[float]]) -> None:
    _, losses = ran
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_the_teachers_maps_mean_what_it_says(ran: tuple[Path, list[float]], photos: Path) -> None:
    teacher = LPIPS("squeeze", backbone("squeeze"))
    with np.load(next((ran[0] / PAIRS).glob("*.npz"))) as kept:
        original, distorted, maps = kept["original"][0], kept["distorted"][0], kept["maps"][0]
        levels = kept["levels"][0].tolist()
    assert [level.partition(" ")[0] for level in levels] == ["jpeg"] * 3 + ["blur"] * 2 + ["noise"] * 2 + [
        "shift"
    ] * 2
    for one, of_one in zip(distorted, maps, strict=True):
        assert float(of_one.mean()) == pytest.approx(teacher.compare(teacher.reference(original), one), rel=1e-4)


def test_stopped_and_gone_on_with_it_ends_the_same(
    ran: tuple[Path, list[float]], photos: Path, tmp_path: Path
) -> None:
    first = distilled(photos, tmp_path)
    first.prepare()
    files = sorted((tmp_path / PAIRS).glob("*.npz"))
    for _ in range(11):
        first._train_step(files)
        first.step += 1
    first.save()
    second = distilled(photos, tmp_path)
    assert second.step == 11
    second.train()
    assert (tmp_path / WEIGHTS).read_bytes()[-100_000:] == (ran[0] / WEIGHTS).read_bytes()[-100_000:]
    with pytest.raises(AllocatorError, match="other settings"):
        distilled(photos, tmp_path, dataclasses.replace(SMALL, steps=31))


def test_calibration_brings_whole_photos_to_the_teachers_scale(photos: Path, tmp_path: Path) -> None:
    run = distilled(photos, tmp_path)
    run.prepare()
    run.train()
    teacher, jpeg = LPIPS("squeeze", backbone("squeeze")), get_codec("jpeg")

    def error() -> float:
        metric, errors = LPIPSLite(tmp_path / WEIGHTS), []
        for path in sorted(photos.iterdir()):
            image = read_image(path)
            for level in (2, 8, 14):
                decoded = jpeg.decode(jpeg.encode(image, level))
                values = [one.compare(one.reference(image), decoded) for one in (teacher, metric)]
                errors.append(abs(values[0] - values[1]))
        return float(np.mean(errors))

    before, factor = error(), run.calibrate()
    assert factor != 1
    assert error() < before
    assert run.calibrate() == factor  # of the weights as they were trained
    assert LPIPSLite(tmp_path / WEIGHTS).notes["notes"].count(f'"factor": {factor}') == 1


def test_positions_without_features_are_equal() -> None:
    sides = [16 // stride for stride in STRIDES]
    nothing = [torch.zeros(1, width, side, side) for width, side in zip(WIDTHS, sides, strict=True)]
    assert float(LiteNet().distance_map(nothing, nothing).detach().abs().max()) == 0


def test_the_metric_is_what_was_trained(ran: tuple[Path, list[float]], photos: Path) -> None:
    metric = LPIPSLite(ran[0] / WEIGHTS)
    image = read_image(photos / "chelsea.png")
    jpeg = get_codec("jpeg")
    reference = metric.reference(image)
    assert metric.compare(reference, image) == 0
    values = [metric.compare(reference, jpeg.decode(jpeg.encode(image, level))) for level in (1, 8, 15)]
    assert values[0] > values[1] > values[2] > 0
    tiles = LPIPSLite(ran[0] / WEIGHTS)
    tiles.tile_pixels = 8000
    large = np.tile(image, (1, 8, 1))
    decoded = jpeg.decode(jpeg.encode(large, 3))
    whole = metric.compare(metric.reference(large), decoded)
    assert tiles.compare(tiles.reference(large), decoded) == pytest.approx(whole, rel=1e-5)
    shown = metric.map(metric.reference(large), decoded)
    assert shown.shape == large.shape[:2]
    assert float(shown.mean()) == pytest.approx(whole, rel=0.05)


def test_weights_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"none")
    with pytest.raises(MetricError, match="holds no weights of lpips-lite"):
        LPIPSLite(tmp_path / "w.safetensors")
