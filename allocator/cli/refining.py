"""The command that refines a table, and options of other commands that refine."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.app import Json, Trust, Weights, app, echo, emit, use_weights
from allocator.cli.options import Jobs
from allocator.cli.solving import SolveOptions, takes_problem
from allocator.cli.waiting import waiting

if TYPE_CHECKING:
    from allocator.allocation import Budget
    from allocator.measure.refine import RefineReport
    from allocator.problem import Problem
    from allocator.tables import Table


@app.command(epilog="Example: `allocator refine run.db --target 0.15`")
@takes_problem
def refine(
    options: SolveOptions,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Number of steps of each search.")] = 60,
    hours: Annotated[
        float | None,
        typer.Option(
            metavar="HOURS",
            min=0,
            help="Start no search after this time; those with the most to gain come first. Default: no limit.",
        ),
    ] = None,
    neighbours: Annotated[
        int, typer.Option(metavar="N", min=0, help="Number of levels to refine on either side of each chosen one.")
    ] = 1,
    jobs: Jobs = None,
    metric_weights: Weights = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Search for better bitstreams of the chosen levels.

    The searches start from the levels of banks that an allocation chooses at the rates (default: 0.075, 0.15 and
    0.3), and from their neighbours. A better bitstream becomes another level of its image in the table. Decoders do
    not change.
    """
    from allocator.api import RATES
    from allocator.measure.engines import Local
    from allocator.tables import Table

    use_weights(metric_weights)
    problem = options.read()
    budgets = problem.budgets(options.target or (() if options.budget else RATES), options.budget)
    try:
        with Table(options.table) as opened:
            found = refine_with_progress(
                opened,
                problem,
                budgets,
                steps=steps,
                hours=hours,
                neighbours=neighbours,
                engine=Local(jobs) if jobs else None,
            )
    except KeyboardInterrupt:
        echo(f"Interrupted. What was found is kept in {options.table}; the same command resumes.", err=True)
        raise typer.Exit(130) from None
    left = f", {found.left:,} not started" if found.left else ""
    lines = [
        f"{options.table}: {found.refined:,} refined points added, {found.no_better:,} searches without improvement, "
        f"{found.known:,} done before{left}."
    ]
    for gain in found.gains:
        change = f" ({gain.after / gain.before - 1:+.1%})" if gain.before else ""
        values = f"{gain.before:.4f} before, {gain.after:.4f} after{change}"
        lines.append(f"{gain.target_bpp:g} bpp: {problem.objective.label} {values}")
    emit({"table": options.table, "objective": problem.objective.label, **vars(found)}, *lines, as_json=as_json)
    if found.failures:
        echo("\n".join(["Not refined:", *found.failures]), err=True)
        raise typer.Exit(1)


def refine_with_progress(
    opened: "Table", problem: "Problem", budgets: "Sequence[Budget]", **options: Any
) -> "RefineReport":
    """Refine a table with a progress bar."""
    from allocator.measure.refine import RefineProgress, refine

    with waiting("refining", "points") as report:

        def show(progress: RefineProgress) -> None:
            report(progress.done, progress.points, progress.current)

        return refine(opened, problem, budgets, report=show, **options)
