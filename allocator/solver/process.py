"""The child process of :mod:`allocator.solver.pulp_solvers`: it solves the programs from standard input.

It runs as a script. Each line that it reads or writes is one JSON document: first the parent's ``sys.path``, which it
answers with an empty object, then requests and their answers. When standard input ends because the parent closed it
or ended, the process ends, with all processes that its solvers started.
"""

import contextlib
import importlib
import inspect
import json
import os
import pkgutil
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, TextIO

_NAMES = {"cbc": "PULP_CBC_CMD", "highs": "HiGHS"}
_PROOF = {"gapRel": 0.0, "gapAbs": 1e-9}
"""Options for every solver that supports them."""
_MORE = {"cbc": {"options": ["increment 1e-9"]}}  # its default is 1e-5


def _main() -> None:
    requests, answers = _take_over_streams()
    sys.path[:] = json.loads(requests.readline())
    with contextlib.suppress(OSError):  # if memory runs out, Linux ends this process first
        Path("/proc/self/oom_score_adj").write_text("1000")
    importlib.import_module("pulp")
    _write(answers, {})
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, lines), daemon=True).start()
    while True:
        request = json.loads(lines.get())
        try:
            answer = _solve(request["program"], request["solver"], request["time_limit"])
        except Exception as error:  # from any solver
            answer = {"error": f"{type(error).__name__}: {error}"}
        _write(answers, answer)


def _take_over_streams() -> tuple[TextIO, TextIO]:
    """Reserve the standard streams for this program, and discard what solvers print."""
    requests, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    return requests, answers


def _write(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _read(requests: TextIO, lines: "queue.SimpleQueue[str]") -> None:
    for line in requests:
        lines.put(line)
    shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)  # this process's own, from its parent
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(os.getpid())], check=False)
    else:
        os.killpg(0, signal.SIGKILL)


def _solve(program: dict[str, Any], name: str, time_limit: float | None) -> dict[str, Any]:
    import pulp

    if ":" in name:
        make = pkgutil.resolve_name(name)
    else:
        make = {solver.name: solver for solver in pulp.apis._all_solvers}[_NAMES.get(name, name)]
    options = {"msg": False, "timeLimit": time_limit, **_PROOF, **_MORE.get(name, {})}
    accepted = inspect.signature(make).parameters
    solver = make(**{option: value for option, value in options.items() if option in accepted})
    if not solver.available():
        return {"unavailable": True}
    variables, problem = pulp.LpProblem.fromDict(program)
    problem.solve(solver)
    return {"status": problem.sol_status, "values": {key: x.varValue for key, x in variables.items()}}


if __name__ == "__main__":
    _main()
