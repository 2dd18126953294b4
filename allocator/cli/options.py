"""Options and arguments that several commands share."""

from typing import Annotated, Any

import typer

from allocator.cli import completion

Images = Annotated[
    list[str],
    typer.Argument(help="Image files, folders, addresses (s3://, gs://, https://).", show_default=False),
]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Processes; by default one a core.")]


def codec_option(help: str | None = None) -> Any:
    """Names of codecs."""
    return typer.Option("--codec", "-c", metavar="NAME", help=help, autocompletion=completion.codec_names)


def metric_option(help: str | None = None, metavar: str = "NAME") -> Any:
    """Names of metrics."""
    return typer.Option("--metric", "-m", metavar=metavar, help=help, autocompletion=completion.metric_names)


def objective_option(help: str) -> Any:
    """What is optimised."""
    return typer.Option("--objective", metavar="METRIC[:WEIGHT]", help=help, autocompletion=completion.metric_names)
