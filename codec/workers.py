"""What processes that work side by side need: how many fit, and an end with their parent's."""

import multiprocessing
import os
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
