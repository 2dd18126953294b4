"""Invalid input gives clear sentences, and unusual names are printed safely."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from allocator.cli import waiting
from allocator.errors import AllocatorError
from allocator.images import find_images
from codec.base import shown
from codec.files import is_safe_name
from tests.helpers import THIS_PYTHON, posix_only, run

LONG = "x" * 5000


@pytest.mark.parametrize(
    "command",
    [
        ("solve", "TABLE", "-t", "1", "--decode-seconds", "inf"),
        ("solve", "TABLE", "-t", "1", "--decode-seconds", "nan"),
        ("solve", "TABLE", "-t", "1", "--decode-seconds", "1e300"),
        ("solve", "TABLE", "-t", "1", "--least-bpp", "inf"),
        ("solve", "TABLE", "-t", "1", "--most-bpp", "nan"),
        ("solve", "TABLE", "--budget", "9" * 400),
        ("solve", "TABLE", "-t", "1", "--floor", "psnr=inf"),
        ("solve", "TABLE", "-t", "1", "-o", "."),
        ("solve", LONG, "-t", "1"),
        ("solve", "TABLE", "-t", "1", "-o", f"{LONG}.csv"),
        ("tables", "show", "."),
        ("tables", "show", LONG),
        ("tables", "build", LONG, "-o", "x.db", "-c", "jpeg", "-m", "psnr"),
        ("tables", "build", "PHOTOS", "-o", LONG, "-c", "jpeg", "-m", "psnr"),
        ("tables", "build", "PHOTOS", "-o", ".", "-c", "jpeg", "-m", "psnr"),
        ("tables", "export", "TABLE", "-o", "."),
        ("tables", "merge", "TABLE", "-o", "."),
        ("tables", "merge", "TABLE", "-o", LONG),
        ("encode", "PHOTO", "-c", "jpeg", "-l", "3", "-o", "."),
        ("encode", "PHOTO", "-c", LONG, "-l", "3"),
        ("encode", "PHOTO", "-c", "jpeg", "-l", "9" * 400),
        ("decode", LONG),
        ("decode", "PHOTO", "-c", "jpeg"),
        ("decode", ".", "-c", "jpeg"),
        ("decode", "/dev/zero", "-c", "jpeg"),
        ("optimize", "PHOTO", "--budget", "1e400MB", "-o", "web"),
        ("optimize", "PHOTO", "--budget", "1%", "-c", "jpeg", "-m", "psnr", "-j", "1", "--no-original", "-o", "."),
        ("optimize", "PHOTO", "--budget", "1%", "-c", "jpeg", "-m", "psnr", "-o", "/"),
        ("optimize", "PHOTO", "--budget", "1%", "-c", "jpeg", "-m", "psnr", "-o", LONG),
        ("verify", LONG),
        ("bank", "show", LONG),
        ("frontier", "TABLE", "-o", "."),
    ],
)
def test_invalid_values_give_one_sentence(
    command: tuple[str, ...], table: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"TABLE": str(table), "PHOTOS": str(photos), "PHOTO": str(photos / "rocket.png")}
    ran = run(*(places.get(word, word) for word in command))
    assert (ran.code, ran.out) == (2, "")
    assert "Traceback" not in ran.err
    assert 0 < ran.err.count("\n") <= 8  # what is wrong in how a command is called is framed


@posix_only
def test_control_characters_are_escaped(tmp_path: Path) -> None:
    assert shown("a\x1b[31m\x07\u202e\udcff\x9b\tb\nc") == "a\\u001b[31m\\u0007\\u202e\\udcff\\u009b\\u0009b\nc"
    assert shown("Grüße, 写真 📷") == "Grüße, 写真 📷"
    assert not any(map(is_safe_name, ("a\nb", "a\x1bb", "a\x7f", "x" * 256, "é" * 128, "a/.. /b", "...", " ")))
    (tmp_path / "\x1b]0;owned\x07.png").write_bytes(b"no image")
    for command in (
        ("tables", "build", tmp_path, "-c", "jpeg", "-m", "psnr", "-o", tmp_path / "run.db"),
        ("encode", tmp_path / "\x1b]0;owned\x07.png", "-c", "jpeg", "-l", "0"),
        ("tables", "show", tmp_path / "\udcff\x1b[2J.db"),
    ):
        ran = run(*command)
        assert ran.code == 2
        assert "\x1b" not in ran.err
        assert "\\u001b" in ran.err or "\\x1b" in ran.err


@pytest.mark.parametrize("colours", [False, True])
def test_progress_is_escaped(colours: bool, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In lines and, as in a terminal, beside a bar."""
    shutil.copy(photos / "rocket.png", tmp_path / "turned\u202e.png")
    monkeypatch.setattr(waiting, "_SECONDS", 0.0)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if colours:
        monkeypatch.setenv("FORCE_COLOR", "1")
    ran = run("tables", "build", tmp_path, "-c", "jpeg", "-m", "psnr", "-j", 1, "-o", tmp_path / "run.db")
    assert ran.code == 0
    assert ("\x1b[" in ran.err) == colours
    assert "turned\\u202e jpeg" in ran.err
    assert "\u202e" not in ran.err


NOBODY = """
import os, pwd, sys

def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = getpwuid
os.environ.pop("HOME", None)
sys.modules["IPython"] = None  # it needs a home, and older releases of Plotly log so
"""


def test_a_user_unknown_to_the_system_needs_no_home(photos: Path, tmp_path: Path) -> None:
    """As in a container that runs under any number."""
    (tmp_path / "sitecustomize.py").write_text(NOBODY)
    paths = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    environment = {**os.environ, "PYTHONPATH": paths}
    build = ("tables", "build", photos, "-c", "jpeg", "-m", "psnr", "-j", "1", "-o", "run.db")
    pack = ("submit", "run.db", "-t", "2", "-o", "entry", "--python", THIS_PYTHON)
    for command in (build, ("report", "run.db", "-t", "2", "-o", "page.html"), pack):
        words = [sys.executable, "-m", "allocator", *map(str, command)]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_json_into_a_closed_pipe_ends_quietly(table: Path) -> None:
    command = f"{sys.executable} -m allocator tables show {table} --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode in (0, 141)


def test_an_unreadable_folder_is_named_and_stops_a_build(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "set"))
    (folder / "closed").mkdir()
    listed = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refusing)
    command = ("tables", "build", folder, "-c", "jpeg", "-m", "psnr", "-o", tmp_path / "run.db")
    ran = run(*command)
    assert ran.code == 2
    assert "closed: this folder can't be read (Permission denied)" in ran.err
    assert not (tmp_path / "run.db").exists()
    ran = run(*command, "--keep-going")
    assert ran.code == 1
    assert "closed: this folder can't be read" in ran.err
    assert "5 images" in ran.out


def test_an_image_next_to_a_folder_with_its_decoded_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.png").mkdir()
    for path in (tmp_path / "p.jpg", tmp_path / "p.png" / "inner.jpg"):
        Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(AllocatorError, match=r"p\.jpg: the folder p\.png has the name"):
        find_images([tmp_path])
