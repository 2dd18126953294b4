"""Commands that allocate: solve and frontier; and the options that all commands share which allocate."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli import completion
from allocator.cli.app import Json, RuleName, RuleOption, TableFile, app, codec_names, emit, write_frame

if TYPE_CHECKING:
    from fractions import Fraction

    import pandas as pd

    from allocator.allocation import Allocation, Baseline, Budget
    from allocator.curve import Curve, Near


class MethodName(StrEnum):
    """How an allocation is found."""

    exact = "exact"
    pulp = "pulp"


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
    budget: Annotated[
        str | None,
        option("--budget", metavar="SIZE", help="Instead of a target: bytes, 2MB, 1.5MiB, or 30% of the originals."),
    ] = None
    rule: RuleOption = RuleName.pooled
    objective: Annotated[
        list[str] | None,
        option(
            "--objective",
            metavar="METRIC[:WEIGHT]",
            help="What to optimise, several for a mixture; by default the table's first metric.",
            autocompletion=completion.metric_names,
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
    weights: Annotated[
        Path | None,
        option("--weights", metavar="FILE", help="A CSV file of images and how much each counts: page views, say."),
    ] = None
    codec: Annotated[
        list[str] | None,
        option("--codec", "-c", metavar="NAME", help="Use these codecs only.", autocompletion=completion.codec_names),
    ] = None
    floor: Annotated[
        list[str] | None,
        option(
            "--floor",
            metavar="[IMAGES:]METRIC=VALUE",
            help="No image, or none that is called so ('hero/*:psnr=35'), may be worse than this.",
        ),
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
    method: Annotated[
        MethodName,
        option(
            "--method",
            help="exact: by bounds, and PuLP solves what they leave over. pulp: PuLP solves the whole integer "
            "program of PO-DKIC's equation 6, and its choice is compared with the exact one.",
        ),
    ] = MethodName.exact
    solver: Annotated[
        str,
        option(
            "--solver",
            metavar="NAME",
            help="PuLP's: cbc, highs, or its own name of another that is installed.",
            autocompletion=completion.solver_names,
        ),
    ] = "cbc"
    time_limit: Annotated[
        float,
        option("--time-limit", metavar="SECONDS", min=0, help="For that core; then the best found and its gap."),
    ] = 60.0

    def __post_init__(self) -> None:
        self._originals: int | None = None  # bytes of all original files

    def allocations(self, budgets_of: "Callable[[pd.DataFrame], list[Budget]] | None" = None) -> "list[Allocation]":
        """One for each target, and one for the budget in bytes; or for each of the budgets that are asked for."""
        from allocator.allocation import allocate, read_points
        from allocator.constraints import Choice, Constraints, Floor
        from allocator.objective import find_objective
        from allocator.tables import Table

        with Table(self.table) as opened:
            points = read_points(opened, codec_names(self.codec, opened.codecs()))
            objective = find_objective(opened, self.objective or (), self.aggregate, self.weights)
            self._originals = opened.original_bytes()
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
            allocate(
                points,
                budget,
                objective,
                constraints,
                method=self.method.value,
                solver=self.solver,
                time_limit=self.time_limit,
            )
            for budget in (budgets_of or self.budgets)(points)
        ]

    def budgets(self, points: "pd.DataFrame") -> "list[Budget]":
        """Of the options."""
        from allocator.allocation import make_budget, parse_target
        from allocator.errors import AllocatorError
        from allocator.sizes import Size

        targets = [parse_target(target) for target in self.target or []]
        if not targets and self.budget is None:
            raise AllocatorError("Name at least one --target, or a --budget.")
        budgets = [make_budget(points, self.rule.value, target=target) for target in targets]
        if self.budget is not None:
            size = Size.parse(self.budget)
            budgets.append(make_budget(points, self.rule.value, size=size, originals=self._originals))
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
    as_json: Json = False,
) -> None:
    """Pick one level for each image: the best objective within the budget, proven optimal."""
    found = problem.allocations()
    records, lines = [], []
    for allocation in found:
        records.append(record(allocation) if as_json else {})
        lines.append(summary(allocation))
        if explain:
            from allocator.explain import explain as words

            records[-1]["explanation"] = words(allocation)
            lines += records[-1]["explanation"]
    if out:
        import pandas as pd

        chosen = [a.chosen.assign(target=a.budget.bpp).set_index("target").reset_index() for a in found]
        write_frame(pd.concat(chosen), out)
        lines.append(f"The chosen levels are in {out}.")
    emit({"table": problem.table, "allocations": records, "out": out}, *lines, as_json=as_json)


def record(allocation: "Allocation") -> dict[str, Any]:
    """An allocation for `--json`."""
    from allocator.metrics.base import RESERVED

    budget, objective, chosen = allocation.budget, allocation.objective, allocation.chosen
    metrics = [name for name in chosen.columns if name not in RESERVED]
    level = ["image", "width", "height", "codec", "level", "setting", "bytes", "bpp"]
    bounded = objective.aggregate in ("mean", "pixels")

    def simpler(baseline: "Baseline | None") -> dict[str, Any] | None:
        if baseline is None:
            return None
        numbers = {"value": baseline.value, "bytes": baseline.bytes, "bpp": baseline.bpp}
        return {**numbers, "level": baseline.detail or None}

    return {
        "target_bpp": budget.bpp,
        "rule": budget.rule,
        "budget_bytes": int(budget.limit) if budget.rule == "pooled" else None,
        "objective": objective.label,
        "aggregate": objective.aggregate,
        "value": allocation.value,
        "gap": allocation.gap,
        "reason": allocation.reason or None,
        "note": allocation.note or None,
        "bound": allocation.value - objective.natural_sign * allocation.gap if bounded else None,
        "bytes": allocation.bytes,
        "bpp": allocation.bpp,
        "pooled_bpp": allocation.pooled_bpp,
        "mean_bpp": allocation.mean_bpp,
        "slack_bytes": allocation.slack,
        "gain_per_byte": allocation.price if bounded else None,
        "single_level": simpler(allocation.single),
        "equal_rate": simpler(allocation.equal),
        "images": [
            {**{name: row[name] for name in level}, "metrics": {name: row[name] for name in metrics}}
            for row in chosen.to_dict("records")
        ],
    }


def summary(allocation: "Allocation") -> str:
    """An allocation in a few lines."""
    budget, objective = allocation.budget, allocation.objective
    proof = "proven optimal, gap 0" if allocation.gap == 0 else f"gap {allocation.gap:.2g}"
    how = objective.aggregate if objective.power is None else f"{objective.aggregate}-norm"
    if objective.aggregate in ("mean", "pixels"):
        proof += f", bound {allocation.value - objective.natural_sign * allocation.gap:.6f}"
    if budget.size is None:
        limit = f" ({int(budget.limit):,} bytes)" if budget.rule == "pooled" else ""
        head = f"Target {budget.label} {budget.rule}{limit}"
    else:
        head = f"Budget {budget.label} ({int(budget.limit):,} bytes, {budget.bpp:.4g} bpp)"
    lines = [
        f"{head}: {objective.label}, {how}",
        f"  rate        {rates(allocation, budget.rule)}",
        f"  bytes       {allocation.bytes:,}, slack {allocation.slack:,.0f}",
        f"  allocated   {allocation.value:.6f}, {proof}",
    ]
    if allocation.reason:
        lines.append(f"  unproven    {allocation.reason}")
    if allocation.note:
        lines.append(f"  by PuLP     {allocation.note}")
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


def rates(reached: "Allocation | Near", rule: str) -> str:
    """What was reached under a rule, and beside it under the other one."""
    other = ("mean", reached.mean_bpp) if rule == "pooled" else ("pooled", reached.pooled_bpp)
    return f"{reached.bpp:.6f} bpp {rule}, {other[1]:.6f} {other[0]}"


@app.command()
def frontier(
    table: TableFile,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The curve, as .csv or .parquet.")] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", metavar="BPP", help="Rates to look at closely.")
    ] = None,
    objective: Annotated[
        list[str] | None,
        option(
            "--objective", metavar="METRIC[:WEIGHT]", help="As in `solve`.", autocompletion=completion.metric_names
        ),
    ] = None,
    codec: Annotated[
        list[str] | None,
        option("--codec", "-c", metavar="NAME", help="Use these codecs only.", autocompletion=completion.codec_names),
    ] = None,
    rule: RuleOption = RuleName.pooled,
    budgets: Annotated[int, typer.Option("--budgets", min=2, help="Points of the curve, evenly in log-rate.")] = 300,
    as_json: Json = False,
) -> None:
    """Compute the set's whole curve of rate and quality in one sweep, and what changes first at each target.

    `allocator plot frontier` draws it.
    """
    from allocator.allocation import parse_target, read_points
    from allocator.curve import Curve
    from allocator.objective import find_objective
    from allocator.tables import Table

    rates = [parse_target(text) for text in target or []]
    with Table(table) as opened:
        points = read_points(opened, codec_names(codec, opened.codecs()))
        goal = find_objective(opened, objective or ())
    curve = Curve(points, goal, rule.value)
    frame = curve.frame(budgets)
    lines = [
        f"{curve.steps:,} optimal allocations from {curve.bpp(0):.4f} to {curve.bpp(curve.steps):.4f} bpp "
        f"{rule.value}, "
        f"{goal.label} from {curve.value(0):.4f} to {curve.value(curve.steps):.4f}"
    ]
    near = [curve.near(rate) for rate in rates]
    for rate, one in zip(rates, near, strict=True):
        lines += (
            _closely(curve, one)
            if one
            else [f"{float(rate):g} bpp {rule.value}: can't be reached, the least is {curve.bpp(0):.4f} bpp."]
        )
    if out:
        write_frame(frame, out)
        lines.append(f"{len(frame)} points of the curve are in {out}.")
    result = {
        "table": table,
        "objective": goal.label,
        "rule": rule.value,
        "optimal_allocations": curve.steps,
        "curve": frame.to_dict("records"),
        "targets": [one or _unreached(rate) for one, rate in zip(near, rates, strict=True)],
        "out": out,
    }
    emit(result, *lines, as_json=as_json)


def _unreached(rate: "Fraction") -> dict[str, Any]:
    from allocator.curve import Near

    return dict.fromkeys(Near._fields) | {"target_bpp": rate, "changes": []}


def _closely(curve: "Curve", near: "Near") -> list[str]:
    """A target in words: the allocation there, the price of a byte, and the images that would change first."""
    budget = "" if near.budget_bytes is None else f" of {near.budget_bytes:,}"
    lines = [
        f"{near.target_bpp:g} bpp {near.rule}: {curve.objective.label} {near.value:.6f}, at best {near.bound:.6f}",
        f"  {rates(near, near.rule)}; {near.bytes:,}{budget} bytes",
    ]
    if near.changes:
        lines.append(f"  1,000 more bytes would gain about {1000 * near.price:.2g}; with more budget change first")
    lines += [f"    {one.image}: {one.before} -> {one.after}, {one.bytes:+,} bytes" for one in near.changes]
    return lines
