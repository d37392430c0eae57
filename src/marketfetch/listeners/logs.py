"""Events as log records of the logger `marketfetch`, in a way that can never block the event loop.

    with LogListener() as log:
        await Pipeline(..., listeners=[log])

`log_to_console()` shows them on standard error.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self, TextIO

from marketfetch.events import (
    BatchWritten,
    ClockSkewDetected,
    Event,
    PageFetched,
    RequestFailed,
    SeriesRefused,
    SymbolUnknown,
    WaitingForStore,
)
from marketfetch.listeners.background import BackgroundQueue
from marketfetch.listeners.text import describe_event

__all__ = ["LogListener", "log_to_console"]

# The host decides whether and where this is shown; without a handler Python would print warnings itself.
logging.getLogger("marketfetch").addHandler(logging.NullHandler())


class LogListener:
    """A listener that logs: failures as WARNING, pages as DEBUG, all else (heartbeats, rounds) as INFO.

    The records are emitted on a thread of its own, because a handler may block or take locks that the
    caller holds. Leaving the context flushes it; handlers that do not return within two seconds are left
    behind. Each record carries the event as its attribute `event`, for handlers that write structured logs.
    """

    def __init__(self) -> None:
        self._logger = logging.getLogger("marketfetch")
        self._aside: BackgroundQueue[Event] = BackgroundQueue(self._log)
        self._dropped = 0

    def __call__(self, event: Event) -> None:
        """Take note of an event; it is logged in a moment."""
        # Batches hold rows: waiting for a slow handler they would fill the memory. Heartbeats count them.
        if not isinstance(event, BatchWritten):
            self._aside.submit(event)

    def _log(self, event: Event) -> None:
        level = _level(event)
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", describe_event(event), extra={"event": event})
        dropped, self._dropped = self._aside.dropped - self._dropped, self._aside.dropped
        if dropped:
            self._logger.warning("%d events are not logged here: the handlers are too slow", dropped)

    def __enter__(self) -> Self:
        self._aside.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._aside.__exit__(kind, error, trace)


def _level(event: Event) -> int:
    match event:
        case RequestFailed() | SymbolUnknown() | ClockSkewDetected() | WaitingForStore() | SeriesRefused():
            return logging.WARNING
        case PageFetched() | BatchWritten():
            return logging.DEBUG
        case _:
            return logging.INFO


def log_to_console(level: int | str = logging.INFO) -> logging.Handler:
    """Show marketfetch's log on standard error from now on; returns the handler, to be removed at will.

    The host's own handlers and the root logger are left alone. Calling it again only changes the level.

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
