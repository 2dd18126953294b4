"""What is left of a budget, spent on steps between levels."""

import json
from pathlib import Path

import pytest

from codec import RGBImage, get_codec
from codec.bank import Bank
from codec.base import BitstreamError
from codec.bitstream import pack, unpack
from codec.learned import LearnedCodec
from codec.registry import SEARCH_PATH
from tests.conftest import run


def test_between_two_levels_of_a_bank_there_are_many(codec: LearnedCodec, photo: RGBImage) -> None:
    labels = codec.between(1)
    assert len(labels) == 84
    encode = codec.encoder_between(photo, 1)
    streams = [codec.encode(photo, 1), *(encode(i) for i in range(0, 84, 12)), codec.encode(photo, 2)]
    sizes = [len(stream) for stream in streams]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 6
    errors = [float(((codec.decode(s).astype(float) - photo) ** 2).mean()) for s in streams]
    assert errors[-1] < errors[0]
    assert all(codec.decode(stream).shape == photo.shape for stream in streams)
    assert codec.between(2) == ()


def test_a_level_beyond_the_last_is_refused(codec: LearnedCodec, photo: RGBImage) -> None:
    stream = unpack(codec.encode(photo, 2))
    for level in (stream.level + 1, 255):
        with pytest.raises(BitstreamError, match="doesn't have"):
            codec.decode(pack(stream._replace(level=level)))


def test_classical_qualities_lie_between_levels(photo: RGBImage) -> None:
    for name in ("jpeg", "hevc"):
        classical = get_codec(name)
        low, high = (len(classical.encode(photo, level)) for level in (8, 9))
        labels = classical.between(8)
        assert labels
        encode = classical.encoder_between(photo, 8)
        assert low <= len(encode(len(labels) // 2)) <= high
        assert classical.between(len(classical.levels) - 1) == ()


def test_filling_leaves_almost_nothing_and_worsens_nothing(
    bank: Bank,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(SEARCH_PATH, str(bank.folder.parent))
    path = tmp_path / "run.db"
    assert run("tables", "build", photos, "-c", bank.folder, "-m", "psnr", "-o", path, "-j", 2).code == 0
    manifests = []
    for name, more in (("plain", ()), ("filled", ("--fill",))):
        ran = run("submit", path, "--budget", "2500", "-o", tmp_path / name, "--no-decoder", *more)
        assert ran.code == 0, ran.err
        manifests.append(json.loads((tmp_path / name / "manifest.json").read_text()))
    plain, filled = manifests
    assert filled["budget_bytes"] - filled["bytes"] < 64 <= plain["budget_bytes"] - plain["bytes"]
    assert filled["value"] > plain["value"]
    assert any("/" in entry["setting"] for entry in filled["entries"])
    verified = run("verify", tmp_path / "filled")
    assert verified.code == 0, verified.out
    assert "as measured: bytes, pixels, psnr" in verified.out
