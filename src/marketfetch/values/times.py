"""Reading moments that people write, always as UTC milliseconds."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime

import attrs

from marketfetch.errors import ConfigurationError
from marketfetch.values.spans import utc

__all__ = ["Clock", "Moment", "SteadyClock", "anchored", "check_order", "moment", "steady_clock"]

Moment = datetime | date | str | int
"""An aware datetime, a date (midnight UTC), ISO text, `20d` before now, `now`, or UTC milliseconds."""

Clock = Callable[[], int]
"""A clock: UTC milliseconds, whenever it is called."""


_COUNTS_SUSPEND = {"linux": "CLOCK_BOOTTIME", "darwin": "CLOCK_MONOTONIC"}
"""Which clock goes on while the machine is suspended, where `time.monotonic` stands still."""


def _uptime() -> int:
    """Return nanoseconds since the machine was started, those of its suspends included."""
    clock = _COUNTS_SUSPEND.get(sys.platform)
    return time.monotonic_ns() if clock is None else time.clock_gettime_ns(getattr(time, clock))


def _wall_minus_uptime() -> int:
    return time.time_ns() - _uptime()


@attrs.frozen
class SteadyClock:
    """A clock of UTC milliseconds that does not jump when the machine's time is set.

    It reads the wall clock once, when it is made, and from then on counts the time that passes, suspend
    included. All steady clocks are equal: each shows the time of the machine that it is on. A copy and a
    pickle are new clocks, which read the wall clock anew.

    >>> SteadyClock() == SteadyClock()
    True
    """

    _offset: int = attrs.field(factory=_wall_minus_uptime, init=False, eq=False, repr=False)

    def __call__(self) -> int:
        """Return the time in UTC milliseconds."""
        return (self._offset + _uptime()) // 1_000_000

    def __reduce__(self) -> tuple[type[SteadyClock], tuple[()]]:
        return type(self), ()


def steady_clock() -> Clock:
    """Make a clock of UTC milliseconds that does not jump when the machine's time is set."""
    return SteadyClock()


def anchored(clock: Clock) -> Clock:
    """Return a clock for one run: a steady clock made now, or the caller's own clock as it is.

    A steady clock that was made weeks ago shows the time that the wall clock would show had nobody set it
    since; what the wall clock shows now is nearer to the truth.
    """
    return type(clock)() if isinstance(clock, SteadyClock) else clock


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
