"""Solvers with PuLP's interface that fail, each in a different way."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pulp


class _Faulty(pulp.LpSolver):  # type: ignore[misc]
    def available(self) -> bool:
        return True

    def assign(self, program: Any, values: dict[str, Any]) -> None:
        program.assignVarsVals(values)
        program.assignStatus(pulp.LpStatusOptimal, pulp.LpSolutionOptimal)


class Crashes(_Faulty):
    def actualSolve(self, program: Any) -> None:
        ctypes.string_at(0)


class Killed(_Faulty):
    def actualSolve(self, program: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Raises(_Faulty):
    def actualSolve(self, program: Any) -> None:
        raise OSError("No space left on device")


class Hangs(_Faulty):
    """With a process of its own, as CBC; both ids are written to a file."""

    def actualSolve(self, program: Any) -> None:
        program_of_it = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        if name := os.environ.get("PROCESSES"):
            written = Path(name + ".part")
            written.write_text(f"{os.getpid()} {program_of_it.pid}")
            written.rename(name)
        time.sleep(600)


class BreaksConstraints(_Faulty):
    def actualSolve(self, program: Any) -> None:
        self.assign(program, {x.name: 1.0 for x in program.variables()})


class NotANumber(_Faulty):
    def actualSolve(self, program: Any) -> None:
        self.assign(program, {x.name: float("nan") for x in program.variables()})


class TooLarge(_Faulty):
    """An integer that no float can represent."""

    def actualSolve(self, program: Any) -> None:
        self.assign(program, {x.name: 10**400 for x in program.variables()})


class Fractions(_Faulty):
    def actualSolve(self, program: Any) -> None:
        self.assign(program, {x.name: 0.4 for x in program.variables()})


class CallsTheWorstOptimal(_Faulty):
    def actualSolve(self, program: Any) -> None:
        program.objective = -program.objective
        program.solve(pulp.PULP_CBC_CMD(msg=False))
        program.assignStatus(pulp.LpStatusOptimal, pulp.LpSolutionOptimal)


class SaysInfeasible(_Faulty):
    def actualSolve(self, program: Any) -> None:
        program.assignStatus(pulp.LpStatusInfeasible, pulp.LpSolutionInfeasible)


class Missing(_Faulty):
    def available(self) -> bool:
        return False
