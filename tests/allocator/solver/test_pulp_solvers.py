import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pulp
import pytest

import allocator.solver.knapsack
from allocator.errors import SolveError
from allocator.solver import pulp_solvers
from allocator.solver.knapsack import solve
from allocator.solver.pulp_solvers import Status
from benchmarks.solver import make_set
from tests.allocator import faulty
from tests.helpers import is_running, posix_only, wait_until

FAULTS = {
    "Crashes": "was ended by SIGSEGV",
    "Killed": "was ended by SIGKILL, perhaps because memory ran out",
    "Raises": "failed: OSError: No space left on device",
    "Hangs": "did not stop at its time limit",
    "BreaksConstraints": "returned an invalid solution: the constraint",
    "NotANumber": "is nan",
    "TooLarge": "is 10000000000000000000",
    "Fractions": "not a whole number",
}
LIES = {
    "CallsTheWorstOptimal": "worse than a known one",
    "SaysInfeasible": "the core is infeasible",
}


def stand_in(name: str) -> str:
    return f"{faulty.__name__}:{name}"


def knapsack() -> Any:
    """The best two of three within 5: x0 and x1, worth 7."""
    program = pulp.LpProblem("knapsack", pulp.LpMaximize)
    x = [program.add_variable(f"x{k}", cat="Binary") for k in range(3)]
    program += 4 * x[0] + 3 * x[1] + 5 * x[2]
    program += 2 * x[0] + 3 * x[1] + 4 * x[2] <= 5
    return program


@pytest.mark.parametrize("solver", ["cbc", "highs", "HiGHS"])
def test_a_program_is_solved_and_stays_as_it_is(solver: str) -> None:
    program = knapsack()
    for _ in range(2):
        outcome = pulp_solvers.run(program, solver, 60)
        assert outcome.status is Status.optimal
        assert outcome.values == {"x0": 1, "x1": 1, "x2": 0}
        assert outcome.reason == ""
    assert all(x.varValue is None for x in program.variables())


def test_programs_without_an_optimum_are_reported() -> None:
    program = knapsack()
    program += program.variables()[0] >= 2
    assert pulp_solvers.run(program, "cbc").status is Status.infeasible
    program = pulp.LpProblem("unbounded", pulp.LpMaximize)
    program += program.add_variable("x", 0)
    assert pulp_solvers.run(program, "highs").status in (Status.unbounded, Status.infeasible, Status.unsolved)


def test_unknown_and_missing_solvers_are_reported() -> None:
    with pytest.raises(SolveError, match=r"no solver 'nobody'.*GLPK_CMD"):
        pulp_solvers.run(knapsack(), "nobody")
    with pytest.raises(SolveError, match="isn't installed"):
        pulp_solvers.run(knapsack(), stand_in("Missing"))


@pytest.mark.parametrize("name", FAULTS)
def test_a_failing_solver_gives_a_reason_and_the_next_one_works(name: str) -> None:
    start = time.monotonic()
    outcome = pulp_solvers.run(knapsack(), stand_in(name), 0.5 if name == "Hangs" else 60)
    assert outcome.status is Status.unsolved
    assert outcome.values == {}
    assert FAULTS[name] in outcome.reason
    assert outcome.reason.startswith(f"The solver '{stand_in(name)}' ")
    assert outcome.reason.endswith(".")
    assert time.monotonic() - start < 30
    assert pulp_solvers.run(knapsack(), "cbc", 60).status is Status.optimal


@pytest.mark.parametrize("name", [*FAULTS, *LIES])
def test_a_failing_solver_costs_only_the_proof(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cost, weight, budget = make_set(30, 8, 1)
    optimum = solve(cost, weight, budget)
    monkeypatch.setattr(allocator.solver.knapsack, "_STATES", (1,))
    found = solve(cost, weight, budget, solver=stand_in(name), time_limit=0.5 if name == "Hangs" else 60)
    assert found.weight <= budget
    assert found.bound <= optimum.cost <= found.cost
    assert found.gap > 0
    assert (FAULTS | LIES)[name] in found.reason
    assert solve(cost, weight, budget, solver="cbc").cost == optimum.cost


def test_a_child_that_cannot_be_started_costs_only_the_proof(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pulp_solvers, "_idle", [])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    assert "can't be started" in pulp_solvers.run(knapsack(), "cbc").reason


@posix_only
def test_children_are_reused_and_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pulp_solvers, "_idle", [])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert pulp_solvers.run(knapsack(), "cbc").status is Status.optimal
    [child] = pulp_solvers._idle
    assert pulp_solvers.run(knapsack(), "highs").status is Status.optimal
    assert pulp_solvers._idle == [child]
    assert len([*tmp_path.iterdir()]) == 1
    os.kill(child._process.pid, signal.SIGKILL)  # while it idles
    child._process.wait()
    assert pulp_solvers.run(knapsack(), "cbc").status is Status.optimal
    assert pulp_solvers._idle != [child]
    pulp_solvers._end_all()
    assert [*tmp_path.iterdir()] == []


SOLVE_AND_HANG = f"""
import pulp
from allocator.solver import pulp_solvers
program = pulp.LpProblem("p", pulp.LpMinimize)
program += program.add_variable("x", 0, 1)
pulp_solvers.run(program, "{stand_in("Hangs")}")
"""


@posix_only
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_children_end_with_their_parent(how: str, tmp_path: Path) -> None:
    file = tmp_path / "processes"
    parent = subprocess.Popen(
        [sys.executable, "-c", SOLVE_AND_HANG],
        env={**os.environ, "PROCESSES": str(file), "TMPDIR": str(tmp_path)},
        cwd=Path(__file__).parents[3],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_until(file.exists, 60)
    processes = [int(word) for word in file.read_text().split()]
    assert all(map(is_running, processes))
    parent.send_signal(signal.Signals[how])
    error = parent.communicate(timeout=30)[1]
    assert ("KeyboardInterrupt" in error) == (how == "SIGINT")
    wait_until(lambda: not any(map(is_running, processes)))
    assert [path.name for path in tmp_path.iterdir()] == ["processes"]
