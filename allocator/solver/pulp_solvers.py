"""PuLP's solvers in a child process, so that a crash, a hang or a lack of memory loses only the proof.

:func:`run` takes a PuLP program and returns a typed, checked :class:`Outcome`. A child is started for the first
program and also solves later ones. A child that fails is ended with all its processes, and the next program gets
a new one. Children always end with this process.
"""

import atexit
import contextlib
import contextvars
import importlib.util
import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from allocator.errors import SolveError

_SCRIPT = Path(__file__).with_name("process.py")
_START = 60.0  # seconds for a child to import PuLP
_GRACE = 2.0  # seconds, plus a tenth of its time limit, for a solver to stop by itself after the limit
_POLL = 0.1  # seconds between checks for a cancellation; Windows handles Ctrl-C only between waits
_LARGEST = 1e100  # of a value; sums of larger ones could overflow
_INTEGRAL = 1e-5  # accepted difference from a whole number; solvers' own tolerances are 1e-6 or less
_FEASIBLE = 1e-6  # relative to a constraint's terms


class Status(StrEnum):
    """A solver's result for a program."""

    optimal = "optimal"
    feasible = "feasible"
    """There are values, but they are not proven optimal."""
    infeasible = "infeasible"
    unbounded = "unbounded"
    unsolved = "unsolved"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a program."""

    status: Status
    values: dict[str, float] = field(default_factory=dict)
    """The value of every variable by name, if optimal or feasible. The values satisfy the program's constraints up to
    a relative 1e-6; those of integer variables are whole numbers.
    """
    reason: str = ""
    """One sentence on why nothing is proven, if feasible or unsolved."""
    seconds: float = 0.0


class Cancelled(Exception):
    """Another thread cancelled the solver, see :func:`cancelled_by`."""


class _Failure(Exception):
    """The child process can't be used any more; the message continues a sentence that starts with the solver."""


_cancellation: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("cancellation", default=None)


@contextlib.contextmanager
def cancelled_by(event: threading.Event) -> Iterator[None]:
    """Cancel the programs of this thread within the block when another thread sets an event.

    A running solver is ended with all its processes, and :func:`run` raises :class:`Cancelled`.
    """
    token = _cancellation.set(event)
    try:
        yield
    finally:
        _cancellation.reset(token)


def _is_cancelled() -> bool:
    event = _cancellation.get()
    return event is not None and event.is_set()


def require(solver: str) -> None:
    """Check cheaply that a solver exists.

    Args:
        solver: ``cbc``, ``highs``, PuLP's name of another, or ``module:Class`` for a class with PuLP's interface.

    Raises:
        SolveError: there is no such solver, or it is not installed.
    """
    if solver == "highs" and importlib.util.find_spec("highspy") is None:
        raise SolveError("The solver 'highs' isn't installed; pip install \"clic-allocator[highs]\".")
    if solver in ("cbc", "highs") or ":" in solver:
        return
    import pulp

    if solver not in pulp.listSolvers():
        raise SolveError(f"There is no solver {solver!r}; use cbc, highs or one of {', '.join(pulp.listSolvers())}.")


def list_solvers() -> list[str]:
    """The names of the installed PuLP solvers, sorted: ``cbc`` and ``highs``, and PuLP's names of others."""
    import pulp

    names = {"PULP_CBC_CMD": "cbc", "HiGHS": "highs"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sorted(names.get(name, name) for name in pulp.listSolvers(onlyAvailable=True))


def run(program: Any, solver: str, time_limit: float | None = None) -> Outcome:
    """Solve a program to proven optimality in a child process, or as far as the time allows.

    Args:
        program: a ``pulp.LpProblem`` whose variables have different names. It is not changed.
        solver: see :func:`require`.
        time_limit: seconds. A solver that does not stop soon after is ended.

    Raises:
        SolveError: there is no such solver, or it is not installed.
        Cancelled: see :func:`cancelled_by`.
    """
    require(solver)
    start = time.monotonic()
    request = {"program": program.toDict(), "solver": solver, "time_limit": time_limit}
    try:
        if time_limit is not None and time_limit <= 0:
            raise _Failure("had no time left")
        answer = _ask(request, time_limit)
    except _Failure as failure:
        return Outcome(Status.unsolved, reason=f"The solver {solver!r} {failure}.", seconds=time.monotonic() - start)
    if "unavailable" in answer:
        raise SolveError(f"The solver {solver!r} isn't installed.")
    seconds = time.monotonic() - start
    late = time_limit is not None and seconds >= 0.9 * time_limit
    status, values, reason = _read(program, answer)
    if late and status in (Status.feasible, Status.unsolved):
        reason = f"reached its time limit of {time_limit:.3g} s"
    return Outcome(status, values, reason and f"The solver {solver!r} {reason}.", seconds)


class PulpSolver:
    """A solver, and a time limit that all its programs share.

    Args:
        solver: see :func:`require`.
        time_limit: seconds from now; None for no limit.

    Raises:
        SolveError: there is no such solver, or it is not installed.
    """

    def __init__(self, solver: str, time_limit: float | None = None) -> None:
        require(solver)
        self._solver = solver
        self._deadline = None if time_limit is None else time.monotonic() + time_limit

    def run(self, program: Any) -> Outcome:
        """:func:`run` within the remaining time."""
        return run(program, self._solver, None if self._deadline is None else self._deadline - time.monotonic())


def _read(program: Any, answer: dict[str, Any]) -> tuple[Status, dict[str, float], str]:
    """The checked status and values of an answer, and why nothing is proven."""
    import pulp

    statuses = {
        pulp.LpSolutionOptimal: Status.optimal,
        pulp.LpSolutionIntegerFeasible: Status.feasible,
        pulp.LpSolutionInfeasible: Status.infeasible,
        pulp.LpSolutionUnbounded: Status.unbounded,
    }
    if "error" in answer:
        return Status.unsolved, {}, f"failed: {' '.join(answer['error'].split())}".rstrip(".")
    status = statuses.get(answer["status"], Status.unsolved)
    if status is Status.unsolved:
        return status, {}, "found no solution"
    if status not in (Status.optimal, Status.feasible):
        return status, {}, ""
    if fault := _fault(program, answer["values"]):
        return Status.unsolved, {}, f"returned an invalid solution: {fault}"
    values = {x.name: answer["values"][x.name] for x in program.variables()}
    values |= {x.name: float(round(values[x.name])) for x in program.variables() if x.cat == pulp.LpInteger}
    return status, values, "stopped without a proof" if status is Status.feasible else ""


def _fault(program: Any, values: dict[str, Any]) -> str:
    """The fault in the values of a program's variables; empty if there is none."""
    import pulp

    for x in program.variables():
        value = values.get(x.name)
        if not isinstance(value, float | int) or not abs(value) <= _LARGEST:
            return f"{x.name} is {str(value)[:20]}"
        if x.cat == pulp.LpInteger and abs(value - round(value)) > _INTEGRAL:
            return f"{x.name} is {value}, not a whole number"
        low, high = (-math.inf if x.lowBound is None else x.lowBound), (math.inf if x.upBound is None else x.upBound)
        tolerance = _INTEGRAL * max(1.0, abs(value))
        if not low - tolerance <= value <= high + tolerance:
            return f"{x.name} is {value}, out of bounds"
    for constraint in program.constraints():
        terms = [constraint.constant, *(factor * values[x.name] for x, factor in constraint.items())]
        off = math.fsum(terms)
        if constraint.sense == pulp.LpConstraintLE:
            off = max(0.0, off)
        elif constraint.sense == pulp.LpConstraintGE:
            off = min(0.0, off)
        if abs(off) > _FEASIBLE * max(1.0, math.fsum(map(abs, terms))):
            return f"the constraint {constraint.name} is off by {abs(off):.3g}"
    return ""


_idle: list["_Child"] = []


def _ask(request: dict[str, Any], time_limit: float | None) -> dict[str, Any]:
    """The answer of a child.

    Raises:
        _Failure: there is none.
        Cancelled: see :func:`cancelled_by`.
    """
    if _is_cancelled():
        raise Cancelled
    child = None
    while _idle and child is None:
        with contextlib.suppress(IndexError):  # in use by another thread
            child = _idle.pop()
            if not child.alive():
                child.end()
                child = None
    child = child or _Child()
    try:
        answer = child.ask(request, None if time_limit is None else 1.1 * time_limit + _GRACE)
    except BaseException:
        child.end()
        raise
    _idle.append(child)
    return answer


class _Child:
    """A solving process, in its own process group, so that Ctrl-C reaches it only through this process."""

    def __init__(self) -> None:
        windows = sys.platform == "win32"
        try:
            self._folder = tempfile.mkdtemp(prefix="allocator-solver-")
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._folder)},
                start_new_session=not windows,
                creationflags=subprocess.CREATE_NEW_PROCESS_GROUP if windows else 0,  # type: ignore[attr-defined]
            )
        except OSError as error:
            raise _Failure(f"can't be started: {error}") from error
        assert self._process.stdin
        assert self._process.stdout
        self._requests = self._process.stdin
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(self._process.stdout, self._answers), daemon=True).start()
        try:
            self.ask([str(folder) for folder in sys.path], _START, late="did not start in time")
        except BaseException:
            self.end()
            raise

    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self, request: Any, seconds: float | None, late: str = "did not stop at its time limit and was ended"
    ) -> dict[str, Any]:
        """The answer to a request within a time limit in seconds.

        Raises:
            _Failure: it does not answer in time, ends, or does not answer with a JSON object.
            Cancelled: see :func:`cancelled_by`.
        """
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        try:
            self._requests.write(json.dumps(request, default=lambda number: number.item()).encode() + b"\n")
            self._requests.flush()
        except OSError as error:
            raise _Failure(self._end_of()) from error
        while True:
            with contextlib.suppress(queue.Empty):
                line = self._answers.get(timeout=_POLL)
                break
            if _is_cancelled():
                raise Cancelled
            if time.monotonic() > deadline:
                raise _Failure(late)
        if not line:
            raise _Failure(self._end_of())
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise _Failure("gave no readable answer") from error
        if not isinstance(answer, dict):
            raise _Failure("gave no readable answer")
        return answer

    def _end_of(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        code = self._process.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return f"was ended by {name}" + (", perhaps because memory ran out" if name == "SIGKILL" else "")
        return f"ended with status {code}"

    def end(self) -> None:
        """End it and all processes that it started."""
        if sys.platform == "win32":
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(self._process.pid)], capture_output=True, check=False)
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self._requests.close()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _listen(stream: IO[bytes], answers: "queue.SimpleQueue[bytes]") -> None:
    """Forward a child's lines, ending with an empty one."""
    with stream:
        for line in stream:
            answers.put(line)
    answers.put(b"")


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


if hasattr(os, "register_at_fork"):  # a fork does not use its parent's children
    os.register_at_fork(after_in_child=_idle.clear)
