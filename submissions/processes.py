"""A program with all its child processes on Linux: measure their memory, limit it, and end them."""

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from codec.workers import end_group

_TRIES = 100
_MOST_PROCESSES = 4096
_TEMPORARY = ("/dev/shm", "/tmp")
"""Folders in memory, inside the sandbox."""


def descendants(process: int) -> list[psutil.Process]:
    """The running descendants of a process, in any session."""
    found = []
    with contextlib.suppress(psutil.Error):
        for one in psutil.Process(process).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if one.status() != psutil.STATUS_ZOMBIE:
                    found.append(one)
    return found


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a program that leads a session, with all its child processes."""
    for _ in range(_TRIES):  # processes that are started in the meantime are found the next time
        alive = descendants(process.pid)
        for child in alive:
            with contextlib.suppress(psutil.Error):
                child.kill()
        if not alive:
            break
        time.sleep(0.01)
    end_group(process.pid)
    process.wait()


def memory_of(process: int) -> int:
    """Bytes of a program with all its child processes: proportional shares of shared memory, and files in memory.

    An excessive number of processes counts as all memory.
    """
    below = descendants(process)
    if len(below) > _MOST_PROCESSES:
        return sys.maxsize
    total = 0
    if sys.platform != "linux":
        with contextlib.suppress(psutil.Error):
            below.append(psutil.Process(process))
        for other in below:
            with contextlib.suppress(psutil.Error):
                total += int(other.memory_info().rss)
        return total
    found = [process, *(one.pid for one in below)]
    for one in found:
        with contextlib.suppress(OSError, IndexError, ValueError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) << 10
    files = _in_temporary(found)
    return total + max(0, files - _measure_mapped(found)) if files else total


def _in_temporary(processes: list[int]) -> int:
    """Bytes of the files in their folders in memory, which differ from those of this process."""
    own = {Path(folder).stat().st_dev for folder in _TEMPORARY if Path(folder).is_dir()}
    sizes: dict[int, int] = {}
    for process in processes:
        for folder in _TEMPORARY:
            with contextlib.suppress(OSError):
                place = Path(f"/proc/{process}/root{folder}")
                device = place.stat().st_dev
                if device not in own and device not in sizes:
                    status = os.statvfs(place)
                    sizes[device] = (status.f_blocks - status.f_bfree) * status.f_frsize
    return sum(sizes.values())


def _measure_mapped(processes: list[int]) -> int:
    """The part of these files that is already counted in their memory."""
    total = 0
    for process in processes:
        with contextlib.suppress(OSError, IndexError, ValueError):
            inside = False
            for line in Path(f"/proc/{process}/smaps").read_text(errors="replace").splitlines():
                name = line.split(maxsplit=5)
                if not name[0].endswith(":"):
                    inside = len(name) > 5 and name[5].startswith(tuple(f"{folder}/" for folder in _TEMPORARY))
                elif inside and name[0] == "Pss:":
                    total += int(name[1]) << 10
    return total


class MemoryGroup(NamedTuple):
    """A control group with a memory limit."""

    folder: Path

    @property
    def processes(self) -> Path:
        """The file for process ids: a process whose id is written there belongs to the group with its children."""
        return self.folder / "cgroup.procs"

    def ran_out(self) -> bool:
        """Whether the kernel has ended a process for lack of memory."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                for line in (self.folder / name).read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1]) > 0
        return False


@contextlib.contextmanager
def memory_group(memory: int) -> Iterator[MemoryGroup | None]:
    """A control group with a memory limit, if one can be created."""
    group = None
    for parent, limit, others in _parents():
        folder = parent / f"allocator-verify-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / limit).write_text(str(memory))
            for name, value in others.items():
                with contextlib.suppress(OSError):  # there is no swap, or it is not counted
                    (folder / name).write_text(str(memory if value is None else value))
            group = MemoryGroup(folder)
            break
        except OSError:
            _remove(folder)
    try:
        yield group
    finally:
        if group:
            _remove(group.folder)


def _remove(folder: Path) -> None:
    for _ in range(_TRIES):  # until the last process has ended
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)


def _parents() -> Iterator[tuple[Path, str, dict[str, int | None]]]:
    """The parent folder for a group; its file for the limit, and others with their values (None: the limit)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        mounts = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, own = line.split(":", 2)
            for mount in mounts:
                kind, options = mount[mount.index("-") + 1], mount[-1].split(",")
                place = Path(mount[4]) / os.path.relpath(own, mount[3])
                if kind == "cgroup" and "memory" in options and "memory" in controllers.split(","):
                    yield place, "memory.limit_in_bytes", {"memory.memsw.limit_in_bytes": None}
                elif kind == "cgroup2" and not controllers:
                    for parent in (place, *place.parents):
                        if not parent.is_relative_to(mount[4]):
                            break
                        with contextlib.suppress(OSError):
                            if "memory" in (parent / "cgroup.subtree_control").read_text().split():
                                yield parent, "memory.max", {"memory.swap.max": 0, "pids.max": _MOST_PROCESSES}
