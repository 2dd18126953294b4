"""`encode --refine`: the distortion that fits the bank, and files that are whole or not there."""

import signal
from pathlib import Path

import pytest
from PIL import Image

from codec import get_codec, read_image
from codec.learned import LearnedCodec
from codec.refinement import refine
from tests.helpers import run, started

LEVEL = 10


@pytest.fixture
def small(photos: Path, tmp_path: Path) -> Path:
    Image.open(photos / "coffee.png").crop((0, 0, 64, 48)).save(tmp_path / "small.png")
    return tmp_path / "small.png"


def test_a_refined_file_decodes_as_any_other(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.dkic"
    ran = run("encode", small, "-c", "dkic", "-l", LEVEL, "--refine", 4, "-o", out)
    assert ran.code == 0, ran.err
    dkic = get_codec("dkic")
    assert isinstance(dkic, LearnedCodec)
    assert out.read_bytes() == refine(dkic, read_image(small), LEVEL, steps=4)
    assert out.read_bytes() != dkic.encode(read_image(small), LEVEL)
    assert run("decode", out, "-o", tmp_path / "small-decoded.png").code == 0
    assert read_image(tmp_path / "small-decoded.png").shape == (48, 64, 3)


def test_the_bank_determines_whether_lpips_is_used(small: Path, tmp_path: Path) -> None:
    names = {"default": (), "lpips": ("--distortion", "lpips"), "mse": ("--distortion", "mse")}
    for name, options in names.items():
        ran = run("encode", small, "-c", "po-dkic", "-l", LEVEL, "--refine", 4, *options, "-o", tmp_path / name)
        assert ran.code == 0, ran.err
    default, lpips, mse = ((tmp_path / name).read_bytes() for name in names)
    assert default == lpips != mse


def test_an_interrupted_refinement_leaves_no_file(photos: Path, tmp_path: Path) -> None:
    arguments = ("encode", photos / "coffee.png", "-c", "dkic", "-l", LEVEL, "--refine", 100_000)
    with started(*arguments, "-o", tmp_path / "never.dkic") as process:
        assert process.stderr is not None
        assert "refining" in process.stderr.readline()  # progress, every few seconds
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert list(tmp_path.iterdir()) == []
