"""The command-line application and what its commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

app = typer.Typer(
    help="Pick the codec and quality level of every image so that the set looks best within one byte budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

TableFile = Annotated[Path, typer.Argument(help="A table made by `tables build`.", show_default=False)]
Backbone = Annotated[
    list[Path] | None,
    typer.Option(
        "--lpips-backbone",
        metavar="FILE",
        help="Weights of LPIPS's backbone, torchvision's alexnet, squeezenet1_1 or vgg16. "
        "[env var: ALLOCATOR_LPIPS_BACKBONE]",
    ),
]


def console(*, stderr: bool = False) -> "Console":
    """Where tables and progress go."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False)


def use_backbones(files: list[Path] | None) -> None:
    """Hand the files on to LPIPS in this and all worker processes."""
    import os

    if files:
        os.environ["ALLOCATOR_LPIPS_BACKBONE"] = os.pathsep.join(map(str, files))


def write_frame(frame: "pd.DataFrame", out: Path) -> None:
    """Write a data frame, whole or not at all.

    Raises:
        AllocatorError: the file's ending is neither .csv nor .parquet.
        CodecError: it can't be written.
    """
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
