"""Document and TextTable, the output of a command before it is drawn, and the plain-text renderer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from marketfetch.redaction import printable

__all__ = ["MAX_ROWS", "Document", "TextTable", "to_text"]

MAX_ROWS = 20
"""Rows of a table that may be long; `--json` prints all rows."""


def _printable_rows(rows: Iterable[tuple[str, ...]]) -> Sequence[tuple[str, ...]]:
    return [tuple(map(printable, row)) for row in rows]


def _printable_notes(notes: Iterable[str]) -> Sequence[str]:
    return [printable(note) for note in notes]


@attrs.frozen
class TextTable:
    """A table of text; a column whose name ends in a space has numbers, aligned to the right.

    Control characters in cells, which a server may have sent, are written as escapes.
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]] = attrs.field(converter=_printable_rows)

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
    """A headline, tables, and notes below the tables; an empty headline or title is left out.

    Control characters are written as escapes.
    """

    headline: str = attrs.field(converter=printable)
    tables: Sequence[TextTable]
    notes: Sequence[str] = attrs.field(default=(), converter=_printable_notes)
    good: bool = True
    """Whether there is no problem; this decides the colour of the headline."""


def to_text(page: Document) -> str:
    """Return a page as plain text.

    >>> held = TextTable("Held", ("symbol", "rows "), [("BTC", "5"), ("ETH", "12")])
    >>> print(to_text(Document("Done.", [held])))
    Done.
    <BLANKLINE>
    Held
      symbol  rows
      BTC        5
      ETH       12
    <BLANKLINE>
    """
    tables = [f"{table.title}\n{_text(table)}".lstrip("\n") for table in page.tables]
    return "\n\n".join(filter(None, [page.headline, *tables, "\n".join(page.notes)])) + "\n"


def _text(table: TextTable) -> str:
    lines = [tuple(name.strip() for name in table.header), *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Iterable[str]) -> str:
        placed = (
            cell.rjust(width) if name.endswith(" ") else cell.ljust(width)
            for name, cell, width in zip(table.header, cells, widths, strict=True)
        )
        return "  " + "  ".join(placed).rstrip()

    return "\n".join(map(line, lines))
