"""How far a follow is, in a line: lag, newest row, errors. FollowStatus writes it to a stream."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import msgspec

from marketfetch.events import (
    BatchWritten,
    ClockSkewDetected,
    Event,
    SeriesRefused,
    StoreRecovered,
    SymbolUnknown,
    WaitingForStore,
)
from marketfetch.listeners.background import StreamWriter
from marketfetch.listeners.text import describe_event, format_duration, join_limited, pluralize
from marketfetch.redaction import printable, redact
from marketfetch.reports import SeriesHealth
from marketfetch.values.spans import format_utc

__all__ = ["FollowStatus", "error_lines", "status_line"]


class FollowStatus(StreamWriter):
    """Writes the status of a follow: a line that is drawn again (`live`), lines, or JSON objects (`json`).

    As a listener it counts rows and writes warnings; `show` writes the status. A line that is drawn again is
    never wider than the terminal: on a narrow one it says less. No call waits for the stream.

    >>> import sys
    >>> from marketfetch.values.series import Series
    >>> bitcoin = SeriesHealth(Series.of("okx", "ohlcv", "BTC-USDT", "1m"), 1_780_272_000_000, 3.5)
    >>> with FollowStatus(sys.stdout) as status:
    ...     status.show([bitcoin])
    1 series, lag 3.5 s, final until 2026-06-01T00:00:00Z, 0 rows written
    """

    def __init__(self, stream: TextIO, *, live: bool = False, json: bool = False) -> None:
        super().__init__(stream)
        self.period = 1.0 if live else 10.0
        """Seconds from one status to the next: a terminal has one line, a log keeps each of them."""
        self._live = live
        self._json = json
        self._rows = 0
        self._shown_errors: set[str] = set()
        """The errors that have a line of their own above the status."""

    def __call__(self, event: Event) -> None:
        """Count the rows of a batch; write a warning or its end, unless JSON has it already."""
        match event:
            case BatchWritten():
                self._rows += event.batch.rows
            case (
                SymbolUnknown() | ClockSkewDetected() | WaitingForStore() | StoreRecovered() | SeriesRefused()
            ):
                if not self._json:
                    self.submit(f"{describe_event(event)}\n")
            case _:
                pass

    def show(self, health: Sequence[SeriesHealth]) -> None:
        """Write the status: of the series that lags most, and of the first error."""
        status = _summary(health, self._rows)
        if self._json:
            self.submit(f"{msgspec.json.encode({'event': 'follow_status', **status}).decode()}\n")
        elif not self._live:
            self.submit(f"{status['message']}\n")
        else:
            errors = error_lines(health)
            for error, text in errors.items():
                if error not in self._shown_errors:
                    self.submit(f"{text}\n")
            self._shown_errors = {*errors}
            self.submit(_fitting(status, shutil.get_terminal_size().columns - 1))

    def _write(self, text: str) -> None:
        super()._write(f"\r\x1b[2K{text}" if self._live else text)

    def __exit__(self, *error: object) -> None:
        if self._live:
            self.submit("")  # wipes the line
        super().__exit__(*error)


def error_lines(health: Sequence[SeriesHealth]) -> dict[str, str]:
    """Return a line for each error, with the series that have it: an outage is the error of all series."""
    names: dict[str, list[str]] = {}
    for line in health:
        if line.last_error:
            names.setdefault(line.last_error, []).append(str(line.series))
    return {error: printable(redact(f"{join_limited(found, 1)}: {error}")) for error, found in names.items()}


def status_line(health: Sequence[SeriesHealth], rows: int) -> str:
    """Return the status in one line, without the errors themselves.

    >>> status_line([], 0)
    'requesting clock and symbol list, 0 rows written'
    """
    return _fitting(_summary(health, rows), sys.maxsize)


def _fitting(status: Mapping[str, Any], columns: int) -> str:
    """Return the status in one line: with fewer words, and then fewer numbers, where it would be too wide.

    >>> status = {"series": 2, "lag_s": 4.7, "covered_until": "2026-11-29T04:51:00Z", "errors": 1}
    >>> for columns in (80, 45, 30):
    ...     _fitting({**status, "rows_written": 118}, columns)
    '2 series, 1 error, lag 4.7 s, final until 2026-11-29T04:51:00Z, 118 rows written'
    '2 series, 1 error, lag 4.7 s, 118 rows'
    '2 series, 1 error, lag 4.7 s'
    """
    lag, until, rows = status["lag_s"], status["covered_until"], pluralize(status["rows_written"], "row")
    first = [
        pluralize(status["series"], "series") if status["series"] else "requesting clock and symbol list"
    ]
    first += [pluralize(status["errors"], "error")] if status["errors"] else []
    first += [f"lag {format_duration(lag)}"] if lag is not None else []
    forms = [[*first, f"final until {until}", f"{rows} written"]] if until else []
    forms += [[*first, f"{rows} written"], [*first, rows], first]
    lines = [", ".join(form) for form in forms]
    return next((line for line in lines if len(line) <= columns), lines[-1][:columns])


def _summary(health: Sequence[SeriesHealth], rows: int) -> dict[str, Any]:
    """Return the status in plain types, with the `message` that has it in one line."""
    lags = [line.lag for line in health if line.lag is not None]
    ends = [line.covered_until for line in health if line.covered_until is not None]
    errors = [line for line in health if line.last_error]
    lag, end = max(lags, default=None), min(ends, default=None)
    parts = [
        pluralize(len(health), "series") if health else "requesting clock and symbol list",
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
