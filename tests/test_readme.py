"""What the README says works as it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import run

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_it_is_short() -> None:
    assert len(README.read_text().splitlines()) < 150


def test_the_tour_of_commands(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    [tour] = [block for block in blocks("bash") if "tables build" in block]
    # the photos are tiny, so rates are higher, and LPIPS may not be at hand
    changes = {"0.075": "2", "0.15": "3", "0.3": "4", "lpips": "psnr"}
    for line in tour.splitlines():
        arguments = [changes.get(word, word) for word in shlex.split(line)[1:]]
        ran = run(*arguments)
        assert ran.code == 0, ran.err
    assert "PASS: 5 images decode" in ran.out


def test_the_python_example(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").symlink_to(photos)
    [example] = blocks("python")
    (tmp_path / "example.py").write_text(example)
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "motorcycle_left" in done.stdout
