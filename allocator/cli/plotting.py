"""Commands that draw figures for papers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli import completion
from allocator.cli.app import Json, RuleName, RuleOption, TableFile, app, codec_names, emit, note
from allocator.cli.comparing import Decibels, With
from allocator.cli.options import ALL_METRICS, ANCHOR, TARGETS, codec_option, metric_option, objective_option, split

if TYPE_CHECKING:
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
    import allocator as al
    from allocator.api import RATES

    look = _look(columns, serif, font_size, least_bpp, most_bpp)
    with al.open(table) as opened:
        drawn = opened.plot_frontier(
            out,
            target or RATES,
            objective=objective or (),
            codecs=codec_names(codec, opened.codecs()),
            rule=rule.value,
            look=look,
        )
    _tell("frontier", out, drawn, as_json)


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
    import allocator as al

    look = _look(columns, serif, font_size, least_bpp, most_bpp)
    with al.open(table) as opened:
        drawn = opened.plot_curves(
            out,
            metrics=split(metric),
            images=image or (),
            codecs=codec_names(codec, opened.codecs()),
            published=published or (),
            ms_ssim_db=ms_ssim_db,
            rule=rule.value,
            look=look,
        )
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
    import allocator as al

    look = _look(columns, serif, font_size)
    with al.open(table) as opened:
        drawn = opened.plot_bd(
            out,
            anchor,
            metrics=split(metric),
            codecs=codec_names(codec, opened.codecs()),
            rule=rule.value,
            look=look,
        )
    _tell("bd", out, drawn, as_json)


def _look(*values: Any) -> "Look":
    from allocator.plot import Look

    return Look(*values)


def _tell(kind: str, out: Path, drawn: "Drawn", as_json: bool) -> None:
    for text in [] if as_json else drawn.notes:
        note(text)
    line = f"{out}: {drawn.width_inches:g} x {drawn.height_inches:.2f} inches; {', '.join(drawn.curves)}"
    emit({"out": out, "kind": kind, **vars(drawn)}, line, as_json=as_json)
