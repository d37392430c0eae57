"""FollowStatus: a line that says how far a follow is: lag, newest row, errors."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, TextIO

import orjson

from marketfetch.events import (
    BatchWritten,
    ClockSkewDetected,
    Event,
    SeriesRefused,
    StoreRecovered,
    SymbolUnknown,
    WaitingForStore,
)
from marketfetch.listeners.background import BackgroundListener
from marketfetch.listeners.text import describe_event, format_duration, pluralize
from marketfetch.redaction import printable, redact
from marketfetch.reports import SeriesHealth
from marketfetch.values.spans import format_utc

__all__ = ["FollowStatus"]


class FollowStatus(BackgroundListener[str]):
    """Writes the status of a follow: a line that is drawn again (`live`), lines, or JSON objects (`json`).

    As a listener it counts rows and writes warnings; `show` writes the status. No call waits for the stream.

    >>> import sys
    >>> from marketfetch.values.series import Series
    >>> bitcoin = SeriesHealth(Series.of("okx", "ohlcv", "BTC-USDT", "1m"), 1_780_272_000_000, 3.5)
    >>> with FollowStatus(sys.stdout) as status:
    ...     status.show([bitcoin])
    1 series, lag 3.5 s, final until 2026-06-01T00:00:00Z, 0 rows written
    """

    def __init__(self, stream: TextIO, *, live: bool = False, json: bool = False) -> None:
        super().__init__(self._write)
        self._stream = stream
        self._live = live
        self._json = json
        self._rows = 0

    def __call__(self, event: Event) -> None:
        """Count the rows of a batch; write a warning or its end, unless JSON has it already."""
        match event:
            case BatchWritten():
                self._rows += event.batch.rows
            case (
                SymbolUnknown() | ClockSkewDetected() | WaitingForStore() | StoreRecovered() | SeriesRefused()
            ):
                if not self._json:
                    self._queue.submit(f"{describe_event(event)}\n")
            case _:
                pass

    def show(self, health: Sequence[SeriesHealth]) -> None:
        """Write the status: of the series that lags most, and of the first error."""
        status = _summary(health, self._rows)
        if self._json:
            self._queue.submit(f"{orjson.dumps({'event': 'follow_status', **status}).decode()}\n")
        else:
            self._queue.submit(str(status["message"]) + ("" if self._live else "\n"))

    def _write(self, text: str) -> None:
        if self._live:
            whole = text.endswith("\n")
            text = f"\r\x1b[2K{text if whole else text[: shutil.get_terminal_size().columns - 1]}"
        with suppress(OSError):  # the reader of the pipe has closed it; the follow goes on
            self._stream.write(text)
            self._stream.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._queue.submit("")  # wipes the line
        super().__exit__(kind, error, trace)


def _summary(health: Sequence[SeriesHealth], rows: int) -> dict[str, Any]:
    """Return the status in plain types, with the `message` that has it in one line."""
    lags = [line.lag for line in health if line.lag is not None]
    ends = [line.covered_until for line in health if line.covered_until is not None]
    errors = [line for line in health if line.last_error]
    lag, end = max(lags, default=None), min(ends, default=None)
    parts = [
        pluralize(len(health), "series") if health else "asking what there is",
        "" if lag is None else f"lag {format_duration(lag)}",
        "" if end is None else f"final until {format_utc(end)}",
        f"{pluralize(rows, 'row')} written",
        f"{pluralize(len(errors), 'error')}: {errors[0].series}: {errors[0].last_error}" if errors else "",
    ]
    return {
        "message": printable(redact(", ".join(filter(None, parts)))),
        "series": len(health),
        "lag_s": lag,
        "covered_until": None if end is None else format_utc(end),
        "rows_written": rows,
        "errors": len(errors),
    }
