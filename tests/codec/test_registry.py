import os
import subprocess
import sys
from pathlib import Path

import pytest

import codec
from tests.helpers import started

CODEC = """
import io
import numpy as np
from PIL import Image
from codec import BitstreamError, Codec

class Thumbnail(Codec):
    name, suffix, version = "thumbnail", ".thumb", "1"
    levels = ("1/8", "1/4", "1/2")

    def encode(self, image, level):
        height, width = image.shape[:2]
        small = Image.fromarray(image).reduce(2 ** (3 - level))
        out = io.BytesIO(np.array([width, height], "<u4").tobytes())
        out.seek(8)
        small.save(out, "PNG")
        return out.getvalue()

    def decode(self, data):
        if len(data) < 9:
            raise BitstreamError("not a thumbnail.")
        size = tuple(np.frombuffer(data[:8], "<u4"))
        return np.asarray(Image.open(io.BytesIO(data[8:])).resize(size))
"""


def install(folder: Path) -> dict[str, str]:
    """Another package with a codec, as pip would leave it; the environment that sees it."""
    (folder / "thumbnails.py").write_text(CODEC)
    info = folder / "thumbnails-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thumbnails\nVersion: 1\n")
    entries = "[clic_allocator.codecs]\nthumbnail = thumbnails:Thumbnail\nbroken = nowhere.at.all:Codec\n"
    (info / "entry_points.txt").write_text(entries)
    return {"PYTHONPATH": str(folder)}


def python(code: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_codec_of_another_package_works_from_table_to_submission(photos: Path, tmp_path: Path) -> None:
    env = install(tmp_path)
    table = tmp_path / "run.db"
    steps = [
        ("tables", "build", photos, "-c", "thumbnail", "-m", "psnr", "-o", table, "-j", 1),
        ("submit", table, "--budget", 100_000, "-o", tmp_path / "entry"),
        ("verify", tmp_path / "entry"),
    ]
    for step in steps:
        with started(*step, env=env) as process:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
    assert "PASS: 5 images decode" in out


def test_a_codec_with_a_broken_package_is_named(tmp_path: Path) -> None:
    code = "import codec\ntry: codec.get_codec('broken')\nexcept codec.UnknownName as error: print(error)"
    assert "The codec 'broken' can't be loaded from nowhere.at.all:Codec" in python(code, install(tmp_path))


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(codec.UnknownName, match=r"Unknown codec 'hvec'; did you mean 'hevc'\?"):
        codec.get_codec("hvec")
    with pytest.raises(codec.UnknownName, match=r"use one of avif, .*hevc, .*jpeg, .*jxl, .*po-dkic, .*webp"):
        codec.get_codec("qqqqqq")


def test_a_file_suffix_determines_the_codec() -> None:
    assert codec.codec_for_file("a.b/c.heic").name == "hevc"
    with pytest.raises(codec.UnknownName, match=r"known suffixes are \.avif, "):
        codec.codec_for_file("c.gif")


def test_importing_codec_is_light() -> None:
    code = (
        "import sys, codec; print([m for m in ('torch', 'torchvision', 'compressai', 'pandas') if m in sys.modules])"
    )
    assert python(code).strip() == "[]"
