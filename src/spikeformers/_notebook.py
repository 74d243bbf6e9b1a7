"""How results show themselves at a prompt and in a notebook: as their text, and as tables."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

MOST_ROWS = 60
"""Of a table; what is beyond is counted in its last row, so that a notebook stays small."""


@dataclass(frozen=True)
class Table:
    """For a notebook.

    Attributes:
        rows: cells of text.
        header: of the columns; () for none.
        title: over the table; with `folded` it is what is clicked to unfold it.
        folded: whether the rows are hidden at first.
        most: rows that are shown.
    """

    rows: Sequence[Sequence[str]]
    header: Sequence[str] = ()
    title: str = ""
    folded: bool = False
    most: int = MOST_ROWS

    def html(self) -> str:
        """The table as HTML; everything in its cells is text."""
        lines = [_row("th", self.header)] if self.header else []
        lines += [_row("td", cells) for cells in self.rows[: self.most]]
        if len(self.rows) > self.most:
            lines.append(_row("td", [f"... and {len(self.rows) - self.most:,} more"]))
        table = f"<table>{''.join(lines)}</table>"
        if self.folded:
            return f"<details><summary>{escape(self.title)}</summary>{table}</details>"
        return f"<p>{escape(self.title)}</p>{table}" if self.title else table


class Tabular(ABC):
    """A result whose text is what a prompt shows, and which is a few tables in a notebook."""

    @abstractmethod
    def __str__(self) -> str:
        """Lines for people."""

    @abstractmethod
    def tables(self) -> Iterable[Table]:
        """For a notebook."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self.tables())


def named_lines(lines: Iterable[str], width: int = 13) -> list[tuple[str, str]]:
    """Lines of text whose first `width` characters are a name -> (name, text)."""
    return [(line[:width].strip(), line[width:]) for line in lines]


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f'<{tag} style="text-align: left">{escape(cell)}</{tag}>' for cell in cells) + "</tr>"
