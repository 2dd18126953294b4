"""The paper's integer program as it is written (PO-DKIC, equation 6): every variable and constraint, given to PuLP.

:func:`allocator.solver.knapsack.solve` gives PuLP only what its bounds leave over, which is mostly nothing. Here any
of PuLP's solvers gets all of it, and its answer is compared with the exact method's.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from allocator.errors import SolveError
from allocator.solver.knapsack import EXCLUSIONS, INDISTINCT, LARGEST, ROUNDING, Floats, Ints, Solution
from allocator.solver.pulp_solvers import PulpSolver


class Limit(NamedTuple):
    """A budget, and what options take of it."""

    weight: Ints
    """Shape (items, options), from 0."""
    budget: int


def run_program(
    cost: Floats, limits: Sequence[Limit], available: NDArray[np.bool_], pulp_solver: PulpSolver
) -> tuple[Ints | None, str]:
    """Let PuLP choose one available option for each item at least total cost within all limits.

    Args:
        cost: shape (items, options); finite where options are available.
        limits: at least one.
        available: shape (items, options), at least one in each row.
        pulp_solver: of PuLP's solvers.

    Returns:
        The column of each item's option, None if none was found; and a sentence on why it isn't proven best, empty
        if it is.
    """
    import pulp

    program = pulp.LpProblem("allocation", pulp.LpMinimize)
    items, options = np.nonzero(available)
    take = [program.add_variable(f"x{k}", cat="Binary") for k in range(len(items))]
    scale = max(1e-300, float(np.ptp(cost[available])))
    program += pulp.LpAffineExpression(
        [(x, float(c / scale)) for x, c in zip(take, cost[items, options], strict=True)]
    )
    for weight, budget in limits:
        # in units that floats represent, rounded down: what that lets in is excluded
        unit = -(-max(int(weight[available].max()), 1) // LARGEST)
        used = [(x, int(a)) for x, a in zip(take, weight[items, options] // unit, strict=True)]
        program += pulp.LpAffineExpression(used) <= budget // unit
    for group in np.split(np.arange(len(items)), np.flatnonzero(np.diff(items)) + 1):
        program += pulp.lpSum(take[k] for k in group) == 1
    rows = np.arange(len(cost))
    for _ in range(EXCLUSIONS):
        outcome = pulp_solver.run(program)
        if not outcome.values:
            return None, outcome.reason or f"The solver found the program {outcome.status}."
        taken = [k for k, x in enumerate(take) if outcome.values[x.name] > 0]
        choices = options[taken].astype(np.int64)
        if all(weight[rows, choices].sum() <= budget for weight, budget in limits):
            return choices, outcome.reason
        program += pulp.lpSum(take[k] for k in taken) <= len(taken) - 1
    return None, INDISTINCT


def solve_whole(
    exact: Solution,
    cost: Floats,
    limits: Sequence[Limit],
    available: NDArray[np.bool_],
    solver: str = "cbc",
    time_limit: float | None = None,
) -> Solution:
    """What PuLP makes of the whole program, checked against the exact method's solution of the same.

    Args:
        exact: of :func:`allocator.solver.knapsack.solve` or :func:`allocator.solver.two_budgets.solve_two`.
        cost: shape (items, options), finite where options are available.
        limits: the first is the one whose weight is reported.
        available: shape (items, options).
        solver: as :func:`allocator.solver.pulp_solvers.run` takes it.
        time_limit: seconds for PuLP's solver.

    Returns:
        PuLP's choices, with the exact method's bound and a note that compares the two; the exact method's, with the
        reason, where PuLP's solver found none.

    Raises:
        SolveError: an unknown or uninstalled solver, or PuLP's choices cost less than the exact method's bound,
            which would be an error of this program.
    """
    choices, reason = run_program(cost, limits, available, PulpSolver(solver, time_limit))
    count = int(available.sum())
    if choices is None:
        return replace(exact, core=count, note=f"{reason} The choice is the exact method's.")
    rows = np.arange(len(cost))
    total = math.fsum(cost[rows, choices])
    above = total - exact.cost
    tolerance = ROUNDING * max(abs(exact.cost), math.fsum(abs(cost[rows, choices])))
    if total < exact.bound - tolerance:
        raise SolveError(
            f"PuLP's solver {solver!r} found a cost of {total!r}, below the exact method's bound of {exact.bound!r}: "
            "an error of this program; please report it with the table."
        )
    agrees = abs(above) <= tolerance
    compared = "costs the same as" if agrees else f"costs {abs(above):.2g} {'more' if above > 0 else 'less'} than"
    note = f"PuLP's {solver} solved the whole program, {count:,} variables; its choice {compared} the exact method's."
    return replace(
        exact,
        choices=choices,
        cost=exact.cost if agrees else total,
        weight=int(limits[0].weight[rows, choices].sum()),
        core=count,
        reason=exact.reason if agrees else f"{reason} PuLP's choice is not the exact method's.".strip(),
        note=note,
    )
