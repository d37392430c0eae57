"""Events as records of the logger `marketfetch`; logging never blocks the event loop.

    with LogListener() as log:
        await Pipeline(..., listeners=[log])

`log_to_console()` shows them on standard error.
"""

from __future__ import annotations

import logging
from typing import Self, TextIO

from marketfetch.events import (
    BatchWritten,
    ClockSkewDetected,
    Event,
    FileFetched,
    FileRejected,
    PageFetched,
    RequestAnswered,
    RequestFailed,
    SeriesRefused,
    SymbolUnknown,
    WaitingForStore,
)
from marketfetch.listeners.background import BackgroundQueue
from marketfetch.listeners.text import describe_event

__all__ = ["LogListener", "log_to_console"]


class LogListener:
    """A listener that logs: failures as WARNING, pages as DEBUG, heartbeats and all other events as INFO.

    The records are emitted on a background thread, because a handler may block, or need a lock that the
    caller holds. Leaving the context flushes the queue; a handler that does not return within two seconds is
    abandoned. Each record has the event as its attribute `event`, for handlers that write structured logs.
    """

    def __init__(self) -> None:
        self._queue = BackgroundQueue(self._log)
        self._logger = logging.getLogger("marketfetch")
        self._dropped_before = 0

    def __enter__(self) -> Self:
        self._queue.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._queue.__exit__(*error)

    def __call__(self, event: Event) -> None:
        """Queue an event; the background thread logs it."""
        # A batch holds rows, and with a slow handler the queue of batches would fill the memory. Heartbeats
        # have the number of rows.
        if not isinstance(event, BatchWritten):
            self._queue.submit(event)

    def _log(self, event: Event) -> None:
        level = _level(event)
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", describe_event(event), extra={"event": event})
        dropped, self._dropped_before = self._queue.dropped - self._dropped_before, self._queue.dropped
        if dropped:
            self._logger.warning("%d events are not logged here: the handlers are too slow", dropped)


def _level(event: Event) -> int:
    match event:
        case RequestFailed() | SymbolUnknown() | ClockSkewDetected() | WaitingForStore():
            return logging.WARNING
        case SeriesRefused() | FileRejected():
            return logging.WARNING
        case PageFetched() | RequestAnswered() | FileFetched() | BatchWritten():
            return logging.DEBUG
        case _:
            return logging.INFO


def log_to_console(level: int | str = logging.INFO) -> logging.Handler:
    """Show marketfetch's log on standard error from now on; returns the handler, which can be removed.

    Other handlers and the root logger are not changed. A second call only changes the level.

    >>> handler = log_to_console("WARNING")
    >>> log_to_console("DEBUG") is handler
    True
    >>> logging.getLogger("marketfetch").removeHandler(handler)
    """
    logger = logging.getLogger("marketfetch")
    logger.setLevel(level)
    known = next((handler for handler in logger.handlers if isinstance(handler, _Console)), None)
    handler = known or _Console()
    logger.addHandler(handler)
    return handler


class _Console(logging.StreamHandler[TextIO]):
    """The handler that log_to_console adds."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
