"""Drawing of a document with rich, which the extra `marketfetch[progress]` installs."""

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
    for table in page.tables:
        console.print(Padding(_drawn(table), (1, 0, 0, 0)))
    if page.notes:
        console.print()
    for note in page.notes:
        # The terminal wraps a long note: a command that is copied from it then has no line break.
        console.print(Text(f" {note}"), soft_wrap=True)


def _drawn(table: TextTable) -> Table:
    drawn = Table(
        title=table.title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False
    )
    drawn.header_style = "dim"
    for name in table.header:
        is_number = name.endswith(" ")
        drawn.add_column(
            name.strip(), justify="right" if is_number else "left", no_wrap=is_number, overflow="fold"
        )
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return drawn
