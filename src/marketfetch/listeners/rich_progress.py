"""The live display of a run on a terminal, drawn with rich (`marketfetch[progress]`)."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
)
from rich.table import Column, Table
from rich.text import Text

from marketfetch.listeners.run_numbers import LiveDisplay
from marketfetch.listeners.text import format_counts, format_crossed, format_rate
from marketfetch.reports import EgressReport

__all__ = ["RichProgress"]

_MAX_EGRESSES = 12
"""Egresses with a line of their own; more lines would push the bar off the screen."""
_NUMBERS = 78
"""Columns that the numbers beside the bar take, with millions of rows."""
_NARROW = 80
"""On a terminal with fewer columns only the most important numbers are shown."""


class RichProgress(LiveDisplay):
    """Progress for a terminal: a bar of rows written, a line for each egress, failures by cause.

    It is drawn ten times a second.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._console = Console(file=stream, highlight=False)

    def _refresh(self) -> None:
        bar = _bar(self._console)
        with Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # the standard streams belong to the program
            redirect_stderr=False,
        ) as live:
            while not self._stopped.wait(0.1):
                live.update(self._render(bar), refresh=True)

    def _render(self, bar: Progress) -> RenderableType:
        numbers = self._numbers
        total = numbers.planned or None
        description = "writing" if total else "requesting clock and symbol list"
        bar.update(
            bar.task_ids[0],
            completed=numbers.done,
            total=total,
            description=description,
            elapsed=self._elapsed,
            left=numbers.time_left(self._elapsed),
        )
        parts: list[RenderableType] = [bar]
        if numbers.outage.text:
            parts.append(Text(f"  {numbers.outage.text}", style="bold"))
        if numbers.request_wait:
            parts.append(Text(f"  {numbers.request_wait}", style="bold"))
        if numbers.crossed:
            parts.append(Text(f"  {format_crossed(numbers.crossed)}"))
        if numbers.egresses:
            parts.append(_egress_lines(numbers.egresses, brief=self._console.width < _NARROW))
        if numbers.failures:
            parts.append(Text(f"  failed: {format_counts(numbers.failures)}", style="bold"))
        if numbers.store_wait:
            parts.append(Text(f"  {numbers.store_wait}", style="bold"))
        parts += [Text(f"  {line}", style="bold") for line in numbers.given_up[:3]]
        if len(numbers.given_up) > 3:
            parts.append(Text(f"  and {len(numbers.given_up) - 3:,} more unknown symbols", style="bold"))
        return Group(*parts)


def _bar(console: Console) -> Progress:
    bar = Progress(
        # No colours: yellow, cyan and green cannot be read on a light background.
        SpinnerColumn(style=""),
        TextColumn("{task.description}"),
        BarColumn(max(8, console.width - _NUMBERS), complete_style="bold", finished_style="bold"),
        _Percent(),
        _Rows(brief=console.width < _NARROW),
        _TimeLeft(),
        console=console,
        auto_refresh=False,
    )
    bar.add_task("", total=None, elapsed=0.0, left="")
    return bar


class _Percent(ProgressColumn):
    """The column with the share of the rows that are written; empty before they are planned."""

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        return Text(f"{task.percentage:>3.0f} %" if task.total else "")


class _Rows(ProgressColumn):
    """The column "written / planned rows", with the rate unless the terminal is narrow."""

    def __init__(self, *, brief: bool) -> None:
        super().__init__(table_column=Column(no_wrap=True))  # the bar gives way
        self._brief = brief

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        if not task.total:
            return Text("")
        done, total = int(task.completed), int(task.total)
        if self._brief:
            return Text(f"{done:,} / {total:,} rows", no_wrap=True)
        return Text(f"{done:,} / {total:,} rows  {format_rate(done, task.fields['elapsed'])}", no_wrap=True)


class _TimeLeft(ProgressColumn):
    """The column with the time that the rest takes."""

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        if not task.total:
            return Text("")
        return Text(task.fields["left"], no_wrap=True)


def _egress_lines(egresses: tuple[EgressReport, ...], *, brief: bool) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=8)
    for _ in range(1 if brief else 3):
        table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for egress in egresses[:_MAX_EGRESSES]:
        numbers = [f"{egress.rows:,} rows", f"{egress.requests:,} requests", f"weight {egress.weight:,}"]
        state = Text(egress.state, style="" if egress.state == "ready" else "bold")
        table.add_row(f"  {egress.name}", *(numbers[:1] if brief else numbers), state)
    if len(egresses) > _MAX_EGRESSES:
        table.add_row(f"  and {len(egresses) - _MAX_EGRESSES:,} more")
    return table
