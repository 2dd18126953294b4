"""The output formats of result tables: text, CSV, Markdown or LaTeX."""

from enum import StrEnum
from typing import TYPE_CHECKING

from allocator.cli.app import grid

if TYPE_CHECKING:
    from rich.console import RenderableType

    from allocator.result_table import ResultTable


class FormatName(StrEnum):
    """An output format."""

    text = "text"
    csv = "csv"
    markdown = "markdown"
    latex = "latex"


def format_table(table: "ResultTable", format_: FormatName) -> "RenderableType":
    """A table of results in a format."""
    if format_ != FormatName.text:
        written: str = getattr(table, format_.value)()
        return written
    from rich.console import Group

    heads, rows, footnote = table.texts(notes=False, align=True)
    text = grid(heads, rows, table.title, keys=table.keys)
    return Group(text, footnote) if footnote else text
