"""Parallel processes: their number, and their end together with their parent."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

MOST_PROCESSES = 61 if sys.platform == "win32" else 1 << 16
"""The most processes of a pool: Windows waits for no more."""


def cores() -> int:
    """The number of usable cores: those of this process, at most the limit of a container and of a pool."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    own = min(own, MOST_PROCESSES)
    quota, _, period = container_limit("cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        own = min(own, max(1, int(quota) // int(period)))
    return own


def container_limit(name: str) -> str:
    """A container's limit on Linux; empty if none is visible."""
    try:
        return Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return ""


def leave_with_parent() -> None:
    """End this process when its parent is killed; otherwise it would wait for work."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def end_group(process: int) -> None:
    """End a process that was started in its own session, and all its child processes."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS permits none for processes that ended
            os.killpg(process, signal.SIGKILL)
        return
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process)
        for one in [*parent.children(recursive=True), parent]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def is_running(process: int) -> bool:
    """Whether a process exists and has not ended; True if that can't be determined."""
    try:
        import psutil
    except ImportError:  # in a decoder
        return True
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    return bool(psutil.pid_exists(process))
