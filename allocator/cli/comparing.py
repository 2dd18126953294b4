"""Commands that compare codecs."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli import completion
from allocator.cli.app import Json, RuleName, RuleOption, TableFile, app, emit, grid, note

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType


class FormatName(StrEnum):
    """How tables are written."""

    text = "text"
    csv = "csv"
    markdown = "markdown"
    latex = "latex"


@app.command()
def compare(
    table: TableFile,
    anchor: Annotated[
        str,
        typer.Option(
            metavar="CODEC", help="That the others are compared with.", autocompletion=completion.codec_names
        ),
    ] = "hevc",
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            metavar="NAME,...",
            help="By default all that are measured.",
            autocompletion=completion.metric_names,
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC[:WEIGHT]", help="Allocated by; by default the table's first metric."),
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", metavar="BPP", help="By default 0.075, 0.15 and 0.3.")
    ] = None,
    rule: RuleOption = RuleName.pooled,
    format_: Annotated[FormatName, typer.Option("--format", help="Of both tables.")] = FormatName.text,
    as_json: Json = False,
) -> None:
    """Print every codec at the target rates, and its BD-rate and BD-metric against an anchor."""
    from allocator.allocation import parse_target, read_points
    from allocator.compare import against, at_targets
    from allocator.grid import OTHER_RULE
    from allocator.objective import find_metric, find_objective
    from allocator.tables import Table

    targets = [parse_target(text) for text in target or ["0.075", "0.15", "0.3"]]
    with Table(table) as opened:
        points = read_points(opened)
        higher = opened.metrics()
        names = [find_metric(opened, name) for name in ",".join(metric or higher).split(",")]
        goal = find_objective(opened, objective or ())
    images = points["image"].nunique()
    reached = at_targets(points, targets, goal, names, rule.value)
    averages = against(points, anchor, {name: higher[name] for name in names}, rule=rule.value)
    other = f"{OTHER_RULE[rule.value]}_bpp"
    result = {
        "table": table,
        "images": images,
        "objective": goal.label,
        "rule": rule.value,
        "anchor": anchor,
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
    }
    first = (
        f"Each codec allocated by {goal.label}, rule {rule.value}; means over {images} images; blank: a rate out of "
        "its reach"
    )
    second = f"Bjøntegaard's averages against {anchor}, rule {rule.value}: rate in percent, metric in its own units"
    plain = format_ == FormatName.text
    between = [""] if plain else []
    emit(result, _table(reached, first, format_), *between, _table(averages, second, format_), as_json=as_json)
    if plain and not as_json:
        for text in averages["note"].unique():
            if text:
                note(text)


@app.command()
def complexity(
    images: Annotated[list[str], typer.Argument(help="Image files and folders.", show_default=False)],
    codec: Annotated[
        list[str] | None,
        typer.Option(
            "--codec",
            "-c",
            metavar="NAME",
            help="By default all that are known.",
            autocompletion=completion.codec_names,
        ),
    ] = None,
    level: Annotated[int | None, typer.Option("--level", "-l", min=0, help="By default each one's middle.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="By default torch's.")] = None,
    format_: Annotated[FormatName, typer.Option("--format")] = FormatName.text,
    as_json: Json = False,
) -> None:
    """Print what codecs cost: parameters, multiply-adds, encoding and decoding time, peak memory."""
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
        text.append(_table(frame, f"Rate and times: means over {len(files)} images, {count} threads", format_))
    result = {"images": len(files), "threads": count, "codecs": costs, "failures": failures}
    emit(result, *text, as_json=as_json)
    if failures:
        typer.echo("\n".join(failures), err=True)
        raise typer.Exit(1)


def _table(frame: "pd.DataFrame", title: str, format_: FormatName) -> "RenderableType":
    if format_ == FormatName.csv:
        return frame.to_csv(index=False, float_format="%.6g").removesuffix("\n")  # type: ignore[no-any-return]
    rows = [["" if value != value else _text(value) for value in row] for row in frame.itertuples(index=False)]
    heads = list(frame.columns)
    if heads[-1] == "note" and (format_ == FormatName.text or not any(row[-1] for row in rows)):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    if format_ == FormatName.text:
        return grid(heads, rows, title, keys=2)
    if format_ == FormatName.markdown:
        lines = [heads, ["---"] * len(heads), *rows]
        return "\n".join([f"{title}:\n", *("| " + " | ".join(line) + " |" for line in lines), ""])
    body = " \\\\\n".join(" & ".join(map(_escaped, row)) for row in rows)
    head = " & ".join(map(_escaped, heads))
    columns = "l" + "r" * (len(heads) - 1)
    return (
        f"% {title}\n\\begin{{tabular}}{{{columns}}}\n\\hline\n{head} \\\\\n\\hline\n{body} \\\\\n\\hline\n"
        "\\end{tabular}\n"
    )


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _escaped(text: str) -> str:
    for character in "\\&%$#_{}":
        text = text.replace(character, "\\" + character if character != "\\" else "")
    return text
