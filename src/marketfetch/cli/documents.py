"""Document and TextTable, the output of a command before it is drawn, and the plain-text renderer."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest

import attrs

from marketfetch.redaction import printable

__all__ = ["MAX_ROWS", "Document", "TextTable", "to_text", "wrapped"]

MAX_ROWS = 20
"""Rows of a table that may be long; `--json` prints all rows."""
_SHORT = 14
"""Characters of a column that is not worth wrapping, such as `2,400 in 60 s`."""
_TIME = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:)")


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


def to_text(page: Document, width: int | None = None, bold: Callable[[str], str] = str) -> str:
    """Return a page as plain text.

    No word and no time is broken: in a table wider than `width` the widest columns are wrapped, and if that
    is not enough, each row becomes names and values, on as few lines as they take. Headline and titles are
    passed through `bold`. A command among the notes is never broken: it is copied.

    >>> held = TextTable("Held", ("symbol", "rows "), [("BTC", "5"), ("ETH", "12")])
    >>> print(to_text(Document("Done.", [held])))
    Done.
    <BLANKLINE>
    Held
      symbol  rows
      BTC        5
      ETH       12
    <BLANKLINE>
    >>> print(to_text(Document("", [TextTable("", ("symbol", "rows "), [("BTC", "5")])]), width=12))
      symbol BTC
        rows 5
    <BLANKLINE>
    """
    tables = [
        "\n".join(filter(None, [bold(table.title) if table.title else "", *_lines(table, width)]))
        for table in page.tables
    ]
    headline = page.headline if width is None else wrapped(page.headline, width=width)
    headline = bold(headline) if headline else ""
    return "\n\n".join(filter(None, [headline, *tables, "\n".join(page.notes)])) + "\n"


def wrapped(text: str, *, width: int | None = None, indent: str = "") -> str:
    r"""Break text at spaces, but not inside a time, further lines indented; None: width of the terminal.

    >>> wrapped("from 2026-06-01 12:30 to 2026-06-02", width=24, indent="  ")
    'from 2026-06-01 12:30 to\n  2026-06-02'
    """
    columns = width or shutil.get_terminal_size((100, 24)).columns
    lines = textwrap.fill(
        _TIME.sub("\\1\N{NO-BREAK SPACE}\\2", text),
        columns,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines.replace("\N{NO-BREAK SPACE}", " ")


def _lines(table: TextTable, width: int | None) -> list[str]:
    rows = [tuple(name.strip() for name in table.header), *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is not None and sum(widths) + 2 * len(widths) > width:
        least = [
            room if room <= _SHORT else max(map(_longest_word, column))
            for room, column in zip(widths, zip(*rows, strict=True), strict=True)
        ]
        if sum(least) + 2 * len(least) > width:
            return _packed(table, width)
        while sum(widths) + 2 * len(widths) > width:
            widest = max(range(len(widths)), key=lambda at: (widths[at] > least[at], widths[at]))
            widths[widest] -= 1
        rows = [tuple(map(_wrapped_cell, row, widths)) for row in rows]
        widths = [
            max(len(line) for cell in column for line in [*cell.splitlines(), ""])
            for column in zip(*rows, strict=True)
        ]

    def line(cells: Iterable[str]) -> str:
        placed = (
            cell.rjust(room) if name.endswith(" ") else cell.ljust(room)
            for name, cell, room in zip(table.header, cells, widths, strict=True)
        )
        return "  " + "  ".join(placed).rstrip()

    parts = (zip_longest(*(cell.splitlines() or [""] for cell in row), fillvalue="") for row in rows)
    return [line(cells) for row in parts for cells in row]


def _wrapped_cell(cell: str, width: int) -> str:
    return wrapped(cell, width=max(1, width))


def _longest_word(cell: str) -> int:
    return max(map(len, _wrapped_cell(cell, 1).splitlines()), default=0)


def _packed(table: TextTable, width: int) -> list[str]:
    """Return each row as names and values, one after the other, on as few lines as they take."""
    lines = []
    for row in table.rows:
        line = " "
        for name, cell in zip(table.header, row, strict=True):
            item = f"{name.strip()} {cell}" if cell else ""
            if item and line.strip() and len(line) + len(item) + 3 > width:
                lines += [line, f"    {item}"]
                line = lines.pop()
            elif item:
                line += f" · {item}" if line.strip() else f" {item}"
        lines.append(line)
    return [part for line in lines for part in wrapped(line, width=width, indent="      ").splitlines()]
