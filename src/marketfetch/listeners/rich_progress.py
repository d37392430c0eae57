"""The live picture of a run on a terminal, drawn with rich (`marketfetch[progress]`)."""

from __future__ import annotations

from collections import Counter
from threading import Event as Flag
from threading import Thread
from time import monotonic
from types import TracebackType
from typing import Self, TextIO

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
from rich.table import Table
from rich.text import Text

from marketfetch.events import (
    BatchWritten,
    Event,
    Heartbeat,
    RequestFailed,
    RoundStarted,
    SeriesRefused,
    SymbolUnknown,
    WaitingForStore,
)
from marketfetch.listeners.text import describe_event, format_counts, format_rate, time_left
from marketfetch.reports import EgressReport

__all__ = ["RichProgress"]

_EGRESSES = 12
"""So many egresses are drawn; more would push the bar off the screen."""
_NARROW = 80
"""Below so many columns the less important numbers are left out: others would be cut off."""


class RichProgress:
    """Progress for a terminal: a bar of rows written, a line for each egress, failures by cause.

    The event loop only notes numbers. A thread of its own paints them ten times a second, so that a
    terminal that is slow or stopped (Ctrl-S) holds up nothing but the picture.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)
        self._planned = 0
        self._written = 0
        self._egresses: tuple[EgressReport, ...] = ()
        self._failures: Counter[str] = Counter()
        self._unknown: tuple[str, ...] = ()
        self._awaited = ""
        self._waiting = ""
        self._started = monotonic()
        self._over = Flag()
        self._painter: Thread | None = None

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case RoundStarted():
                self._planned += event.rows
                self._awaited = ""
            case BatchWritten():
                self._written += event.batch.rows
                self._awaited = ""
            case WaitingForStore():
                self._awaited = describe_event(event)
            case Heartbeat():
                self._egresses = tuple(event.egresses)
                self._waiting = event.waiting
            case RequestFailed():
                # A new object: the painter may be reading the old one.
                self._failures = self._failures + Counter([event.cause])
            case SymbolUnknown() | SeriesRefused():
                self._unknown = (*self._unknown, describe_event(event))
            case _:
                pass

    def __enter__(self) -> Self:
        self._started = monotonic()
        self._over.clear()
        self._painter = Thread(target=self._refresh, name="marketfetch-progress", daemon=True)
        self._painter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._painter is not None:
            self._painter.join(2.0)

    def _refresh(self) -> None:
        bar = _bar(self._console)
        # Left alone: a library does not take the host's standard streams.
        with Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as live:
            while not self._over.wait(0.1):
                live.update(self._render(bar), refresh=True)

    def _render(self, bar: Progress) -> RenderableType:
        total = self._planned or None
        said = "writing" if total else "asking what there is"
        # Composites are written beyond the plan, and the plan of event datasets is an estimate.
        done = min(self._written, self._planned)
        elapsed = monotonic() - self._started
        bar.update(bar.task_ids[0], completed=done, total=total, description=said, elapsed=elapsed)
        parts: list[RenderableType] = [bar]
        if self._waiting:
            parts.append(Text(f"  {self._waiting}", style="yellow"))
        if self._egresses:
            parts.append(_egress_lines(self._egresses, brief=self._console.width < _NARROW))
        if self._failures:
            parts.append(Text(f"  failed: {format_counts(self._failures)}", style="yellow"))
        if self._awaited:
            parts.append(Text(f"  {self._awaited}", style="yellow"))
        parts += [Text(f"  {line}", style="yellow") for line in self._unknown[:3]]
        if len(self._unknown) > 3:
            parts.append(Text(f"  and {len(self._unknown) - 3:,} more unknown symbols", style="yellow"))
        return Group(*parts)


def _bar(console: Console) -> Progress:
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=8 if console.width < _NARROW else None),
        TextColumn("{task.percentage:>3.0f} %"),
        _Rows(brief=console.width < _NARROW),
        _TimeLeft(),
        console=console,
        auto_refresh=False,
        expand=True,
    )
    bar.add_task("", total=None, elapsed=0.0)
    return bar


class _Rows(ProgressColumn):
    """Rows written of rows planned, and how fast they come; only the former where there is little room."""

    def __init__(self, *, brief: bool) -> None:
        super().__init__()
        self._brief = brief

    def render(self, task: Task) -> Text:
        """Write them for the bar."""
        if not task.total:
            return Text("")
        done, total = int(task.completed), int(task.total)
        if self._brief:
            return Text(f"{done:,} / {total:,} rows", style="cyan", no_wrap=True)
        return Text(f"{done:,} / {total:,} rows  {format_rate(done, task.fields['elapsed'])}", style="cyan")


class _TimeLeft(ProgressColumn):
    """How long the rest will take."""

    def render(self, task: Task) -> Text:
        """Write it for the bar."""
        if not task.total:
            return Text("")
        left = time_left(int(task.completed), int(task.total), task.fields["elapsed"])
        return Text(left, style="cyan", no_wrap=True)


def _egress_lines(egresses: tuple[EgressReport, ...], *, brief: bool) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=8)
    for _ in range(1 if brief else 3):
        table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for egress in egresses[:_EGRESSES]:
        numbers = [f"{egress.rows:,} rows", f"{egress.requests:,} requests", f"weight {egress.weight:,}"]
        state = Text(egress.state, style="green" if egress.state == "ready" else "yellow")
        table.add_row(f"  {egress.name}", *(numbers[:1] if brief else numbers), state)
    if len(egresses) > _EGRESSES:
        table.add_row(f"  and {len(egresses) - _EGRESSES:,} more")
    return table
