"""Shared parts: real photos, small enough to be quick, and the command line as a person runs it."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import skimage.data
from PIL import Image

import allocator.cli

# The images are tiny: on busy cores, threads that wait for one another take ten times as long as one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
SKIMAGE = Path(skimage.data.__file__).parent
CROPS = {
    "astronaut": (60, 0, 188, 96),
    "chelsea": (120, 60, 232, 172),
    "coffee": (150, 80, 310, 176),
    "motorcycle_left": (200, 150, 328, 278),
    "rocket": (250, 100, 346, 228),
}


FAST = (
    "allocator/cli",
    "allocator/test_metrics.py",
    "allocator/test_objective.py",
    "allocator/test_plot.py",
    "allocator/solver/test_hull.py",
    "allocator/solver/test_knapsack.py",
    "allocator/solver/test_pulp_solvers.py",
    "allocator/test_report.py",
    "allocator/test_tables.py",
    "codec/entropy",
    "codec/layers",
    "codec/test_bitstream.py",
    "codec/test_command.py",
    "codec/test_compressai_codec.py",
    "codec/test_golden.py",
    "codec/test_image.py",
    "codec/test_pillow.py",
    "codec/test_remote.py",
    "codec/training/test_losses.py",
    "submissions/test_archive.py",
    "submissions/test_decode.py",
)
"""Modules that use all dependencies and take a few minutes together: `pytest -m fast`. `.ci/run` runs them with the
newest and with the oldest versions too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).as_posix().startswith(FAST) and not item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.fast)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five crops of real photos, of different sizes around 0.015 megapixels."""
    folder = tmp_path_factory.mktemp("photos")
    for name, box in CROPS.items():
        source = next(SKIMAGE.glob(f"{name}.*"))
        Image.open(source).convert("RGB").crop(box).save(folder / f"{name}.png")
    return folder


THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""What decoders of the tests are packed for: no wheel has to be fetched."""


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def run(*arguments: object) -> Ran:
    """The command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["allocator", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
            allocator.cli.main()
    finally:
        sys.argv = argv
    return Ran(int(left.value.code or 0), out.getvalue(), err.getvalue())


def _heed_interrupts() -> None:
    """As a terminal starts it; a shell's background job would hand on that interrupts are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def started(*arguments: object, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """The command line, in a process group of its own that never outlives the block."""
    command = [str(Path(sys.executable).with_name("allocator")), *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **(env or {})},
        preexec_fn=_heed_interrupts,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="session")
def table(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos' table: JPEG and WebP, PSNR and MS-SSIM. Not to be changed."""
    path = tmp_path_factory.mktemp("table") / "run.db"
    ran = run(
        "tables", "build", photos, "-c", "jpeg", "-c", "webp", "-m", "psnr", "-m", "ms-ssim", "-o", path, "-j", 2
    )
    assert ran.code == 0, ran.err
    return path


def data(*parts: str) -> Path:
    """A path in the shared data; the test is skipped where there is none."""
    root = os.environ.get("ALLOCATOR_DATA")
    if not root:
        pytest.skip("ALLOCATOR_DATA is not set")
    return Path(root, *parts)
