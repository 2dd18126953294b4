"""Commands that draw figures for papers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli import completion
from allocator.cli.app import Json, RuleName, RuleOption, TableFile, app, codec_names, emit, note
from allocator.cli.comparing import Decibels, With, read_curves
from allocator.cli.options import ALL_METRICS, ANCHOR, TARGETS, codec_option, metric_option, objective_option

if TYPE_CHECKING:
    import pandas as pd

    from allocator.plot import Drawn, Look

plots = typer.Typer(help="Draw frontiers, rate-quality curves and BD-rates for papers.", no_args_is_help=True)
app.add_typer(plots, name="plot")

Out = Annotated[
    Path, typer.Option("--out", "-o", help="Figure file; its ending sets the format: .pdf, .svg or .png.")
]
Columns = Annotated[
    int,
    typer.Option(
        "--columns", metavar="N", min=1, max=2, help="Width in columns of a journal page: 1 (3.5 inches) or 2 (7.16)."
    ),
]
Serif = Annotated[bool, typer.Option("--serif", help="Use a serif font, which matches Times. Default: sans serif.")]
FontSize = Annotated[float, typer.Option("--font-size", metavar="POINTS", min=4, max=24, help="Font size in points.")]
LeastRate = Annotated[
    float | None,
    typer.Option("--least-bpp", metavar="BPP", min=1e-6, help="Left end of the rate axis. Default: automatic."),
]
MostRate = Annotated[
    float | None,
    typer.Option("--most-bpp", metavar="BPP", min=1e-6, help="Right end of the rate axis. Default: automatic."),
]
OnlyCodecs = Annotated[
    list[str] | None,
    codec_option("Codec to draw; repeatable. Default: all codecs of the table."),
]
Metrics = Annotated[
    list[str] | None,
    metric_option(ALL_METRICS, "NAME,..."),
]


@plots.command("frontier", epilog="Example: `allocator plot frontier run.db --target 0.15 --out frontier.pdf`")
def frontier(
    table: TableFile,
    out: Out,
    target: Annotated[list[str] | None, typer.Option("--target", "-t", metavar="BPP", help=TARGETS)] = None,
    objective: Annotated[
        list[str] | None,
        objective_option(),
    ] = None,
    codec: OnlyCodecs = None,
    rule: RuleOption = RuleName.pooled,
    least_bpp: LeastRate = None,
    most_bpp: MostRate = None,
    columns: Columns = 1,
    serif: Serif = False,
    font_size: FontSize = 8.0,
    as_json: Json = False,
) -> None:
    """Draw the quality that the set reaches at every rate.

    The figure compares levels chosen by image, each codec alone, the best single level and equal rates.
    """
    from allocator.allocation import parse_target
    from allocator.objective import find_objective
    from allocator.plot import check_ending, plot_frontier
    from allocator.tables import Table

    check_ending(out)
    targets = [parse_target(text) for text in target or ["0.075", "0.15", "0.3"]]
    with Table(table) as opened:
        goal = find_objective(opened, objective or ())
    points, look = _points(table, codec, columns, serif, font_size, least_bpp, most_bpp)
    _tell("frontier", out, plot_frontier(out, points, goal, targets, look, rule.value), as_json)


@plots.command("curves", epilog="Example: `allocator plot curves run.db --metric psnr --out curves.pdf`")
def curves(
    table: TableFile,
    out: Out,
    metric: Metrics = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Name of an image, whose own curves are drawn; repeatable. Default: means over all images.",
        ),
    ] = None,
    codec: OnlyCodecs = None,
    published: With = None,
    ms_ssim_db: Decibels = False,
    rule: RuleOption = RuleName.pooled,
    least_bpp: LeastRate = None,
    most_bpp: MostRate = None,
    columns: Columns = 1,
    serif: Serif = False,
    font_size: FontSize = 8.0,
    as_json: Json = False,
) -> None:
    """Draw rate against quality at each codec's levels.

    Each metric and image has a panel.
    """
    from allocator.plot import check_ending, plot_curves

    check_ending(out)
    _, look = _points(table, codec, columns, serif, font_size, least_bpp, most_bpp)
    points, higher, others = read_curves(table, codec, metric, published or (), ms_ssim_db)
    drawn = plot_curves(out, points, higher, image or (), look, rule.value, others)
    _tell("curves", out, drawn, as_json)


@plots.command("bd", epilog="Example: `allocator plot bd run.db --anchor hevc --out bd.svg`")
def bd(
    table: TableFile,
    out: Out,
    anchor: Annotated[
        str,
        typer.Option(metavar="CODEC", help=ANCHOR, autocompletion=completion.codec_names),
    ] = "hevc",
    metric: Metrics = None,
    codec: OnlyCodecs = None,
    rule: RuleOption = RuleName.pooled,
    columns: Columns = 1,
    serif: Serif = False,
    font_size: FontSize = 8.0,
    as_json: Json = False,
) -> None:
    """Draw each codec's BD-rate against an anchor as bars.

    Each metric has a panel.
    """
    from allocator.plot import check_ending, plot_bd

    check_ending(out)
    _, look = _points(table, [*codec, anchor] if codec else None, columns, serif, font_size)
    points, higher, _ = read_curves(table, codec and [*codec, anchor], metric)
    _tell("bd", out, plot_bd(out, points, anchor, higher, look, rule.value), as_json)


def _points(
    table: Path,
    codecs: list[str] | None,
    columns: int,
    serif: bool,
    font_size: float,
    least_bpp: float | None = None,
    most_bpp: float | None = None,
) -> "tuple[pd.DataFrame, Look]":
    """Those of the codecs; colours are dealt out over all of the table's, so that each keeps its own."""
    from allocator.allocation import read_points
    from allocator.errors import AllocatorError
    from allocator.plot import Look
    from allocator.tables import Table

    if least_bpp and most_bpp and least_bpp >= most_bpp:
        raise AllocatorError(f"The axis of rates can't begin at {least_bpp:g} and end at {most_bpp:g} bpp.")
    with Table(table) as opened:
        points = read_points(opened, codec_names(codecs, opened.codecs()))
        order = tuple(sorted(read_points(opened)["codec"].unique())) if codecs else ()
    return points, Look(columns, serif, font_size, least_bpp, most_bpp, order)


def _tell(kind: str, out: Path, drawn: "Drawn", as_json: bool) -> None:
    for text in [] if as_json else drawn.notes:
        note(text)
    line = f"{out}: {drawn.width_inches:g} x {drawn.height_inches:.2f} inches; {', '.join(drawn.curves)}"
    emit({"out": out, "kind": kind, **vars(drawn)}, line, as_json=as_json)
