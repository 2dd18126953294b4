"""How tables of results are written: as text, CSV, Markdown or LaTeX."""

import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from allocator.cli.app import grid

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

Cell = tuple[int, str]
"""Row and column."""


class FormatName(StrEnum):
    """How tables are written."""

    text = "text"
    csv = "csv"
    markdown = "markdown"
    latex = "latex"


def format_table(
    frame: "pd.DataFrame",
    title: str,
    format_: FormatName,
    *,
    keys: int = 2,
    decimals: Mapping[str, int] | None = None,
    marked: frozenset[Cell] = frozenset(),
    footnote: str = "",
    best: frozenset[Cell] = frozenset(),
) -> "RenderableType":
    """A table of results, in each column with the same number of decimals.

    Args:
        frame: what is written; what isn't known is left blank.
        title: above it, in LaTeX as a comment.
        format_: CSV is for programs: every digit, no marks.
        keys: columns that are repeated where a text table goes on below.
        decimals: of columns; by default 4, or 2 where a value is 10 or more.
        marked: cells with :data:`allocator.provenance.MARK` behind their value.
        footnote: what the mark means, below a table that has one.
        best: cells in bold, in Markdown and LaTeX.
    """
    from allocator.provenance import MARK

    if format_ == FormatName.csv:
        return frame.to_csv(index=False, float_format="%.6g").removesuffix("\n")  # type: ignore[no-any-return]
    heads = [head for head in frame.columns if head != "note" or (format_ != FormatName.text and any(frame["note"]))]
    columns = []
    any_mark = False
    for head in heads:
        texts = with_decimals(list(frame[head]), (decimals or {}).get(head))
        signs = [MARK if text and (row, head) in marked else "" for row, text in enumerate(texts)]
        any_mark |= any(signs)
        width = max(map(len, signs), default=0) if format_ == FormatName.text else 0
        bold = [(row, head) in best for row in range(len(texts))]
        columns.append(
            [_styled(*one, format_) for one in zip(texts, [sign.ljust(width) for sign in signs], bold, strict=True)]
        )
    rows = [list(row) for row in zip(*columns, strict=True)]
    below = footnote if any_mark else ""
    if format_ == FormatName.text:
        from rich.console import Group

        table = grid(heads, rows, title, keys=keys)
        return Group(table, below) if below else table
    if format_ == FormatName.markdown:
        lines = [heads, ["---"] * len(heads), *rows]
        return "\n".join(
            [f"{title}:\n", *("| " + " | ".join(line) + " |" for line in lines), "", *([below, ""] if below else [])]
        )
    return _latex(heads, rows, title, below)


def best_of(
    frame: "pd.DataFrame", groups: Sequence[str], columns: Mapping[str, bool | Callable[[int], bool]]
) -> frozenset[Cell]:
    """The best value of each column in each group of rows that agree in some columns.

    Args:
        frame: with rows numbered from 0.
        groups: columns.
        columns: to whether higher is better, which may differ by row.
    """
    found = set()
    for _, rows in frame.groupby(list(groups), sort=False):
        for column, higher in columns.items():
            sign = 1 if (higher(rows.index[0]) if callable(higher) else higher) else -1
            values = (sign * rows[column]).dropna()
            if len(values) > 1:
                found |= {(int(row), column) for row in values.index[values == values.max()]}
    return frozenset(found)


def with_decimals(values: Sequence[object], decimals: int | None = None) -> list[str]:
    """A column's values as text, numbers with as many decimals: by default 4, or 2 where one is 10 or more."""
    numbers = [value for value in values if isinstance(value, float) and math.isfinite(value)]
    if decimals is None:
        decimals = 2 if max(map(abs, numbers), default=0.0) >= 10 else 4
    return [
        "" if value is None or value != value else f"{value:.{decimals}f}" if isinstance(value, float) else str(value)
        for value in values
    ]


def _styled(text: str, sign: str, bold: bool, format_: FormatName) -> str:
    if format_ == FormatName.latex:
        text = _escaped(text) or "--"
        return (f"\\textbf{{{text}}}" if bold else text) + _escaped(sign)
    return (f"**{text}**" if bold and format_ == FormatName.markdown else text) + sign


def _latex(heads: Sequence[str], rows: Sequence[Sequence[str]], title: str, below: str) -> str:
    """By the package booktabs."""
    lines = [
        f"% {title}; needs \\usepackage{{booktabs}}",
        f"\\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        "\\toprule",
        " & ".join(map(_escaped, heads)) + " \\\\",
        "\\midrule",
        *(" & ".join(row) + " \\\\" for row in rows),
        "\\bottomrule",
        *([f"\\multicolumn{{{len(heads)}}}{{l}}{{\\footnotesize {_escaped(below)}}} \\\\"] if below else []),
        "\\end{tabular}\n",
    ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    from allocator.provenance import MARK

    for character in "\\&%$#_{}":
        text = text.replace(character, "\\" + character if character != "\\" else "")
    return text.replace(MARK, "$^{\\dagger}$")
