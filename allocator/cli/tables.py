"""Commands that make tables and look at them."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.app import Backbone, TableFile, app, console, use_backbones, write_frame

if TYPE_CHECKING:
    from allocator.build import BuildReport
    from allocator.lazy import Needed
    from allocator.metrics import Metric
    from codec import Codec

tables = typer.Typer(help="Measure images into tables, and look at tables.", no_args_is_help=True)
app.add_typer(tables, name="tables")


class AssumptionName(StrEnum):
    """What is assumed about curves that aren't measured whole."""

    monotone = "monotone"
    convex = "convex"


@tables.command("build")
def tables_build(
    images: Annotated[list[Path], typer.Argument(help="Image files and folders.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table; continued if it's there.")],
    codec: Annotated[list[str] | None, typer.Option("--codec", "-c", metavar="NAME")] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", "-m", metavar="NAME")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Processes; by default one a core.")] = None,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Leave out what can't be measured.")] = False,
    no_bitstreams: Annotated[bool, typer.Option("--no-bitstreams", help="Don't keep them in the table.")] = False,
    for_target: Annotated[
        list[str] | None,
        typer.Option("--for-target", metavar="BPP", help="Measure only what an allocation at this rate needs."),
    ] = None,
    for_budget: Annotated[
        list[int] | None, typer.Option("--for-budget", metavar="BYTES", help="The same for a budget.")
    ] = None,
    assume: Annotated[
        AssumptionName, typer.Option(help="Of each image's curve of cost over bytes, for --for-target.")
    ] = AssumptionName.monotone,
    lpips_backbone: Backbone = None,
) -> None:
    """Measure every image at every level of the codecs (avif and hevc, lpips unless told otherwise).

    Where LPIPS's weights can't be had, lpips-lite is measured in its place unless a metric is named.
    """
    from allocator.metrics import get_metric, get_perceptual
    from codec import get_codec

    use_backbones(lpips_backbone)
    try:
        codecs = [get_codec(name) for name in dict.fromkeys(codec or ["avif", "hevc"])]
        metrics = [get_metric(name) for name in dict.fromkeys(metric or ())] or [get_perceptual(_note)]
        needed = _needed(codecs, metrics, for_target, for_budget, assume) if for_target or for_budget else None
        report = build_with_progress(
            out,
            images,
            codecs,
            metrics,
            jobs=jobs,
            keep_going=keep_going,
            keep_bitstreams=not no_bitstreams,
            needed=needed,
        )
    except KeyboardInterrupt:
        typer.echo(
            f"Interrupted. All that was measured is kept in {out}; run the same command again to go on.", err=True
        )
        raise typer.Exit(130) from None
    typer.echo(
        f"{out}: {report.images} images, {report.points_measured:,} operating points measured, "
        f"{report.points_known:,} known before."
    )
    if needed:
        whole = report.images * sum(len(one.levels) for one in codecs)
        typer.echo(
            f"Of {whole:,} operating points these are what the budgets need, if curves are {assume.value}: then the "
            f"allocation is the full table's. {needed.broken} curves aren't, and were measured in full."
        )
    if report.others:
        names = ", ".join(report.others[:3]) + (", ..." if len(report.others) > 3 else "")
        typer.echo(
            f"note: the set also holds {len(report.others)} images of earlier builds that weren't given now "
            f"({names}); `allocator tables drop` takes images out."
        )
    if report.failures:
        typer.echo("\n".join(["Left out:", *report.failures]), err=True)
        raise typer.Exit(1)


def _note(text: str) -> None:
    typer.echo(f"note: {text}", err=True)


def _needed(
    codecs: "list[Codec]",
    metrics: "list[Metric]",
    targets: list[str] | None,
    limits: list[int] | None,
    assume: AssumptionName,
) -> "Needed":
    from allocator.allocation import make_budget, parse_target
    from allocator.lazy import Needed
    from allocator.objective import find_objective

    rates = [parse_target(target) for target in targets or []]
    return Needed(
        codecs,
        lambda points: [
            *(make_budget(points, "pooled", target=rate) for rate in rates),
            *(make_budget(points, "pooled", total_bytes=limit) for limit in limits or []),
        ],
        lambda table: find_objective(table, [metrics[0].name]),
        assume.value,
    )


def build_with_progress(
    out: Path, images: list[Path], codecs: "list[Codec]", metrics: "list[Metric]", **options: Any
) -> "BuildReport":
    """Build a table with a progress bar."""
    from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from allocator.build import Progress, build

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[images]} images", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[current]}", markup=False),
    )
    with Bars(*columns, console=console(stderr=True)) as bars:
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

        return build(out, images, codecs, metrics, report=show, **options)


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
    console().print(grid)


@tables.command("drop")
def tables_drop(
    table: TableFile,
    names: Annotated[list[str], typer.Argument(help="Images, as `tables export` names them.", show_default=False)],
) -> None:
    """Take images out of the set, with all that was measured of them."""
    from allocator.errors import AllocatorError
    from allocator.tables import Table

    with Table(table) as opened:
        if unknown := set(names) - {member.name for member in opened.members()}:
            raise AllocatorError(f"{table}: holds no image called {sorted(unknown)[0]!r}.")
        typer.echo(f"{table}: {opened.drop(names)} images taken out, {opened.counts()['images']} left.")


@tables.command("export")
def tables_export(
    table: TableFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Ends with .csv or .parquet.")],
) -> None:
    """Write all operating points, one a row, as CSV or Parquet."""
    from allocator.tables import Table

    with Table(table) as opened:
        frame = opened.frame()
    write_frame(frame, out)
    typer.echo(f"{out}: {len(frame):,} operating points")


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
