"""The challenge's server, as far as a machine can be it: its packages, no network, its limits, a watch over it."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import platformdirs
import psutil
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from codec.workers import end_group
from submissions.errors import SubmissionError

PACKAGES = (
    "bitstring h5py ipython matplotlib numpy pandas pillow range-coder scikit-image scikit-learn scipy seaborn "
    "statsmodels torch torchvision"
).split()
"""What the devkit installs (August 2025)."""
PYTHON = "3.12"
_POLL_SECONDS = 0.2
_MOST_ERRORS, _MOST_LINES, _MOST_WIDTH = 1 << 20, 50, 500
"""Of what a decoder writes to stderr: bytes that are kept, lines and characters of each that are shown."""


@dataclass
class Watched:
    """How a run of the decoder went."""

    code: int | None
    """Exit status; None if it was stopped."""
    seconds: float
    peak_bytes: int
    """The most memory of its processes together, shared memory counted once."""
    errors: list[str]
    """Lines of its stderr."""
    unenforced: list[str] = field(default_factory=list)
    """Limits that the machine couldn't enforce, and why."""


def filtered(folder: Path) -> dict[str, str]:
    """An environment with this Python that imports nothing but the devkit's packages and what they require.

    Args:
        folder: empty; links to the packages are made there.

    Returns:
        Environment variables.
    """
    packages, binaries = folder / "packages", folder / "bin"
    packages.mkdir(parents=True)
    binaries.mkdir()
    for name, place in _places().items():
        try:
            (packages / name).symlink_to(place)
        except OSError as error:
            raise SubmissionError(
                f"The server's environment is made of links, which this system doesn't let you make ({error}); "
                "verify on Linux or macOS."
            ) from error
    launcher = binaries / "python3"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # without its own site-packages
    launcher.chmod(0o755)
    return _environment(binaries, folder) | {"PYTHONPATH": str(packages)}


def server_modules() -> set[str]:
    """The top-level modules that the devkit's packages install, as far as they are installed here."""
    return {name.partition(".")[0] for name in _places() if not name.endswith(("-info", ".libs"))}


@functools.cache
def _places() -> dict[str, Path]:
    """Where what the devkit's packages install lies here, by name."""
    places: dict[str, Path] = {}
    for distribution in _closure(PACKAGES):
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            places[top] = Path(str(distribution.locate_file(top))).resolve()
    return places


def _closure(names: list[str]) -> Iterator[importlib.metadata.Distribution]:
    seen: set[str] = set()
    left = [canonicalize_name(name) for name in names]
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # the decoder doesn't need it either
        for text in distribution.requires or ():
            with contextlib.suppress(InvalidRequirement):
                requirement = Requirement(text)
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    left.append(canonicalize_name(requirement.name))
        yield distribution


def server_python(wanted: str | None = None) -> str:
    """The command of a Python: the wanted one, else 3.12, where it is on the PATH, else this one.

    Raises:
        SubmissionError: the wanted one isn't there.
    """
    found = shutil.which(wanted) if wanted else shutil.which(f"python{PYTHON}") or sys.executable
    if found is None:
        raise SubmissionError(f"There is no Python called {wanted!r}.")
    return str(Path(found).resolve())


def cache(python: str) -> Path:
    """Where :func:`built` keeps the environment of a Python."""
    home = platformdirs.user_cache_path("clic-allocator", appauthor=False)
    return home / f"devkit-{hashlib.sha256(python.encode()).hexdigest()[:8]}"


def built(folder: Path, python: str, report: Callable[[str], None] = lambda line: None) -> dict[str, str]:
    """A virtual environment with the devkit's packages from the registry; made once, then used again.

    Args:
        folder: where it is kept.
        python: of the server, from :func:`server_python`.
        report: told what is done.

    Returns:
        Environment variables.

    Raises:
        SubmissionError: it can't be made.
    """
    done = folder / "complete"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        report(f"Installing the devkit's packages for {python} into {folder}; gigabytes, once.")
        for command in (
            [python, "-m", "venv", str(folder)],
            [str(folder / "bin" / "python3"), "-m", "pip", "install", "--quiet", *PACKAGES],
        ):
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode:
                last = (ran.stderr.strip().splitlines() or ["no word"])[-1]
                raise SubmissionError(f"The devkit's environment can't be made: {last}")
        done.touch()
    return _environment(folder / "bin", folder)


def _environment(binaries: Path, home: Path) -> dict[str, str]:
    return {"PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"}


def watch(
    folder: Path,
    environment: dict[str, str],
    *,
    cpus: int,
    memory: int,
    seconds: float,
    command: Sequence[str] = ("./decode",),
    own: bool = False,
) -> Watched:
    """Run ``./decode`` in a folder as the server would, and stop it where it goes beyond a limit.

    Args:
        folder: the working directory, with the decoder and the data.
        environment: variables, from :func:`filtered` or :func:`built`.
        cpus: that it may use.
        memory: bytes that its processes may take together.
        seconds: that it may run.
        command: what is run instead.
        own: whether that is this project's, and needs no walls around it.

    Raises:
        SubmissionError: it can't be started.
    """
    offline = [] if own else _offline()
    limits = (lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cpus])) if _linux() else None
    start = time.monotonic()
    try:
        process = subprocess.Popen(
            [*offline, *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=limits,
        )
    except OSError as error:
        raise SubmissionError(f"decode can't be started ({error.strerror}).") from error
    peak, stopped = 0, ""
    errors = bytearray()
    reader = threading.Thread(target=_read_errors, args=(process.stderr, errors), daemon=True)
    reader.start()
    try:
        while not stopped:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
                break
            now = _memory_of(process.pid)
            peak = max(peak, now)
            if now > memory:
                stopped = f"takes more than {memory / 2**30:g} GiB of memory"
            elif time.monotonic() - start > seconds:
                stopped = f"takes longer than {seconds / 3600:g} hours"
    finally:  # also after Ctrl-C, which doesn't reach its session
        end_group(process.pid)
        process.wait()
    reader.join(1)
    lines = [f"it {stopped}."] if stopped else _lines(bytes(errors))
    unenforced = [] if own or offline else ["network: this system doesn't let the decoder be cut off from it."]
    if not (own or limits):
        unenforced.append("cores: this system doesn't keep a process to some of them.")
    return Watched(None if stopped else process.returncode, time.monotonic() - start, peak, lines, unenforced)


def _read_errors(stream: IO[bytes], kept: bytearray) -> None:
    """Keep the beginning of what a process writes, and let the rest go."""
    with contextlib.suppress(OSError, ValueError):
        while block := stream.read1(1 << 16):  # type: ignore[attr-defined]
            kept += block[: _MOST_ERRORS - len(kept)]


def _lines(errors: bytes) -> list[str]:
    """What a person is shown of a decoder's stderr: its first lines and the last, without control characters."""
    lines = errors.decode(errors="backslashreplace").strip().splitlines()
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], f"({len(lines) - _MOST_LINES:,} more lines)", lines[-1]]
    return ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in line[:_MOST_WIDTH]) for line in lines]


def _linux() -> bool:
    return sys.platform == "linux"


def _offline() -> list[str]:
    """What a command is put behind to have no network; nothing where the system doesn't allow it."""
    command = ["unshare", "--map-root-user", "--net"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        return []
    return command


def _memory_of(session: int) -> int:
    """Bytes that the processes of a session take, each its share of what they share where the system tells."""
    if not _linux():
        total = 0
        with contextlib.suppress(psutil.Error):
            leader = psutil.Process(session)
            for process in [leader, *leader.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
        return total
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                for line in (folder / "smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) << 10
    return total
