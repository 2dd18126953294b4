"""Commands that allocate: solve and frontier; and the options that all commands share which allocate."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.app import TableFile, app, write_frame

if TYPE_CHECKING:
    import pandas as pd

    from allocator.allocation import Allocation, Budget


class RuleName(StrEnum):
    """How the rate of a set is counted."""

    pooled = "pooled"
    mean = "mean"


class SolverName(StrEnum):
    """What solves the integer program's core."""

    cbc = "cbc"
    highs = "highs"


def option(*names: str, metavar: str | None = None, help: str, **more: Any) -> Any:
    """An option of the problem."""
    return typer.Option(*names, metavar=metavar, help=help, **more)


@dataclass
class Problem:
    """What is to be solved: the options that `solve` and `submit` share."""

    table: TableFile
    target: Annotated[
        list[str] | None, option("--target", "-t", metavar="BPP", help="Bits per pixel over the whole set.")
    ] = None
    budget: Annotated[int | None, option("--budget", metavar="BYTES", help="Instead of a target.")] = None
    rule: Annotated[
        RuleName, option("--rule", help="pooled: total bytes. mean: the mean of the images' bits per pixel.")
    ] = RuleName.pooled
    objective: Annotated[
        list[str] | None,
        option(
            "--objective",
            metavar="METRIC[:WEIGHT]",
            help="What to optimise, several for a mixture; by default the table's first metric.",
        ),
    ] = None
    aggregate: Annotated[
        str,
        option(
            "--aggregate",
            metavar="HOW",
            help="Over the images: mean, pixels (weighted by size), worst, or the p of a p-norm between.",
        ),
    ] = "mean"
    codec: Annotated[list[str] | None, option("--codec", "-c", metavar="NAME", help="Use these codecs only.")] = None
    floor: Annotated[
        list[str] | None,
        option("--floor", metavar="METRIC=VALUE", help="No image may be worse than this."),
    ] = None
    least_bpp: Annotated[float | None, option("--least-bpp", help="No image may get less.")] = None
    most_bpp: Annotated[float | None, option("--most-bpp", help="No image may get more.")] = None
    forbid: Annotated[
        list[str] | None,
        option("--forbid", metavar="[IMAGE=]CODEC[:SETTING]", help="Levels not to be chosen."),
    ] = None
    force: Annotated[
        list[str] | None,
        option("--force", metavar="[IMAGE=]CODEC[:SETTING]", help="Levels to choose among."),
    ] = None
    decode_seconds: Annotated[
        float | None, option("--decode-seconds", help="A second budget: total decoding time.")
    ] = None
    max_codecs: Annotated[int | None, option("--max-codecs", help="So many different codecs at most.")] = None
    solver: Annotated[SolverName, option("--solver", help="Of the integer program's core.")] = SolverName.cbc
    time_limit: Annotated[
        float,
        option("--time-limit", metavar="SECONDS", min=0, help="For that core; then the best found and its gap."),
    ] = 60.0

    def allocations(self, budgets_of: "Callable[[pd.DataFrame], list[Budget]] | None" = None) -> "list[Allocation]":
        """One for each target, and one for the budget in bytes; or for each of the budgets that are asked for."""
        from allocator.allocation import allocate, read_points
        from allocator.constraints import Choice, Constraints, Floor
        from allocator.objective import find_objective
        from allocator.tables import Table

        with Table(self.table) as opened:
            points = read_points(opened, self.codec or ())
            objective = find_objective(opened, self.objective or (), self.aggregate)
            constraints = Constraints(
                floors=[Floor.parse(opened, text) for text in self.floor or []],
                least_bpp=self.least_bpp,
                most_bpp=self.most_bpp,
                forbidden=[Choice.parse(text) for text in self.forbid or []],
                forced=[Choice.parse(text) for text in self.force or []],
                decode_seconds=self.decode_seconds,
                max_codecs=self.max_codecs,
            )
        return [
            allocate(points, budget, objective, constraints, solver=self.solver.value, time_limit=self.time_limit)
            for budget in (budgets_of or self.budgets)(points)
        ]

    def budgets(self, points: "pd.DataFrame") -> "list[Budget]":
        """Of the options."""
        from allocator.allocation import make_budget, parse_target
        from allocator.errors import AllocatorError

        targets = [parse_target(target) for target in self.target or []]
        if not targets and self.budget is None:
            raise AllocatorError("Name at least one --target, or a --budget.")
        budgets = [make_budget(points, self.rule.value, target=target) for target in targets]
        if self.budget is not None:
            budgets.append(make_budget(points, self.rule.value, total_bytes=self.budget))
        return budgets


def takes_problem(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command whose first parameter is a :class:`Problem` that class's options."""
    shared = inspect.signature(Problem).parameters
    own = list(inspect.signature(command).parameters.values())[1:]

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        command(Problem(**{name: given.pop(name) for name in shared}), **given)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*shared.values(), *own]]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


@app.command()
@takes_problem
def solve(
    problem: Problem,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The choices, as .csv or .parquet.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say for each image why it got its level.")] = False,
) -> None:
    """Pick one level for each image: the best objective within the budget, proven optimal."""
    found = problem.allocations()
    for allocation in found:
        typer.echo(summary(allocation))
        if explain:
            from allocator.explain import explain as words

            typer.echo("\n".join(words(allocation)))
    if out:
        import pandas as pd

        chosen = [a.chosen.assign(target=a.budget.bpp).set_index("target").reset_index() for a in found]
        write_frame(pd.concat(chosen), out)
        typer.echo(f"The chosen levels are in {out}.")


def summary(allocation: "Allocation") -> str:
    """An allocation in a few lines."""
    budget, objective = allocation.budget, allocation.objective
    limit = f" ({int(budget.limit):,} bytes)" if budget.rule == "pooled" else ""
    proof = "proven optimal, gap 0" if allocation.gap == 0 else f"gap {allocation.gap:.2g}"
    how = objective.aggregate if objective.power is None else f"{objective.aggregate}-norm"
    if objective.aggregate in ("mean", "pixels"):
        proof += f", bound {allocation.value - objective.natural_sign * allocation.gap:.6f}"
    lines = [
        f"Target {budget.bpp:g} bpp {budget.rule}{limit}: {objective.label}, {how}",
        f"  rate        {allocation.bpp:.6f} bpp, {allocation.bytes:,} bytes, slack {allocation.slack:,.0f} bytes",
        f"  allocated   {allocation.value:.6f}, {proof}",
    ]
    for label, other, missing in (
        ("one level", allocation.single, "no single level keeps to the budget"),
        ("equal rate", allocation.equal, "some image has no level as small as the rate"),
    ):
        if other is None:
            lines.append(f"  {label:<11} {missing}")
        else:
            detail = f", {other.detail}" if other.detail else ""
            lines.append(f"  {label:<11} {other.value:.6f}, {other.bytes:,} bytes{detail}")
    mix = ", ".join(f"{codec} {count}" for codec, count in allocation.chosen["codec"].value_counts().items())
    lines.append(f"  images      {len(allocation.chosen)}: {mix}")
    if objective.aggregate in ("mean", "pixels"):
        lines.append(f"  price       1,000 more bytes would gain about {1000 * allocation.price:.2g}")
    return "\n".join(lines)


@app.command()
def frontier(
    table: TableFile,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The curve, as .csv or .parquet.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="The curve, as .png, .svg or .pdf.")] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", metavar="BPP", help="Rates to look at closely.")
    ] = None,
    objective: Annotated[
        list[str] | None, option("--objective", metavar="METRIC[:WEIGHT]", help="As in `solve`.")
    ] = None,
    codec: Annotated[list[str] | None, option("--codec", "-c", metavar="NAME", help="Use these codecs only.")] = None,
    budgets: Annotated[int, typer.Option("--budgets", min=2, help="Points of the curve, evenly in log-rate.")] = 300,
) -> None:
    """Compute the set's whole curve of rate and quality in one sweep, and what changes first at each target."""
    from allocator.allocation import parse_target, read_points
    from allocator.curve import Curve
    from allocator.objective import find_objective
    from allocator.tables import Table

    rates = [parse_target(text) for text in target or []]
    with Table(table) as opened:
        points = read_points(opened, codec or ())
        goal = find_objective(opened, objective or ())
    curve = Curve(points, goal)
    frame = curve.frame(budgets)
    typer.echo(
        f"{curve.steps:,} optimal allocations from {curve.bpp(0):.4f} to {curve.bpp(curve.steps):.4f} bpp, "
        f"{goal.label} from {curve.value(0):.4f} to {curve.value(curve.steps):.4f}"
    )
    for rate in rates:
        typer.echo("\n".join(curve.describe(float(rate))))
    if out:
        write_frame(frame, out)
        typer.echo(f"{len(frame)} points of the curve are in {out}.")
    if plot:
        curve.plot(frame, [float(rate) for rate in rates], plot)
        typer.echo(f"The curve is drawn in {plot}.")
