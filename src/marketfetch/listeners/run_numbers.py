"""Displays that are drawn again and again, and the numbers that they show, noted from events."""

from __future__ import annotations

from collections import Counter
from threading import Event as Flag
from threading import Thread
from time import monotonic
from typing import Self

from marketfetch.errors import RetryableError
from marketfetch.events import (
    BatchWritten,
    Event,
    FileFetched,
    Heartbeat,
    PageFetched,
    RequestAnswered,
    RequestFailed,
    RoundStarted,
    RunFinished,
    SeriesRefused,
    StoreRecovered,
    SymbolUnknown,
    WaitingForStore,
)
from marketfetch.listeners.text import clock_text, describe_event, format_duration, time_left
from marketfetch.redaction import printable
from marketfetch.reports import EgressReport

__all__ = ["LiveDisplay", "Outage", "RunNumbers"]

_MIN_ATTEMPTS_SHOWN = 4
"""A request that failed so often, after a few seconds, is shown; most failures end earlier."""
_LIMIT_CAUSES = ("RateLimitExceeded", "Banned")
"""Causes of failures that are shown as a wait for a limit or an egress, not as an outage."""


class Outage:
    """Whether requests fail again and again without an answer to any of them; `text` says what and how long.

    >>> from marketfetch.events import RequestFailed
    >>> outage = Outage()
    >>> failed = RequestFailed("TransportError", "no route", "Direct", 4, final=False, give_up_in=23.0)
    >>> outage.note(failed), outage.text
    (True, 'no answer: no route; attempt 4, given up in about 23.0 s')
    >>> outage.note(failed)
    False
    """

    def __init__(self) -> None:
        self.text = ""

    def note(self, event: Event) -> bool:
        """Note an event; return whether an outage begins with it."""
        match event:
            case RequestAnswered() | PageFetched() | FileFetched() | RunFinished():
                self.text = ""
            case RequestFailed(final=True) if not isinstance(event.error, RetryableError):
                self.text = ""  # the exchange has refused the request, so it answers
            case RequestFailed() if event.attempt >= _MIN_ATTEMPTS_SHOWN and event.cause not in _LIMIT_CAUSES:
                begins, left = not self.text, format_duration(event.give_up_in)
                end = "given up" if event.final else f"given up in about {left}"
                self.text = printable(f"no answer: {event.message}; attempt {event.attempt}, {end}")
                return begins
            case _:
                pass
        return False


class RunNumbers:
    """What a display shows of a run, or of several runs after another.

    Events are noted on the event loop, while a thread may be reading: containers are replaced, not changed.

    >>> numbers = RunNumbers()
    >>> numbers.note(RoundStarted(round=1, series=2, rows=40_320))
    >>> numbers.planned, numbers.written
    (40320, 0)
    """

    def __init__(self) -> None:
        self.planned = 0
        self.crossed = 0
        self.written = 0
        self.egresses: tuple[EgressReport, ...] = ()
        self.failures: Counter[str] = Counter()
        self.given_up: tuple[str, ...] = ()
        self.store_wait = ""
        self.request_wait = ""
        self.outage = Outage()
        self._planned_of_run = self._written_of_run = 0
        self._ends_at: float | None = None

    @property
    def done(self) -> int:
        """Rows written, at most those planned: the plan of events is an estimate."""
        return min(self.written, self.planned)

    def time_left(self, elapsed: float) -> str:
        """Write how long the rest takes: with the waits for limits, or else at the rate so far."""
        if self._ends_at is not None:
            return clock_text(max(0.0, self._ends_at - monotonic()))
        return time_left(self.done, self.planned, elapsed)

    def note(self, event: Event) -> None:
        """Note the numbers of an event."""
        self.outage.note(event)
        match event:
            case RoundStarted():
                self._plan(self._planned_of_run + event.rows)
            case BatchWritten():
                self._write(self._written_of_run + event.batch.rows)
            case WaitingForStore():
                self.store_wait = describe_event(event)
            case StoreRecovered():
                self.store_wait = ""
            case Heartbeat():
                self.egresses = tuple(event.egresses)
                self.request_wait = event.waiting
                self._ends_at = None if event.seconds_left is None else monotonic() + event.seconds_left
                self.crossed = event.rows_crossed
                self._plan(event.rows_planned)
                # The workers of a cluster send heartbeats alone.
                self._write(max(self._written_of_run, event.rows_written))
            case RunFinished():
                # Another run may follow, such as the next job of an update: it has its own waits.
                self._planned_of_run, self._written_of_run, self._ends_at = 0, 0, None
                self.store_wait = self.request_wait = ""
            case RequestFailed():
                self.failures = self.failures + Counter([event.cause])
            case SymbolUnknown() | SeriesRefused():
                if (text := describe_event(event)) not in self.given_up:
                    self.given_up = (*self.given_up, text)
            case _:
                pass

    def _plan(self, rows: int) -> None:
        """Note how many rows the present run has planned; it may be fewer than before."""
        self.planned += rows - self._planned_of_run
        self._planned_of_run = rows

    def _write(self, rows: int) -> None:
        """Note how many rows the present run has written."""
        self.written += rows - self._written_of_run
        self._written_of_run = rows


class LiveDisplay:
    """The base class of listeners that draw the numbers of a run again and again while they are entered.

    The event loop only notes numbers. A thread draws, so that a display that is slow or stopped (Ctrl-S)
    delays nothing else.
    """

    def __init__(self) -> None:
        self._numbers = RunNumbers()
        self._started = monotonic()
        self._stopped = Flag()
        self._thread: Thread | None = None

    def __call__(self, event: Event) -> None:
        """Note the numbers of an event."""
        self._numbers.note(event)

    @property
    def _elapsed(self) -> float:
        """The seconds since the display was entered."""
        return monotonic() - self._started

    def _refresh(self) -> None:
        """Draw until `_stopped` is set; on the thread."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._started = monotonic()
        self._stopped.clear()
        self._thread = Thread(target=self._refresh, name="marketfetch-progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(2.0)
