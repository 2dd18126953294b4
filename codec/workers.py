"""What processes that work side by side need: how many fit, and an end with their parent's."""

import contextlib
import multiprocessing
import os
import signal
import threading
from pathlib import Path


def cores() -> int:
    """Cores that may be used: those of this process, no more than a container's share."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = container_limit("cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        own = min(own, max(1, int(quota) // int(period)))
    return own


def container_limit(name: str) -> str:
    """A container's limit, as Linux tells it; empty where there is none to be seen."""
    try:
        return Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return ""


def leave_with_parent() -> None:
    """From now on this process ends when its parent is killed, which else leaves it waiting for work."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def end_group(process: int) -> None:
    """End a process that was started in a session of its own, and all that it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        return
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process)
        for one in [*parent.children(recursive=True), parent]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def is_running(process: int) -> bool:
    """Whether there is such a process that has not ended; if nothing tells, it is taken for one."""
    try:
        import psutil
    except ImportError:  # in a decoder
        return True
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    return bool(psutil.pid_exists(process))
