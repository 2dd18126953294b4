"""Files of released versions remain readable: identical bitstreams, and tables, banks and submissions."""

import dataclasses
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import allocator as al
import codec
from codec.bank import Bank
from codec.learned import LearnedCodec
from codec.training.recipe import read_recipe

GOLDEN = Path(__file__).parent / "golden"
RELEASES = sorted(path.parent for path in GOLDEN.glob("*/table.db"))
STREAMS = [
    path
    for release in RELEASES
    for path in sorted((release / "streams").iterdir())
    if path.suffix not in (".png", ".json")
]


def test_every_release_has_samples_of_every_codec_that_is_installed_along() -> None:
    assert GOLDEN / "0.1.0" in RELEASES
    names = {path.stem for path in STREAMS}
    assert {"avif", "hevc", "jpeg", "jpeg2000", "jxl", "tiny-dkic", "tiny-llic", "webp"} <= names


@pytest.mark.parametrize("stream", STREAMS, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_streams_decode_as_when_they_were_written(stream: Path) -> None:
    data = stream.read_bytes()
    expected = np.asarray(Image.open(stream.with_suffix(".png")), int)
    bank = stream.parents[1] / "banks" / stream.stem.removeprefix("tiny-")
    if bank.is_dir():
        learned = LearnedCodec(Bank.load(bank))
        latents = learned.decode_latents(data).numpy().astype("<i8").tobytes()
        recorded = json.loads((stream.parent / "latents.json").read_text())
        assert hashlib.sha256(latents).hexdigest() == recorded[stream.stem]
        assert np.abs(learned.decode(data) - expected).max() <= 1
    else:
        coder = codec.get(stream.stem)
        assert coder.suffix == stream.suffix
        assert np.abs(coder.decode(data) - expected).max() <= (0 if coder.exact_pixels else 1)


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_tables_contain_the_measurements(release: Path, tmp_path: Path) -> None:
    shutil.copy(release / "table.db", tmp_path)
    expected = pd.read_csv(release / "table.csv", dtype={"fingerprint": str, "setting": str})
    with al.open(tmp_path / "table.db") as table:
        pd.testing.assert_frame_equal(table.frame()[expected.columns], expected, check_dtype=False)
        chosen = table.allocate(bpp=2).chosen
        manifest = json.loads((release / "submission" / "manifest.json").read_text())
        assert [entry["setting"] for entry in manifest["entries"]] == [*chosen["setting"]]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_points_with_the_fingerprint_of_a_release_encode_to_the_same_bytes(release: Path, tmp_path: Path) -> None:
    shutil.copy(release / "table.db", tmp_path)
    with al.open(tmp_path / "table.db") as table:
        rows = table.frame().to_dict("records")
        current = [row for row in rows if codec.get(row["codec"]).fingerprint(row["level"]) == row["fingerprint"]]
        if not current:
            pytest.skip("its points were measured with other versions of the codecs' libraries")
        for row in current:
            image = codec.read_image(release / "images" / row["path"])
            data = codec.get(row["codec"]).encode(image, row["level"])
            assert data == table.bitstream(row["sha256"], row["fingerprint"])


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_old_recipes_keep_their_meaning(release: Path) -> None:
    expected = json.loads((release / "recipe.json").read_text())
    found = json.loads(json.dumps(dataclasses.asdict(read_recipe(release / "recipe.toml"))))
    assert _part_of(found, expected) == expected


def _part_of(found: Any, expected: Any) -> Any:
    """Without the fields that came later."""
    if isinstance(expected, dict):
        return {name: _part_of(found[name], value) for name, value in expected.items()}
    if isinstance(expected, list):
        return [_part_of(*pair) for pair in zip(found, expected, strict=True)]
    return found


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_submissions_verify(release: Path, tmp_path: Path) -> None:
    shutil.copytree(release / "submission", tmp_path / "entry")
    if sys.platform != "linux":
        (tmp_path / "entry" / "decoder.zip").unlink()
        pytest.skip("decoders are Linux's")
    verdict = al.verify(tmp_path / "entry")
    assert verdict.passed, verdict.failures
    assert verdict.watched is not None
    assert verdict.images == 2
