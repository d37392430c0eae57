"""Progress of a run: a live display on a terminal, lines in a log or pipe.

    with progress_to(sys.stderr) as progress:
        await Pipeline(..., listeners=[progress])

A slow stream delays the display, never the run.
"""

from __future__ import annotations

import sys
from collections import Counter
from importlib.util import find_spec
from typing import Literal, Protocol, Self, TextIO

from marketfetch.errors import ConfigurationError, unknown
from marketfetch.events import (
    ClockSkewDetected,
    Event,
    Heartbeat,
    RequestFailed,
    RoundStarted,
    SeriesRefused,
    StoreRecovered,
    SymbolUnknown,
    WaitingForStore,
)
from marketfetch.listeners.background import StreamWriter
from marketfetch.listeners.follow_status import FollowStatus
from marketfetch.listeners.notebook import NotebookFollow, NotebookProgress, in_notebook
from marketfetch.listeners.run_numbers import Outage
from marketfetch.listeners.terminals import can_be_redrawn, takes_escapes
from marketfetch.listeners.text import describe_event, format_counts
from marketfetch.redaction import redact

__all__ = ["PlainProgress", "Progress", "follow_status_here", "progress_here", "progress_to"]

_KINDS = ("auto", "bar", "log", "json")


class Progress(Protocol):
    """A listener that shows events while it is entered; no call waits for the terminal."""

    def __call__(self, event: Event) -> None:
        """Note an event for the display."""
        ...

    def __enter__(self) -> Self:
        """Start the display."""
        ...

    def __exit__(self, *_: object) -> None:
        """End the display: lines stay, the display of a terminal is wiped."""
        ...


class PlainProgress(StreamWriter):
    """Progress for logs and pipes: a line for every heartbeat and every round.

    Failures are counted from heartbeat to heartbeat: a thousand failures make one line. A request that fails
    four times in a row makes a line at once, which says how long it goes on.

    >>> import sys
    >>> with PlainProgress(sys.stdout) as progress:
    ...     progress(RoundStarted(round=1, series=2, rows=40_320))
    round 1: 40,320 rows of 2 series are missing
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._failures: Counter[str] = Counter()
        self._outage = Outage()

    def __call__(self, event: Event) -> None:
        """Queue the line of an event, if it has one."""
        if self._outage.note(event):
            self.submit(f"{self._outage.text}\n")
        match event:
            case RequestFailed():
                self._failures[event.cause] += 1
            case Heartbeat():
                failures, self._failures = self._failures, Counter()
                since = f"; failed: {format_counts(failures)}" if failures else ""
                self.submit(f"{describe_event(event)}{since}\n")
            case RoundStarted() | SymbolUnknown() | ClockSkewDetected() | SeriesRefused():
                self.submit(f"{describe_event(event)}\n")
            case WaitingForStore() | StoreRecovered():
                self.submit(f"{describe_event(event)}\n")
            case _:
                pass


def progress_to(stream: TextIO, kind: Literal["auto", "bar", "log", "json"] = "auto") -> Progress:
    """Return the progress for a stream: a live display (`bar`), lines (`log`) or JSON objects (`json`).

    `auto` is a bar on a terminal (with rich), else lines. Raises ConfigurationError, with near matches, for
    another kind, and for a bar where rich is not installed or the stream is no terminal.

    >>> import io
    >>> type(progress_to(io.StringIO())).__name__, type(progress_to(io.StringIO(), "json")).__name__
    ('PlainProgress', 'JsonProgress')
    """
    if kind not in _KINDS:
        raise unknown("progress", kind, _KINDS)
    if kind == "json":
        from marketfetch.listeners.json_progress import JsonProgress

        return JsonProgress(stream)
    can_draw = can_be_redrawn(stream)
    if kind == "bar" and not (can_draw and find_spec("rich")):
        reason = "rich; pip install 'marketfetch[progress]'" if can_draw else "a terminal; write log"
        raise ConfigurationError(f"progress: a bar needs {reason}")
    if kind != "log" and can_draw and find_spec("rich"):
        from marketfetch.listeners.rich_progress import RichProgress

        return RichProgress(stream)
    return PlainProgress(stream)


def progress_here(wanted: bool | None) -> Progress | None:  # noqa: FBT001  # the argument of `fetch`
    """Return the progress for the place where the code runs; None for no progress.

    In a notebook it is a display of HTML, on a terminal a bar. Elsewhere, and on a terminal without rich,
    it is lines on stderr if `wanted` is True, and nothing if it is None. Raises ConfigurationError for
    anything but True, False and None.

    >>> progress_here(False) is None
    True
    """
    if _silent(wanted):
        return None
    if in_notebook():
        return NotebookProgress()
    if wanted or (can_be_redrawn(sys.stderr) and find_spec("rich")):
        return progress_to(sys.stderr)
    return None


def follow_status_here(wanted: bool | None) -> FollowStatus | NotebookFollow | None:  # noqa: FBT001  # as above
    """Return the status of a follow for the place where the code runs; None for no status.

    In a notebook it is a display of HTML, on a terminal a line that is drawn again. Elsewhere it is lines on
    stderr if `wanted` is True, and nothing if it is None. Raises ConfigurationError for anything but True,
    False and None.

    >>> follow_status_here(False) is None
    True
    """
    if _silent(wanted):
        return None
    if in_notebook():
        return NotebookFollow()
    live = takes_escapes(sys.stderr)
    return FollowStatus(sys.stderr, live=live) if wanted or live else None


def _silent(wanted: bool | None) -> bool:  # noqa: FBT001  # the argument of `fetch`
    if wanted is not None and not isinstance(wanted, bool):
        raise ConfigurationError(f"progress: {redact(repr(wanted))} is neither True, False nor None")
    return wanted is False
