"""Document and TextTable, the output of a command before it is drawn, and the plain-text renderer."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence

import attrs

__all__ = ["MAX_ROWS", "Document", "TextTable", "to_text", "wrapped"]

MAX_ROWS = 20
"""Rows of a table that may be long; `--json` prints all rows."""


@attrs.frozen
class TextTable:
    """A table of text; a column whose name ends in a space has numbers, aligned to the right."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    @classmethod
    def limited(cls, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> TextTable:
        """Make a table of the first 20 rows; one more row says how many there are beside them.

        >>> TextTable.limited("", ("row ", "where"), [(str(n), "") for n in range(22)]).rows[-1]
        ('2 more', '--json lists them all')
        """
        left = len(rows) - MAX_ROWS
        if left > 0:
            blank = ("",) * (len(header) - 2)
            rows = [*rows[:MAX_ROWS], (f"{left:,} more", *blank, "--json lists them all")]
        return cls(title, header, rows)


@attrs.frozen
class Document:
    """A headline, tables, and notes below the tables; an empty headline or title is left out."""

    headline: str
    tables: Sequence[TextTable]
    notes: Sequence[str] = ()


def to_text(page: Document, width: int | None = None, bold: Callable[[str], str] = str) -> str:
    """Return a page as plain text.

    A table that is wider than `width` is stacked: each row becomes lines of a name and a value, so that no
    word and no time is broken. Headline and titles are passed through `bold`. A command among the notes is
    never broken: it is copied.

    >>> held = TextTable("Held", ("symbol", "rows "), [("BTC", "5"), ("ETH", "12")])
    >>> print(to_text(Document("Done.", [held])))
    Done.
    <BLANKLINE>
    Held
      symbol  rows
      BTC        5
      ETH       12
    <BLANKLINE>
    >>> print(to_text(Document("", [TextTable("", ("symbol", "rows "), [("BTC", "5")])]), width=10))
      symbol  BTC
      rows    5
    <BLANKLINE>
    """
    tables = [
        "\n".join(filter(None, [bold(table.title) if table.title else "", *_lines(table, width)]))
        for table in page.tables
    ]
    headline = bold(wrapped(page.headline, width=width)) if page.headline else ""
    return "\n\n".join(filter(None, [headline, *tables, "\n".join(page.notes)])) + "\n"


def wrapped(text: str, *, width: int | None = None, indent: str = "") -> str:
    r"""Break text at spaces, further lines indented; None: at the width of the terminal.

    >>> wrapped("Datasets: mark_price, ohlcv", width=24, indent="  ")
    'Datasets: mark_price,\n  ohlcv'
    """
    columns = width or shutil.get_terminal_size((100, 24)).columns
    return textwrap.fill(
        text, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _lines(table: TextTable, width: int | None) -> list[str]:
    lines = [tuple(name.strip() for name in table.header), *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if width is not None and sum(widths) + 2 * len(widths) > width:
        return _stacked(table, width)

    def line(cells: Iterable[str]) -> str:
        placed = (
            cell.rjust(width) if name.endswith(" ") else cell.ljust(width)
            for name, cell, width in zip(table.header, cells, widths, strict=True)
        )
        return "  " + "  ".join(placed).rstrip()

    return [*map(line, lines)]


def _stacked(table: TextTable, width: int) -> list[str]:
    """Return a line for each cell, the rows separated by a blank line."""
    names = [name.strip() for name in table.header]
    room = max(map(len, names))
    blocks = [
        "\n".join(
            wrapped(f"  {name.ljust(room)}  {cell}", width=width, indent=" " * (room + 4))
            for name, cell in zip(names, row, strict=True)
            if cell
        )
        for row in table.rows
    ]
    return ["\n\n".join(blocks)]
