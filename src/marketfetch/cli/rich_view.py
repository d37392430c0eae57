"""Drawing a page with rich, which the extra `marketfetch[progress]` brings."""

from __future__ import annotations

from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from marketfetch.cli.documents import Document, TextTable

__all__ = ["draw_document"]


def draw_document(page: Document, stream: TextIO) -> None:
    """Draw a page on a terminal."""
    console = Console(file=stream, highlight=False)
    if page.headline:
        console.print(Text(page.headline, style="bold green" if page.good else "bold yellow"))
    for grid in page.grids:
        console.print(Padding(_table(grid), (1, 0, 0, 0)))
    if page.notes:
        console.print()
    for note in page.notes:
        # The terminal wraps it: a command that is copied out of it has no line break inside.
        console.print(Text(f" {note}"), soft_wrap=True)


def _table(grid: TextTable) -> Table:
    table = Table(
        title=grid.title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False
    )
    table.header_style = "dim"
    for name in grid.header:
        numbers = name.endswith(" ")
        table.add_column(
            name.strip(), justify="right" if numbers else "left", no_wrap=numbers, overflow="fold"
        )
    for row in grid.rows:
        table.add_row(*map(Text, row))
    return table
