"""How far a run is, for those who watch: a live picture on a terminal, a line now and then elsewhere.

    with progress_to(sys.stderr) as progress:
        await Pipeline(..., listeners=[progress])

Whatever is slow about the stream holds up the showing, never the run.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from importlib.util import find_spec
from types import TracebackType
from typing import Protocol, Self, TextIO

from marketfetch.events import (
    ClockSkewDetected,
    Event,
    Heartbeat,
    RequestFailed,
    RoundStarted,
    SeriesRefused,
    SymbolUnknown,
    WaitingForStore,
)
from marketfetch.listeners.background import BackgroundQueue
from marketfetch.listeners.text import describe_event, format_counts

__all__ = ["PlainProgress", "Progress", "progress_to"]


class Progress(Protocol):
    """A listener that shows what it hears from entering to leaving it; no call waits for the terminal."""

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        ...

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cease to show; what was shown last stays or is wiped away, as suits the stream."""
        ...


class PlainProgress:
    """Progress for logs and pipes: a line for every heartbeat and every round.

    Failures are counted from heartbeat to heartbeat: a storm of them makes one line, not thousands.

    >>> import sys
    >>> with PlainProgress(sys.stdout) as progress:
    ...     progress(RoundStarted(round=1, series=2, rows=40_320))
    round 1: 40,320 rows of 2 series are missing
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._failures: Counter[str] = Counter()
        self._aside: BackgroundQueue[str] = BackgroundQueue(self._write)

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case RequestFailed():
                self._failures[event.cause] += 1
            case Heartbeat():
                failures, self._failures = self._failures, Counter()
                since = f"; failed: {format_counts(failures)}" if failures else ""
                self._aside.submit(describe_event(event) + since)
            case RoundStarted() | SymbolUnknown() | ClockSkewDetected() | WaitingForStore() | SeriesRefused():
                self._aside.submit(describe_event(event))
            case _:
                pass

    def _write(self, line: str) -> None:
        with suppress(OSError):  # whoever read the pipe has left; the run goes on
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def __enter__(self) -> Self:
        self._aside.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._aside.__exit__(kind, error, trace)


def progress_to(stream: TextIO) -> Progress:
    """Return the progress that suits a stream: a picture on a terminal (with rich), else lines."""
    if stream.isatty() and os.environ.get("TERM") != "dumb" and find_spec("rich"):
        from marketfetch.listeners.rich_progress import RichProgress

        return RichProgress(stream)
    return PlainProgress(stream)
