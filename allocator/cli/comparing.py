"""Commands that compare codecs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli import completion
from allocator.cli.app import Json, RuleName, RuleOption, TableFile, app, echo, emit, note
from allocator.cli.formats import FormatName, best_of, format_table
from allocator.cli.options import ALL_METRICS, ANCHOR, TARGETS, Threads, codec_option, metric_option, objective_option

if TYPE_CHECKING:
    import pandas as pd

    from allocator.published import Published

With = Annotated[
    list[Path] | None,
    typer.Option(
        "--with",
        metavar="FILE",
        help="File of published curves to add: CompressAI's results (.json) or points (.csv); repeatable.",
    ),
]
Decibels = Annotated[bool, typer.Option("--ms-ssim-db", help="Print MS-SSIM in decibels, -10 log10(1 - MS-SSIM).")]


@app.command(epilog="Example: `allocator compare run.db --anchor hevc --target 0.15`")
def compare(
    table: TableFile,
    anchor: Annotated[
        str,
        typer.Option(metavar="CODEC", help=ANCHOR, autocompletion=completion.codec_names),
    ] = "hevc",
    metric: Annotated[
        list[str] | None,
        metric_option(ALL_METRICS, "NAME,..."),
    ] = None,
    objective: Annotated[
        list[str] | None,
        objective_option(),
    ] = None,
    target: Annotated[list[str] | None, typer.Option("--target", "-t", metavar="BPP", help=TARGETS)] = None,
    codec: Annotated[
        list[str] | None,
        codec_option("Codec to compare with the anchor; repeatable. Default: all codecs of the table."),
    ] = None,
    published: With = None,
    papers: Annotated[
        bool,
        typer.Option("--papers", help="Add rows for the methods of the papers' tables 1, blank where unmeasured."),
    ] = False,
    per_image: Annotated[bool, typer.Option("--per-image", help="Also print the BD-rates of each image.")] = False,
    ms_ssim_db: Decibels = False,
    rule: RuleOption = RuleName.pooled,
    format_: Annotated[FormatName, typer.Option("--format", help="Format of the printed tables.")] = FormatName.text,
    as_json: Json = False,
) -> None:
    """Compare codecs at target rates, and by BD-rate to an anchor."""
    import pandas as pd

    from allocator.allocation import parse_target
    from allocator.compare import against, against_by_image, at_targets, with_papers_rows
    from allocator.grid import OTHER_RULE
    from allocator.objective import find_objective
    from allocator.provenance import FOOTNOTE, training_metrics
    from allocator.tables import Table

    targets = [parse_target(text) for text in target or ["0.075", "0.15", "0.3"]]
    points, higher, curves = read_curves(table, codec and [*codec, anchor], metric, published or (), ms_ssim_db)
    with Table(table) as opened:
        goal = find_objective(opened, objective or ())
    names = list(higher)
    images = points["image"].nunique()
    reached = at_targets(points, targets, goal, names, rule.value)
    averages = against(points, anchor, higher, rule=rule.value, published=curves)
    if papers:
        measured = points["codec"].unique()
        reached, averages = (
            with_papers_rows(reached, measured),
            with_papers_rows(averages, [*measured, *(curve.codec for curve in curves)]),
        )
    by_image = against_by_image(points, anchor, higher) if per_image else None
    other = f"{OTHER_RULE[rule.value]}_bpp"
    result = {
        "table": table,
        "images": images,
        "objective": goal.label,
        "rule": rule.value,
        "anchor": anchor,
        "training_metrics": {name: sorted(training_metrics(name)) for name in sorted(points["codec"].unique())},
        "targets": [
            {
                "codec": row["codec"],
                "target_bpp": row["target"],
                "bpp": row["bpp"],
                other: row[other],
                "metrics": {name: row[name] for name in names},
            }
            for row in reached.to_dict("records")
        ],
        "averages": [
            {
                "codec": row["codec"],
                "metric": row["metric"],
                "bd_rate_percent": {method: row[f"BD-rate {method}"] for method in ("pchip", "cubic")},
                "bd_metric": {method: row[f"BD-metric {method}"] for method in ("pchip", "cubic")},
                "note": row["note"] or None,
            }
            for row in averages.to_dict("records")
        ],
        "by_image": None if by_image is None else by_image.to_dict("records"),
    }
    first = (
        f"Each codec allocated by {goal.label}, rule {rule.value}; means over {images} images; blank: a rate out of "
        "its reach"
    )
    second = f"Bjøntegaard's averages against {anchor}, rule {rule.value}: rate in percent, metric in its own units"

    rates, gains = ([c for c in averages if c.startswith(start)] for start in ("BD-rate", "BD-metric"))
    tables: list[Any] = [
        format_table(
            reached,
            first,
            format_,
            decimals={"target": max(len(f"{float(one):g}".partition(".")[2]) for one in targets)},
            marked=_flattered(reached, names),
            footnote=FOOTNOTE,
            best=best_of(reached, ["target"], dict(higher)),
        ),
        format_table(
            averages,
            second,
            format_,
            decimals={**dict.fromkeys(rates, 2), **dict.fromkeys(gains, 4)},
            marked=_flattered(averages, [*rates, *gains]),
            footnote=FOOTNOTE,
            best=best_of(
                averages,
                ["metric"],
                {**dict.fromkeys(rates, False), **dict.fromkeys(gains, lambda row: higher[averages["metric"][row]])},
            ),
        ),
    ]
    if by_image is not None:
        third = f"BD-rates against {anchor} of each image's own curves (PCHIP), percent"
        means = by_image.groupby(["codec", "metric"], as_index=False)["BD-rate"].mean().assign(image="mean", note="")
        together = pd.concat([by_image, means[by_image.columns]], ignore_index=True)

        tables.append(
            format_table(
                together,
                third,
                format_,
                keys=3,
                decimals={"BD-rate": 2},
                marked=_flattered(together, ["BD-rate"]),
                footnote=FOOTNOTE,
            )
        )
    plain = format_ == FormatName.text
    spaced = [part for one in tables for part in ([one] if one is tables[0] or not plain else ["", one])]
    emit(result, *spaced, as_json=as_json)
    if plain and not as_json:
        for text in averages["note"].unique():
            if text:
                note(text)


def _flattered(frame: "pd.DataFrame", columns: Sequence[str]) -> frozenset[tuple[int, str]]:
    """The cells of columns by a metric of their row's codec's training: the row's ``metric``, or the column's own."""
    from allocator.provenance import flatters

    records = enumerate(frame.to_dict("records"))
    return frozenset(
        (row, column)
        for row, one in records
        for column in columns
        if flatters(one.get("metric", column), one["codec"])
    )


def read_curves(
    table: Path,
    codecs: list[str] | None,
    metrics: list[str] | None,
    files: Sequence[Path] = (),
    ms_ssim_db: bool = False,
) -> "tuple[pd.DataFrame, dict[str, bool], list[Published]]":
    """A table's points, the metrics that are shown and whether higher is better, and published curves.

    Args:
        table: that holds the points.
        codecs: only these of the table's; by default all.
        metrics: names, with commas between; by default all that are measured.
        files: of published points.
        ms_ssim_db: show MS-SSIM in decibels.
    """
    from allocator.allocation import read_points
    from allocator.objective import find_metric
    from allocator.published import add_decibels, decibels, read_published
    from allocator.tables import Table

    curves = [add_decibels(curve) for file in files for curve in read_published(file)]
    elsewhere = {curve.codec for curve in curves}
    with Table(table) as opened:
        points = read_points(opened, [name for name in codecs or () if name not in elsewhere])
        known = opened.metrics()
        higher = {
            one: known[one] for one in (find_metric(opened, name) for name in ",".join(metrics or known).split(","))
        }
    if ms_ssim_db and "ms-ssim" in higher:
        points = points.assign(**{"ms-ssim-db": points["ms-ssim"].map(decibels)})
        higher = {"ms-ssim-db" if name == "ms-ssim" else name: better for name, better in higher.items()}
    return points, higher, curves


@app.command(epilog="Example: `allocator complexity photos/ --codec hevc --codec webp`")
def complexity(
    images: Annotated[list[str], typer.Argument(help="Image files and folders of images.", show_default=False)],
    codec: Annotated[
        list[str] | None,
        codec_option("Codec to measure; repeatable. Default: all known codecs."),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(
            "--level", "-l", metavar="LEVEL", min=0, help="Level number from 0. Default: each codec's middle level."
        ),
    ] = None,
    threads: Threads = None,
    format_: Annotated[FormatName, typer.Option("--format", help="Format of the printed table.")] = FormatName.text,
    as_json: Json = False,
) -> None:
    """Measure what codecs cost: operations, time and memory."""
    from dataclasses import asdict

    import pandas as pd
    import torch

    from allocator.complexity import measure
    from allocator.errors import AllocatorError
    from allocator.images import find_images
    from codec import names

    files = [image.path for image in find_images(images)]
    costs, failures = [], []
    for name in codec or names():
        try:
            costs.append(asdict(measure(name, files, level, threads)))
        except AllocatorError as error:
            failures.append(str(error))
    count = threads or torch.get_num_threads()
    text: list[Any] = []
    if costs:
        frame = pd.DataFrame(costs)
        frame["parameters"] = frame["parameters"].astype(float) / 1e6
        frame["peak_bytes"] /= 2**30
        frame.columns = pd.Index(
            ["codec", "level", "parameters, M", "kMAC/pixel", "bpp", "encode s", "decode s", "peak GiB"]
        )
        text.append(format_table(frame, f"Rate and times: means over {len(files)} images, {count} threads", format_))
    result = {"images": len(files), "threads": count, "codecs": costs, "failures": failures}
    emit(result, *text, as_json=as_json)
    if failures:
        echo("\n".join(failures), err=True)
        raise typer.Exit(1)
