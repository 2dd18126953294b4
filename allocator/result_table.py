"""Tables of results, rendered as CSV, Markdown or LaTeX; the command line adds text for terminals."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from allocator.provenance import FOOTNOTE, MARK

if TYPE_CHECKING:
    import pandas as pd

Cell = tuple[int, str]
"""Row and column."""


class Texts(NamedTuple):
    """A table as people read it."""

    heads: list[str]
    rows: list[list[str]]
    footnote: str
    """Empty unless a cell is marked."""


@dataclass(frozen=True)
class ResultTable:
    """A table of results; in each column all numbers have as many decimals."""

    frame: "pd.DataFrame"
    """What is not known is left blank."""
    title: str
    keys: int = 2
    """Columns that tell the rows apart, the first ones."""
    decimals: Mapping[str, int] = field(default_factory=dict)
    """Of columns; by default 4, or 2 where a value is 10 or more."""
    marked: frozenset[Cell] = frozenset()
    """Cells with :data:`allocator.provenance.MARK` behind their values."""
    best: frozenset[Cell] = frozenset()
    """Cells in bold, in Markdown and LaTeX."""

    def csv(self) -> str:
        """For programs: every digit, no marks."""
        return self.frame.to_csv(index=False, float_format="%.6g").removesuffix("\n")  # type: ignore[no-any-return]

    def markdown(self) -> str:
        """With the title above, and the footnote below."""
        heads, rows, footnote = self.texts(bold="**{}**".format)
        lines = [heads, ["---"] * len(heads), *rows]
        return "\n".join(
            [
                f"{self.title}:\n",
                *("| " + " | ".join(line) + " |" for line in lines),
                "",
                *([footnote, ""] if footnote else []),
            ]
        )

    def latex(self) -> str:
        """By the package booktabs, with the title as a comment."""
        heads, rows, footnote = self.texts(write=lambda text: _escaped(text) or "--", bold="\\textbf{{{}}}".format)
        lines = [
            f"% {self.title}; needs \\usepackage{{booktabs}}",
            f"\\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            "\\toprule",
            " & ".join(map(_escaped, heads)) + " \\\\",
            "\\midrule",
            *(" & ".join(row) + " \\\\" for row in rows),
            "\\bottomrule",
            *(
                [f"\\multicolumn{{{len(heads)}}}{{l}}{{\\footnotesize {_escaped(footnote)}}} \\\\"]
                if footnote
                else []
            ),
            "\\end{tabular}\n",
        ]
        return "\n".join(lines)

    def texts(
        self,
        write: Callable[[str], str] = str,
        bold: Callable[[str], str] = str,
        *,
        notes: bool = True,
        align: bool = False,
    ) -> Texts:
        """Headings and cells.

        Args:
            write: what a text becomes.
            bold: what the best of a column becomes.
            notes: with the column ``note``, if it holds any.
            align: make room for marks in all cells of a column.
        """
        heads = [head for head in self.frame.columns if head != "note" or (notes and any(self.frame["note"]))]
        columns, any_mark = [], False
        for head in heads:
            texts = with_decimals(list(self.frame[head]), self.decimals.get(head))
            signs = [MARK if text and (row, head) in self.marked else "" for row, text in enumerate(texts)]
            any_mark |= any(signs)
            width = max(map(len, signs), default=0) if align else 0
            columns.append(
                [
                    (bold(write(text)) if (row, head) in self.best else write(text))
                    + (write(sign.ljust(width)) if sign or width else "")
                    for row, (text, sign) in enumerate(zip(texts, signs, strict=True))
                ]
            )
        return Texts(heads, [list(row) for row in zip(*columns, strict=True)], FOOTNOTE if any_mark else "")


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


def _escaped(text: str) -> str:
    for character in "\\&%$#_{}":
        text = text.replace(character, "\\" + character if character != "\\" else "")
    return text.replace(MARK, "$^{\\dagger}$")
