"""Shared functions of many tests: the command line as a user runs it, and the location of real photos."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import skimage.data

import allocator.cli
from codec.workers import end_group

SKIMAGE = Path(skimage.data.__file__).parent
CROPS = {
    "astronaut": (60, 0, 188, 96),
    "chelsea": (120, 60, 232, 172),
    "coffee": (150, 80, 310, 176),
    "motorcycle_left": (200, 150, 328, 278),
    "rocket": (250, 100, 346, 228),
}
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""What decoders of the tests are packed for: no wheel has to be fetched."""
posix_only = pytest.mark.skipif(os.name != "posix", reason="Windows lacks these signals, files or permissions")


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


def memory_peak(*, reset: bool = False) -> int:
    """The most memory that this process has had so far, in kB.

    Args:
        reset: count from now on, where Linux allows it: otherwise a heavier test before hides what this one takes.
    """
    import resource

    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


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
        preexec_fn=_heed_interrupts if os.name == "posix" else None,
    )
    try:
        yield process
    finally:
        end_group(process.pid)
        process.communicate()


def is_running(process: int) -> bool:
    """Whether a process exists and is no zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    return False


def wait_until(happened: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for an event in another process; the test fails if it does not happen."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def data(*parts: str) -> Path:
    """A path in the shared data; the test is skipped where there is none."""
    root = os.environ.get("ALLOCATOR_DATA")
    if not root:
        pytest.skip("ALLOCATOR_DATA is not set")
    return Path(root, *parts)
