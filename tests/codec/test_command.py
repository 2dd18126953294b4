"""Codecs that are programs: a real ffmpeg, and small scripts that misbehave."""

import dataclasses
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from codec import BitstreamError, CodecError, RGBImage, codec_for_file, get_codec, names
from codec.command import Command, CommandCodec, CommandError
from codec.entries import COMMAND_FILES as COMMANDS
from codec.entries import EntryError, Model, known_entries, read_entries
from codec.yuv import BITS, from_yuv, to_yuv
from tests.codec import reference_model
from tests.helpers import posix_only, run, started

FFMPEG = """
[hevc-by-ffmpeg]
encode = ["ffmpeg", "-v", "error", "-y", "-i", "{input}", "-frames:v", "1", "-pix_fmt", "yuv444p", "-c:v", "libx265",
    "-crf", "{quality}", "-x265-params", "log-level=none:pools=none", "-f", "hevc", "{output}"]
decode = ["ffmpeg", "-v", "error", "-y", "-f", "hevc", "-i", "{input}", "-frames:v", "1", "{output}"]
version = ["ffmpeg", "-version"]
suffix = ".265"
qualities = [45, 35, 25]
"""


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "my commands.toml"
    file.write_text(FFMPEG)
    monkeypatch.setenv(COMMANDS, str(file))
    return file


def script(folder: Path, code: str, **more: object) -> str:
    """An entry whose program is Python with some code; sys.argv is quality, input, output."""
    program = folder / "program.py"
    program.write_text("import shutil, sys, time\nquality, source, target = sys.argv[1:]\n" + code)
    line = f'["{Path(sys.executable).as_posix()}", "{program.as_posix()}", "{{quality}}", "{{input}}", "{{output}}"]'
    settings = "".join(f"{key} = {value}\n" for key, value in more.items())
    return f'[script]\nencode = {line}\ndecode = {line}\nsuffix = ".copy"\nqualities = [1, 2]\n{settings}'


def leftovers() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"clic-allocator-*-{os.getpid()}-*"))


@pytest.mark.parametrize("size", [(112, 112), (63, 65), (37, 90)])
def test_vvc_comes_back_in_its_own_size(size: tuple[int, int], photo: RGBImage) -> None:
    image = photo[: size[0], : size[1]].copy()
    vvc = get_codec("vvc")
    streams = [vvc.encode(image, level) for level in (2, 10)]
    assert len(streams[0]) < len(streams[1])
    errors = [np.abs(vvc.decode(one).astype(int) - image).mean() for one in streams]
    assert errors[1] < errors[0]
    assert errors[1] < 12
    assert vvc.encode(image, 2) == streams[0]
    assert codec_for_file("a.png.vvc") is vvc
    assert "ffmpeg version" in vvc.version
    assert not leftovers()


RAW = """
[raw]
encode = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "{format}", "-s", "{{width}}x{{height}}",
    "-i", "{{input}}", "-c:v", "libx265", "-crf", "{{quality}}", "-x265-params", "log-level=none:pools=none",
    "-f", "hevc", "{{output}}"]
decode = ["ffmpeg", "-v", "error", "-y", "-f", "hevc", "-i", "{{input}}",
    "-f", "rawvideo", "-pix_fmt", "{format}", "{{output}}"]
suffix = ".raw.265"
format = "{format}"
multiple = 8
qualities = [45, 10]
"""


@pytest.mark.parametrize("format", BITS)
def test_raw_video_goes_through_a_real_encoder(
    format: str, photo: RGBImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raw.toml").write_text(RAW.format(format=format))
    monkeypatch.setenv(COMMANDS, str(tmp_path / "raw.toml"))
    codec = get_codec("raw")
    image = photo[:37, :90].copy()
    streams = [codec.encode(image, level) for level in (0, 1)]
    errors = [np.abs(codec.decode(one).astype(int) - image).mean() for one in streams]
    assert errors[1] < 3 < errors[0]
    assert len(streams[0]) < len(streams[1])
    for damaged in (b"", b"\xff" * 9, streams[1][:2], b"\x01\x01" + streams[1][2:]):
        with pytest.raises(BitstreamError):
            codec.decode(damaged)
    assert not leftovers()


def test_raw_video_keeps_colours() -> None:
    steps = np.arange(0, 256, 17, np.uint8)
    image = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(64, 64, 3)
    known = {
        (255, 0, 0): (54, 99, 255),
        (0, 255, 0): (182, 30, 12),
        (0, 0, 255): (18, 255, 116),
        (255,) * 3: (255, 128, 128),
    }
    for rgb, expected in known.items():  # BT.709, full range
        assert tuple(to_yuv(np.array([[rgb]], np.uint8), "yuv444p")) == expected
    for format, most in (("yuv444p", 2), ("yuv444p10le", 0)):
        assert np.abs(from_yuv(to_yuv(image, format), 64, 64, format).astype(int) - image).max() <= most


@posix_only
@pytest.mark.parametrize(
    ("name", "programs"),
    [("vtm", ("EncoderAppStatic", "DecoderAppStatic")), ("hm", ("TAppEncoderStatic", "TAppDecoderStatic"))],
)
def test_reference_models_are_given_raw_video_and_a_configuration(
    name: str, programs: tuple[str, str], photo: RGBImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in programs:
        (tmp_path / program).write_text(f"#!{sys.executable}\n{Path(reference_model.__file__).read_text()}")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    variable = f"{name.upper()}_CONFIG"
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(CommandError, match=f"configuration file, which the environment variable {variable} names"):
        get_codec(name)
    assert name not in names()
    (tmp_path / "intra.cfg").write_text("IntraPeriod : 1")
    monkeypatch.setenv(variable, str(tmp_path / "intra.cfg"))
    codec = get_codec(name)
    assert name in names()
    image = photo[:50, :33].copy()
    streams = [codec.encode(image, level) for level in range(len(codec.levels))]
    errors = [np.abs(codec.decode(one).astype(int) - image).mean() for one in streams]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 3
    assert [len(one) for one in streams] == sorted(len(one) for one in streams)
    before = codec.version
    (tmp_path / "intra.cfg").write_text("IntraPeriod : 1 # other")
    monkeypatch.setenv(variable, str(tmp_path / "intra.cfg"))
    entry = known_entries()[name]
    assert isinstance(entry, Command)
    assert CommandCodec(name, entry).version != before


def test_an_entry_of_ones_own_is_a_codec_in_every_command(entries: Path, photos: Path, tmp_path: Path) -> None:
    assert "hevc-by-ffmpeg" in names()
    table = tmp_path / "run.db"
    built = run("tables", "build", photos, "-c", "hevc-by-ffmpeg", "-m", "psnr", "-o", table, "-j", 2)
    assert built.code == 0, built.err
    solved = run("solve", table, "--target", "2")
    assert solved.code == 0, solved.err
    refused = run("submit", table, "--target", "2", "-o", tmp_path / "entry")
    assert refused.code == 2
    assert "a program that a decoder can't include: its entry names no static binary" in refused.err
    packed = run("submit", table, "--target", "2", "-o", tmp_path / "entry", "--no-decoder")
    assert packed.code == 0, packed.err
    verified = run("verify", tmp_path / "entry")
    assert verified.code == 0, verified.out + verified.err


def test_untrusted_bytes_are_refused_and_leave_nothing(entries: Path) -> None:
    for name in ("hevc-by-ffmpeg", "vvc"):
        for data in (b"", b"\0", b"no stream at all" * 20):
            with pytest.raises(BitstreamError, match=f"not a complete {name} bitstream"):
                get_codec(name).decode(data)
    assert not leftovers()


@pytest.mark.parametrize(
    ("code", "more", "says"),
    [
        ("sys.exit('out of ideas')", {}, r"ended with status 1 \(out of ideas\)"),
        ("pass", {}, "wrote no bitstream"),
        ("time.sleep(30)", {"seconds": 0.5}, "took longer than 0.5 seconds"),
    ],
)
def test_a_failing_program_gives_one_sentence(
    code: str, more: dict[str, object], says: str, photo: RGBImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "commands.toml").write_text(script(tmp_path, code, **more))
    monkeypatch.setenv(COMMANDS, str(tmp_path / "commands.toml"))
    with pytest.raises(CommandError, match=says):
        get_codec("script").encode(photo, 0)
    assert not leftovers()


def test_arguments_never_meet_a_shell(photo: RGBImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = script(tmp_path, "shutil.copy(source, target)").replace("[1, 2]", '["1; touch harm", "$(touch harm)"]')
    (tmp_path / "commands.toml").write_text(entry)
    monkeypatch.setenv(COMMANDS, str(tmp_path / "commands.toml"))
    monkeypatch.chdir(tmp_path)
    copies = get_codec("script")
    for level in (0, 1):
        assert np.array_equal(copies.decode(copies.encode(photo, level)), photo)
    assert not (tmp_path / "harm").exists()


@posix_only
def test_a_killed_build_leaves_neither_programs_nor_files(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "commands.toml").write_text(
        script(tmp_path, f"open({str(tmp_path / 'runs')!r}, 'a').write('x')\ntime.sleep(60)")
    )
    env = {COMMANDS: str(tmp_path / "commands.toml"), "TMPDIR": str(tmp_path / "scratch")}
    (tmp_path / "scratch").mkdir()
    arguments = ("tables", "build", photos, "-c", "script", "-m", "psnr", "-o", tmp_path / "run.db", "-j", 1)
    with started(*arguments, env=env) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "runs").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        while programs(tmp_path):
            assert time.monotonic() < deadline, "a program outlives the build"
            time.sleep(0.05)
    assert list((tmp_path / "scratch").iterdir())  # nobody was left to clean up
    (tmp_path / "commands.toml").write_text(script(tmp_path, "shutil.copy(source, target)"))
    with started(*arguments, env=env) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert not list((tmp_path / "scratch").iterdir())


def programs(folder: Path) -> list[int]:
    """Processes that run a folder's script."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder / "program.py") in (process / "cmdline").read_bytes().decode(errors="replace"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "bpg" not in names()
    with pytest.raises(CommandError, match=r"bpg needs bpgdec and bpgenc on the PATH\."):
        get_codec("bpg")


def test_a_program_that_takes_too_long_takes_its_own_programs_along(
    photo: RGBImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import subprocess\nsubprocess.run([sys.executable, '-c', 'import time; time.sleep(60)', __file__])"
    (tmp_path / "commands.toml").write_text(script(tmp_path, code, seconds=2))
    monkeypatch.setenv(COMMANDS, str(tmp_path / "commands.toml"))
    with pytest.raises(CommandError, match="took longer"):
        get_codec("script").encode(photo, 0)
    deadline = time.monotonic() + 10
    while programs(tmp_path):
        assert time.monotonic() < deadline, "a program's own program outlives it"
        time.sleep(0.05)


def test_a_suffix_may_choose_the_format_and_changes_the_version(entries: Path) -> None:
    [command] = read_entries(entries).values()
    assert isinstance(command, Command)
    silent = dataclasses.replace(command, encode=(sys.executable, *command.encode[1:]), version=())
    silent = dataclasses.replace(silent, decode=(sys.executable, *command.decode[1:]))
    versions = {CommandCodec("x", dataclasses.replace(silent, suffix=one)).version for one in (".265", ".mkv")}
    assert len(versions) == 2


def test_a_single_checkpoint_needs_no_list(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[mine]\nmodel = "module:mine:Model"\ncheckpoints = "mine.pth"\n')
    assert read_entries(path) == {"mine": Model(f"module:mine:Model@{tmp_path / 'mine.pth'}")}
    path.write_text('[mine]\nmodel = "module:mine:Model"\ncheckpoints = ["a,b.pth"]\n')
    with pytest.raises(EntryError, match="contains a comma"):
        read_entries(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[x", "is not a valid TOML file"),
        ("x = 1", "is not a valid codec"),
        ('[x]\nencode = ["a"]\n', "is not a valid codec"),
        (FFMPEG.replace("{output}", "out"), "is not a valid codec"),
        (FFMPEG.replace("[45, 35, 25]", "[45, 45]"), "is not a valid codec"),
        (FFMPEG.replace('".265"', '"../265"'), "is not a valid codec"),
        (FFMPEG + "colour = 1\n", "is not a valid codec"),
        (FFMPEG + "multiple = 0\n", "is not a valid codec"),
        (FFMPEG + "multiple = 2.0\n", "is not a valid codec"),
        (FFMPEG + "seconds = inf\n", "is not a valid codec"),
        (FFMPEG.replace('["ffmpeg", "-version"]', '"ffmpeg -version"'), "is not a valid codec"),
    ],
)
def test_entries_that_make_no_codec_are_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "commands.toml").write_text(text)
    with pytest.raises(EntryError, match=says):
        read_entries(tmp_path / "commands.toml")
    with pytest.raises(CodecError, match="can't be read"):
        read_entries(tmp_path / "none.toml")
