"""Options and arguments that several commands share."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from allocator.cli import completion

Images = Annotated[
    list[str],
    typer.Argument(help="Image files, folders of images, or addresses (s3://, gs://, https://).", show_default=False),
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", metavar="N", min=1, help="Number of worker processes. Default: one per core."),
]

Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", min=1, help="Number of threads. Default: PyTorch's own choice."),
]
ANCHOR = "Codec that all others are compared with."
ALL_METRICS = "Metrics to show, separated by commas; repeatable. Default: all metrics of the table."
ONLY_CODECS = "Codec to use; repeatable. Default: all codecs of the table."
OBJECTIVE = "Metric to optimise; several, with weights, make a mixture. Default: the table's first metric."
WEIGHTS = (
    "CSV file with lines IMAGE,WEIGHT, such as page views; an image it lacks gets the lowest weight. Default: 1 each."
)
FLOOR = "Worst value of a metric allowed for every image, or for images of a name ('hero/*:psnr=35'); repeatable."
TARGETS = "Target rate in bits per pixel; repeatable. Default: 0.075, 0.15 and 0.3."


def split(texts: Sequence[str] | None) -> list[str]:
    """Values that may be typed with commas between, one by one."""
    return ",".join(texts).split(",") if texts else []


def codec_option(help: str) -> Any:
    """Names of codecs."""
    return typer.Option("--codec", "-c", metavar="NAME", help=help, autocompletion=completion.codec_names)


def metric_option(help: str, metavar: str = "NAME") -> Any:
    """Names of metrics."""
    return typer.Option("--metric", "-m", metavar=metavar, help=help, autocompletion=completion.metric_names)


def objective_option() -> Any:
    """What is optimised."""
    return typer.Option(
        "--objective", metavar="METRIC[:WEIGHT]", help=OBJECTIVE, autocompletion=completion.metric_names
    )
