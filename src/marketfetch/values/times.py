"""Reading moments that people write, always as UTC milliseconds."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, date, datetime

from marketfetch.errors import ConfigurationError
from marketfetch.values.spans import utc

__all__ = ["Clock", "Moment", "check_order", "moment", "steady_clock"]

Moment = datetime | date | str | int
"""An aware datetime, a date (midnight UTC), ISO text, `20d` before now, `now`, or UTC milliseconds."""

Clock = Callable[[], int]
"""A clock: UTC milliseconds, whenever it is called."""


def steady_clock() -> Clock:
    """Make a clock of UTC milliseconds that does not jump when the machine's time is set."""
    start = time.time_ns() - time.monotonic_ns()
    return lambda: (start + time.monotonic_ns()) // 1_000_000


_AGO = re.compile(r"(?P<count>\d+)\s*(?P<unit>[smhdw])")
_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_EARLIEST = 1_000_000_000_000
"""September 2001 in milliseconds: smaller numbers are seconds, those beyond the latest are microseconds."""
_LATEST = 10_000_000_000_000


def moment(argument: str, value: Moment, now: int) -> int:
    """Turn what a caller wrote into UTC milliseconds.

    `argument` is named in errors; `now` is UTC milliseconds. Raises ConfigurationError for text that is
    no time, for a time of day without a zone, and for numbers that are not milliseconds.

    >>> moment("start", "2026-06-01", now=0)
    1780272000000
    >>> moment("start", "2d", now=1_780_272_000_000)
    1780099200000
    """
    if isinstance(value, bool):
        raise ConfigurationError(f"{argument}: {value!r} is not a time; write a date such as 2026-06-01")
    if isinstance(value, int):
        return _milliseconds(argument, value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigurationError(
                f"{argument}: {value.isoformat()} has no time zone; give it one, such as tzinfo=datetime.UTC"
            )
        return round(value.timestamp() * 1000)
    if isinstance(value, date):
        return round(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp() * 1000)
    if not isinstance(value, str):
        raise ConfigurationError(f"{argument}: {value!r} is not a time; write a date such as 2026-06-01")
    return _text(argument, value.strip(), now)


def _milliseconds(argument: str, value: int) -> int:
    if value != 0 and not _EARLIEST <= value < _LATEST:
        raise ConfigurationError(
            f"{argument}: {value} is not a UTC time in milliseconds (13 digits); multiply seconds by 1000"
        )
    return value


def _text(argument: str, text: str, now: int) -> int:
    if text == "now":
        return now
    if ago := _AGO.fullmatch(text):
        then = now - int(ago["count"]) * _MS[ago["unit"]]
        if then < 0:
            raise ConfigurationError(
                f"{argument}: {text} ago is before 1970; write a date such as 2026-06-01"
            )
        return then
    if text.isdecimal() and len(text) > len("20260601"):
        return _milliseconds(argument, int(text))
    try:
        if "T" not in text and " " not in text:
            return moment(argument, date.fromisoformat(text), now)
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{argument}: {text!r} is not a time;"
            " write 2026-06-01, 2026-06-01T12:00:00Z, 20d (before now) or now"
        ) from None
    if parsed.tzinfo is None:
        raise ConfigurationError(f"{argument}: {text!r} has no time zone; write {text + 'Z'!r} for UTC")
    return moment(argument, parsed, now)


def check_order(start: int, end: int) -> None:
    """Refuse a start that is not before the end.

    >>> check_order(0, 0)
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: start: 1970-01-01T00:00:00Z is not before end 1970-01-01T00:00:00Z
    """
    if start >= end:
        raise ConfigurationError(f"start: {utc(start)} is not before end {utc(end)}")
