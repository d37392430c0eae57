"""Document and TextTable: what a command shows, before it is drawn; and the plain-text renderer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

__all__ = ["Document", "TextTable", "to_text"]


@attrs.frozen
class TextTable:
    """A table of text: columns whose name ends in a space are numbers, aligned to the right."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@attrs.frozen
class Document:
    """What is shown: a headline, grids, and notes below them; an empty headline or title is left out."""

    headline: str
    grids: Sequence[TextTable]
    notes: Sequence[str] = ()
    good: bool = True
    """Whether all is well, for the colour of the headline."""


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
    grids = [f"{grid.title}\n{_text(grid)}".lstrip("\n") for grid in page.grids]
    return "\n\n".join(filter(None, [page.headline, *grids, "\n".join(page.notes)])) + "\n"


def _text(grid: TextTable) -> str:
    lines = [tuple(name.strip() for name in grid.header), *grid.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Iterable[str]) -> str:
        placed = (
            cell.rjust(width) if name.endswith(" ") else cell.ljust(width)
            for name, cell, width in zip(grid.header, cells, widths, strict=True)
        )
        return "  " + "  ".join(placed).rstrip()

    return "\n".join(map(line, lines))
