"""What is left of a budget, spent on steps between levels."""

import json
from pathlib import Path

import pytest

from codec import RGBImage, get_codec
from codec.base import BitstreamError
from codec.bitstream import pack, unpack
from codec.learned import LearnedCodec
from tests.conftest import run


def test_between_two_levels_of_a_bank_there_are_many(codec: LearnedCodec, photo: RGBImage) -> None:
    labels = codec.between(1)
    assert len(labels) == 84
    encode = codec.encoder_between(photo, 1)
    streams = [codec.encode(photo, 1), *(encode(i) for i in range(0, 84, 12)), codec.encode(photo, 2)]
    sizes = [len(stream) for stream in streams]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 6
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


def test_filling_leaves_almost_nothing_and_worsens_nothing(table: Path, tmp_path: Path) -> None:
    manifests = []
    for name, more in (("plain", ()), ("filled", ("--fill",))):
        arguments = ("-c", "jpeg", "--objective", "psnr", "--no-decoder", *more)
        ran = run("submit", table, "--budget", 16450, "-o", tmp_path / name, *arguments)
        assert ran.code == 0, ran.err
        manifests.append(json.loads((tmp_path / name / "manifest.json").read_text()))
    plain, filled = manifests
    assert filled["budget_bytes"] - filled["bytes"] < 64 <= plain["budget_bytes"] - plain["bytes"]
    assert filled["value"] > plain["value"]
    assert any(entry["setting"].startswith("quality ") for entry in filled["entries"])
    verified = run("verify", tmp_path / "filled")
    assert verified.code == 0, verified.out
    assert "as measured: bytes, pixels, ms-ssim, psnr" in verified.out
