"""The commands, their options, and what they print."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from allocator.allocation import Allocation
    from allocator.build import BuildReport
    from allocator.metrics import Metric
    from codec import Codec

app = typer.Typer(
    help="Pick the codec and quality level of every image so that the set looks best within one byte budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
tables = typer.Typer(help="Measure images into tables, and look at tables.", no_args_is_help=True)
app.add_typer(tables, name="tables")


class RuleName(StrEnum):
    """How the rate of a set is counted."""

    pooled = "pooled"
    mean = "mean"


class SolverName(StrEnum):
    """What solves the integer program's core."""

    cbc = "cbc"
    highs = "highs"


TableFile = Annotated[Path, typer.Argument(help="A table made by `tables build`.", show_default=False)]
Targets = Annotated[
    list[str] | None, typer.Option("--target", "-t", metavar="BPP", help="Bits per pixel over the whole set.")
]
RuleOption = Annotated[
    RuleName,
    typer.Option("--rule", help="pooled: total bytes. mean: the mean of the images' bits per pixel."),
]
BudgetOption = Annotated[int | None, typer.Option("--budget", metavar="BYTES", help="Instead of a target.")]
Objective = Annotated[
    str | None,
    typer.Option("--objective", metavar="METRIC", help="What to optimise; by default the table's first metric."),
]
CodecFilter = Annotated[
    list[str] | None, typer.Option("--codec", "-c", metavar="NAME", help="Use these codecs only.")
]
Solver = Annotated[SolverName, typer.Option("--solver", help="Solver of the integer program's core.")]
TimeLimit = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", min=0, help="For the integer program; then the best found and its gap."),
]
Backbone = Annotated[
    list[Path] | None,
    typer.Option(
        "--lpips-backbone",
        metavar="FILE",
        help="Weights of LPIPS's backbone, torchvision's alexnet, squeezenet1_1 or vgg16. "
        "[env var: ALLOCATOR_LPIPS_BACKBONE]",
    ),
]


def _console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def _use_backbones(files: list[Path] | None) -> None:
    """Hand the files on to LPIPS in this and all worker processes."""
    import os

    if files:
        os.environ["ALLOCATOR_LPIPS_BACKBONE"] = os.pathsep.join(map(str, files))


@app.command("codecs")
def list_codecs() -> None:
    """List the codecs and their levels."""
    from rich.table import Table

    import codec

    table = Table("codec", "levels", "settings, fewest bytes first", "file", "version")
    for name in codec.names():
        found = codec.get_codec(name)
        table.add_row(name, str(len(found.levels)), " ".join(found.levels), found.suffix, found.version)
    _console().print(table)


@app.command()
def encode(
    image: Annotated[Path, typer.Argument(help="An image file.", show_default=False)],
    codec: Annotated[str, typer.Option("--codec", "-c", metavar="NAME")],
    level: Annotated[int | None, typer.Option("--level", "-l", help="From 0, fewest bytes first.")] = None,
    bpp: Annotated[str | None, typer.Option(metavar="BPP", help="The best level of at most this rate.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="By default beside the image.")] = None,
) -> None:
    """Encode one image to a bitstream."""
    from codec import CodecError, get_codec, read_image
    from codec.image import write_file

    coder = get_codec(codec)
    if (level is None) == (bpp is None):
        raise CodecError("Give either --level or --bpp.")
    pixels = read_image(image)
    area = pixels.shape[0] * pixels.shape[1]
    if bpp is not None:
        from allocator.allocation import parse_target

        cap = parse_target(bpp) * area / 8
        fitting = ((i, coder.encode(pixels, i)) for i in reversed(range(len(coder.levels))))
        level, data = next(((i, data) for i, data in fitting if len(data) <= cap), (None, b""))
        if level is None:
            raise CodecError(f"{image}: {codec} has no level of at most {bpp} bpp for it.")
    else:
        assert level is not None
        if not 0 <= level < len(coder.levels):
            raise CodecError(f"{codec} has the levels 0 to {len(coder.levels) - 1}, not {level}.")
        data = coder.encode(pixels, level)
    target = out or image.with_name(image.name + coder.suffix)
    write_file(target, data)
    typer.echo(f"{target}: {codec} {coder.levels[level]}, {len(data):,} bytes, {8 * len(data) / area:.4f} bpp")


@app.command()
def decode(
    bitstream: Annotated[Path, typer.Argument(help="A file made by `encode`.", show_default=False)],
    codec: Annotated[
        str | None,
        typer.Option("--codec", "-c", metavar="NAME", help="By default told by the file's ending."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A PNG; by default beside the file.")] = None,
) -> None:
    """Decode a bitstream to a PNG file."""
    from codec import CodecError, codec_for_file, get_codec, write_png

    coder = get_codec(codec) if codec else codec_for_file(bitstream.name)
    try:
        image = coder.decode(bitstream.read_bytes())
    except OSError as error:
        raise CodecError(f"{bitstream}: can't be read ({error.strerror}).") from error
    except CodecError as error:
        raise CodecError(f"{bitstream}: {error}") from error
    target = out or bitstream.with_name(bitstream.name + ".png")
    write_png(target, image)
    typer.echo(f"{target}: {image.shape[1]}x{image.shape[0]} pixels")


@tables.command("build")
def tables_build(
    images: Annotated[list[Path], typer.Argument(help="Image files and folders.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table; continued if it's there.")],
    codec: Annotated[list[str] | None, typer.Option("--codec", "-c", metavar="NAME")] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", "-m", metavar="NAME")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Processes; by default one a core.")] = None,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Leave out what can't be measured.")] = False,
    no_bitstreams: Annotated[bool, typer.Option("--no-bitstreams", help="Don't keep them in the table.")] = False,
    lpips_backbone: Backbone = None,
) -> None:
    """Measure every image at every level of the codecs (avif and hevc, lpips unless told otherwise)."""
    from allocator.metrics import get_metric
    from codec import get_codec

    _use_backbones(lpips_backbone)
    codecs = [get_codec(name) for name in dict.fromkeys(codec or ["avif", "hevc"])]
    metrics = [get_metric(name) for name in dict.fromkeys(metric or ["lpips"])]
    report = _build(out, images, codecs, metrics, jobs=jobs, keep_going=keep_going, keep_bitstreams=not no_bitstreams)
    typer.echo(
        f"{out}: {report.images} images, {report.points_measured:,} operating points measured, "
        f"{report.points_known:,} known before."
    )
    if report.failures:
        typer.echo("\n".join(["Left out:", *report.failures]), err=True)
        raise typer.Exit(1)


def _build(
    out: Path, images: list[Path], codecs: "list[Codec]", metrics: "list[Metric]", **options: Any
) -> "BuildReport":
    """Build a table with a progress bar; Ctrl-C says what is kept."""
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from allocator.build import Progress, build

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[images]} images"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[current]}"),
    )
    with Bars(*columns, console=_console(stderr=True)) as bars:
        phases: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            if progress.phase not in phases:
                phases[progress.phase] = bars.add_task(progress.phase, total=1.0, images="", current="")
            bars.update(
                phases[progress.phase],
                completed=progress.fraction,
                images=f"{progress.images_done}/{progress.images}",
                current=progress.current,
            )

        try:
            return build(out, images, codecs, metrics, report=show, **options)
        except KeyboardInterrupt:
            bars.stop()
            print(
                f"Interrupted. All that was measured is kept in {out}; run the same command again to go on.",
                file=sys.stderr,
            )
            raise typer.Exit(130) from None


@tables.command("show")
def tables_show(table: TableFile) -> None:
    """Summarise a table: images, codecs, rates and mean metrics of each level."""
    from rich.table import Table as Grid

    from allocator.tables import Table

    with Table(table) as opened:
        counts, metrics, frame = opened.counts(), list(opened.metrics()), opened.frame()
    typer.echo(
        f"{table}: {counts['images']} images ({counts['measured']} measured), {counts['points']:,} operating points, "
        f"{counts['bitstreams']:,} bitstreams kept"
    )
    grid = Grid("codec", "level", "setting", "images", "bpp", "encode s", "decode s", *metrics)
    for (codec, level), points in frame.groupby(["codec", "level"]):
        grid.add_row(
            str(codec),
            str(level),
            points["setting"].iloc[0],
            str(len(points)),
            f"{points['bpp'].mean():.4f}",
            f"{points['encode_seconds'].mean():.3f}",
            f"{points['decode_seconds'].mean():.3f}",
            *(f"{points[name].mean():.4f}" for name in metrics),
        )
    _console().print(grid)


@tables.command("export")
def tables_export(
    table: TableFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Ends with .csv or .parquet.")],
) -> None:
    """Write all operating points, one a row, as CSV or Parquet."""
    from allocator.tables import Table

    with Table(table) as opened:
        frame = opened.frame()
    _write_frame(frame, out)
    typer.echo(f"{out}: {len(frame):,} operating points")


def _write_frame(frame: "pd.DataFrame", out: Path) -> None:
    import io

    from allocator.errors import AllocatorError
    from codec.image import write_file

    buffer = io.BytesIO()
    if out.suffix == ".parquet":
        frame.to_parquet(buffer, index=False)
    elif out.suffix == ".csv":
        frame.to_csv(buffer, index=False)
    else:
        raise AllocatorError(f"{out}: name it .csv or .parquet, which says what to write.")
    write_file(out, buffer.getvalue())


@tables.command("merge")
def tables_merge(
    parts: Annotated[list[Path], typer.Argument(help="Tables built apart.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new table.")],
) -> None:
    """Join tables into a new one; what several hold is taken from the first."""
    from allocator.errors import AllocatorError
    from allocator.tables import Table

    if out.exists():
        raise AllocatorError(f"{out}: is there already; name a new file.")
    partial = out.with_name(out.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        with Table(partial, create=True) as merged:
            for part in parts:
                with Table(part) as other:
                    merged.merge(other)
            counts = merged.counts()
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    typer.echo(f"{out}: {counts['images']} images, {counts['points']:,} operating points")


def _allocations(
    table: Path,
    targets: list[str] | None,
    budget: int | None,
    rule: RuleName,
    objective: str | None,
    codecs: list[str] | None,
    solver: SolverName,
    time_limit: float | None,
) -> "list[Allocation]":
    from allocator.allocation import allocate, find_metric, make_budget, parse_target, read_points
    from allocator.errors import AllocatorError
    from allocator.tables import Table

    wanted = [parse_target(target) for target in targets or []]
    if not wanted and budget is None:
        raise AllocatorError("Name at least one --target, or a --budget.")
    with Table(table) as opened:
        metrics = opened.metrics()
        frame = read_points(opened, codecs or ())
        metric = find_metric(opened, objective) if objective else next(iter(metrics))
    budgets = [make_budget(frame, rule.value, target=target) for target in wanted]
    if budget is not None:
        budgets.append(make_budget(frame, rule.value, total_bytes=budget))
    return [
        allocate(
            frame,
            one,
            metric,
            higher_is_better=metrics[metric],
            solver=solver.value,
            time_limit=time_limit,
        )
        for one in budgets
    ]


@app.command()
def solve(
    table: TableFile,
    target: Targets = None,
    budget: BudgetOption = None,
    rule: RuleOption = RuleName.pooled,
    objective: Objective = None,
    codec: CodecFilter = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The choices, as .csv or .parquet.")] = None,
    solver: Solver = SolverName.cbc,
    time_limit: TimeLimit = None,
) -> None:
    """Pick one level for each image: best mean objective within the budget, proven optimal."""
    found = _allocations(table, target, budget, rule, objective, codec, solver, time_limit)
    for allocation in found:
        typer.echo(_summary(allocation))
    if out:
        import pandas as pd

        chosen = [a.chosen.assign(target=a.budget.bpp).set_index("target").reset_index() for a in found]
        _write_frame(pd.concat(chosen), out)
        typer.echo(f"The chosen levels are in {out}.")


def _summary(allocation: "Allocation") -> str:
    budget = allocation.budget
    limit = f" ({int(budget.limit):,} bytes)" if budget.rule == "pooled" else ""
    proof = "proven optimal" if allocation.gap == 0 else f"at most {allocation.gap:.2g} above the optimum"
    metric, achieved = allocation.objective, allocation.bytes
    lines = [
        f"Target {budget.bpp:g} bpp {budget.rule}{limit}",
        f"  rate        {allocation.bpp:.6f} bpp, {achieved:,} bytes, slack {allocation.slack:,.0f} bytes",
        f"  {metric:<11} {allocation.mean_objective:.6f} mean, {proof}",
    ]
    for label, other, missing in (
        ("one level", allocation.single, "no single level fits the budget"),
        ("equal rate", allocation.equal, "some image has no level as small as the rate"),
    ):
        if other is None:
            lines.append(f"  {label:<11} {missing}")
        else:
            detail = f", {other.detail}" if other.detail else ""
            lines.append(f"  {label:<11} {other.objective:.6f} mean, {other.bytes:,} bytes{detail}")
    mix = ", ".join(f"{codec} {count}" for codec, count in allocation.chosen["codec"].value_counts().items())
    lines.append(f"  images      {len(allocation.chosen)}: {mix}")
    lines.append(f"  price       1,000 more bytes better the mean {metric} by about {1000 * allocation.price:.2g}")
    return "\n".join(lines)


@app.command()
def submit(
    table: TableFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="The submission's folder.")],
    target: Annotated[str | None, typer.Option("--target", "-t", metavar="BPP")] = None,
    budget: BudgetOption = None,
    rule: RuleOption = RuleName.pooled,
    objective: Objective = None,
    codec: CodecFilter = None,
    solver: Solver = SolverName.cbc,
    time_limit: TimeLimit = None,
) -> None:
    """Solve, and write the chosen bitstreams as a submission."""
    from allocator.tables import Table
    from submissions.submit import ARCHIVE, submit

    targets = [target] if target else None
    [allocation] = _allocations(table, targets, budget, rule, objective, codec, solver, time_limit)
    with Table(table) as opened:
        manifest = submit(opened, allocation, out)
    typer.echo(_summary(allocation))
    typer.echo(f"{out / ARCHIVE}: {len(manifest.entries)} bitstreams, {manifest.bytes:,} bytes")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A submission's folder.", show_default=False)],
    lpips_backbone: Backbone = None,
) -> None:
    """Decode a submission in a fresh process and compare it with what was measured."""
    from submissions.verify import verify

    _use_backbones(lpips_backbone)
    verdict = verify(folder)
    for note in verdict.notes:
        typer.echo(f"note: {note}")
    for failure in verdict.failures:
        typer.echo(f"FAIL: {failure}")
    if not verdict.passed:
        raise typer.Exit(1)
    budget = f" of {verdict.budget_bytes:,}" if verdict.budget_bytes is not None else ""
    checked = ", ".join(["bytes", "pixels", *verdict.remeasured])
    typer.echo(f"PASS: {verdict.images} images decode, {verdict.bytes:,} bytes{budget}; as measured: {checked}.")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write.")] = Path("allocator-demo"),
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1)] = None,
    lpips_backbone: Backbone = None,
) -> None:
    """Run the whole job on photos that come with scikit-image."""
    from allocator.cli.demo import run

    _use_backbones(lpips_backbone)
    run(out, jobs, _console(), _build)
