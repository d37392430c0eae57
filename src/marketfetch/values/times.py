"""Reading the times that people write, as UTC milliseconds; and clocks that do not jump."""

from __future__ import annotations

import re
import sys
import time
from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from math import isfinite

import attrs
import numpy as np

from marketfetch.errors import ConfigurationError
from marketfetch.redaction import redact
from marketfetch.values.spans import DAY, HOUR, MINUTE, SECOND, format_utc

__all__ = [
    "Clock",
    "SteadyClock",
    "TimeLike",
    "anchored",
    "check_order",
    "parse_time",
    "plain_time",
    "uptime",
]

TimeLike = datetime | date | timedelta | np.datetime64 | np.timedelta64 | str | int
"""An aware datetime, a date (midnight UTC), ISO text, `20d` or a timedelta before now, `now`, or UTC ms."""

Clock = Callable[[], int]
"""A function that returns the time in UTC milliseconds."""


_COUNTS_SUSPEND = {"linux": "CLOCK_BOOTTIME", "darwin": "CLOCK_MONOTONIC"}
"""By system, the clock that runs on while the machine is suspended; `time.monotonic` may stand still."""


_CLOCK: int | None = getattr(time, _COUNTS_SUSPEND.get(sys.platform, ""), None)

_LONGEST = 100
"""Characters of a time that a user writes; all forms have fewer."""


def uptime() -> int:
    """Return nanoseconds since the machine was started, including the time it was suspended."""
    return time.monotonic_ns() if _CLOCK is None else time.clock_gettime_ns(_CLOCK)


def _wall_minus_uptime() -> int:
    return time.time_ns() - uptime()


@attrs.frozen
class SteadyClock:
    """A clock of UTC milliseconds that does not jump when the machine's time is set.

    It reads the wall clock once, when it is made, and from then on adds the time that has passed, including
    suspends. All steady clocks are equal: each shows the time of its machine. A copy and a pickle are new
    clocks, which read the wall clock again.

    >>> SteadyClock() == SteadyClock()
    True
    """

    _offset: int = attrs.field(factory=_wall_minus_uptime, init=False, eq=False, repr=False)

    def __call__(self) -> int:
        """Return the time in UTC milliseconds."""
        return (self._offset + uptime()) // 1_000_000

    def __reduce__(self) -> tuple[type[SteadyClock], tuple[()]]:
        return type(self), ()


def anchored(clock: Clock) -> Clock:
    """Return the clock for one run: a new steady clock, or the caller's own clock as it is.

    A steady clock that was made weeks ago does not know that the wall clock has been corrected since.
    """
    return type(clock)() if isinstance(clock, SteadyClock) else clock


_AGO = re.compile(r"(?P<count>\d+)\s*(?P<unit>[a-zA-Z]+)(\s+ago)?(\s+utc)?", re.IGNORECASE)
_MONTH = re.compile(r"(?P<year>[12]\d{3})(?:-(?P<month>0[1-9]|1[0-2]))?")
_UNITS = {
    "s": "s sec secs second seconds",
    "m": "m min mins minute minutes",
    "h": "h hr hrs hour hours",
    "d": "d day days",
    "w": "w wk wks week weeks",
    "mo": "mo mos mon mth month months",
    "y": "y yr yrs year years",
}
"""By unit, its spellings, in any case; but for `M`, which is a month to some and a minute to others."""
_MS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_EARLIEST = 1_000_000_000_000
"""September 2001 in milliseconds: smaller numbers are seconds, and those above _LATEST are microseconds."""
_LATEST = 10_000_000_000_000
_FORMS = "write 2026-06-01, 2026-06-01T12:00:00Z, 20d, 3mo or 1y (before now) or now"


def plain_time(argument: str, value: object) -> TimeLike:
    """Return a time as a type of Python; numpy's times have no zone and are UTC, as numpy documents.

    Raises ConfigurationError, which names the `argument`, for a value of a type that cannot be a time.

    >>> plain_time("start", np.datetime64("2026-06-01"))
    1780272000000
    """
    if isinstance(value, np.datetime64 | np.timedelta64):
        return _of_numpy(argument, value)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and isfinite(value):
        if value.is_integer() and _EARLIEST <= value < _LATEST:
            return int(value)
        raise ConfigurationError(
            f"{argument}: {value!r} is not a UTC time in whole milliseconds; for seconds, such as "
            "time.time(), write round(1000 * seconds)"
        )
    # A datetime is a date, and so is the NaT of pandas, which does not equal itself.
    if not isinstance(value, date | timedelta | str) or value != value:  # noqa: PLR0124
        raise ConfigurationError(f"{argument}: {redact(repr(value))} is not a time; {_FORMS}")
    return value


def _of_numpy(argument: str, value: np.datetime64 | np.timedelta64) -> TimeLike:
    is_moment, unit = isinstance(value, np.datetime64), np.datetime_data(value.dtype)[0]
    # Months and years of a timedelta are of no certain length, and "generic" is no unit at all.
    if np.isnat(value) or unit == "generic" or (unit in {"M", "Y"} and not is_moment):
        raise ConfigurationError(f"{argument}: {redact(repr(value))} is not a time; {_FORMS}")
    number = int(value.astype(f"{'datetime64' if is_moment else 'timedelta64'}[ms]").astype(np.int64))
    return number if is_moment else timedelta(milliseconds=number)


def parse_time(argument: str, value: TimeLike, now: int) -> int:
    """Turn a time that a caller wrote into UTC milliseconds.

    Errors name the `argument`; `now` is UTC milliseconds. A datetime at midnight without a zone is read as a
    date, and dates are UTC. Raises ConfigurationError for text that is not a time, for any other time of day
    without a zone, and for numbers that are not milliseconds.

    >>> parse_time("start", "2026-06-01", now=0)
    1780272000000
    >>> parse_time("start", "2d", now=1_780_272_000_000)
    1780099200000
    """
    value = plain_time(argument, value)
    if isinstance(value, int):
        return _milliseconds(argument, value)
    if isinstance(value, timedelta):
        return _before(argument, f"{value}", now, value)
    if isinstance(value, datetime):
        if value.tzinfo is None and value.time() != time_of_day.min:
            raise ConfigurationError(
                f"{argument}: {value.isoformat()} has no time zone; give it one, such as tzinfo=datetime.UTC"
            )
        return round((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() * 1000)
    if isinstance(value, date):
        return round(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp() * 1000)
    return _text(argument, str(value).strip(), now)


def _milliseconds(argument: str, value: int) -> int:
    if value != 0 and not _EARLIEST <= value < _LATEST:
        raise ConfigurationError(
            f"{argument}: {value} is not a UTC time in milliseconds (13 digits); multiply seconds by 1000"
        )
    return value


def _before(argument: str, text: str, now: int, ago: timedelta) -> int:
    then = now - ago // timedelta(milliseconds=1)
    if then > now:
        raise ConfigurationError(
            f"{argument}: {text} counts back from now and ends in the future; drop the minus"
        )
    if then < 0:
        raise ConfigurationError(f"{argument}: {text} ago is before 1970; write a date such as 2026-06-01")
    return then


def _months_before(argument: str, text: str, now: int, months: int) -> int:
    """Return the same day and time, so many months before; the last day of a month that is shorter."""
    today = datetime.fromtimestamp(now // 1000, UTC)
    year, month = divmod(12 * today.year + today.month - 1 - months, 12)
    if year < 1970:
        raise ConfigurationError(f"{argument}: {text} ago is before 1970; write a date such as 2026-06-01")
    day = min(today.day, monthrange(year, month + 1)[1])
    return round(today.replace(year=year, month=month + 1, day=day).timestamp() * 1000) + now % 1000


def _unit(argument: str, text: str, spelling: str) -> str:
    """Return the unit of a spelling; ConfigurationError if there is none, or two."""
    if spelling == "M":
        count = text.partition("M")[0].strip()
        raise ConfigurationError(
            f"{argument}: {text!r} may be minutes or months; write '{count}min' or '{count}mo'"
        )
    for unit, spellings in _UNITS.items():
        if spelling.lower() in spellings.split():
            return unit
    raise ConfigurationError(
        f"{argument}: {redact(repr(text))} has no unit of time; write s, min, h, d, w, mo or y, as in 20d"
    )


def _text(argument: str, text: str, now: int) -> int:
    if len(text) > _LONGEST:  # `int` refuses a text of thousands of digits
        raise ConfigurationError(f"{argument}: {redact(repr(text))[:60]} … is not a time; {_FORMS}")
    if text.lower() == "now":
        return now
    if ago := _AGO.fullmatch(text):
        count, unit = int(ago["count"]), _unit(argument, text, ago["unit"])
        if unit in {"mo", "y"}:
            return _months_before(argument, text, now, count * (12 if unit == "y" else 1))
        return _before(argument, text, now, timedelta(milliseconds=min(count * _MS[unit], now + 1)))
    if text.isdecimal() and len(text) > len("20260601"):
        return _milliseconds(argument, int(text))
    if month := _MONTH.fullmatch(text):
        return _first_of(argument, int(month["year"]), month["month"])
    try:
        if "T" not in text and " " not in text:
            return parse_time(argument, date.fromisoformat(text), now)
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{argument}: {redact(repr(text))} is not a time; {_FORMS}") from None
    if parsed.tzinfo is None and parsed.time() != time_of_day.min:
        raise ConfigurationError(f"{argument}: {text!r} has no time zone; write {text + 'Z'!r} for UTC")
    return parse_time(argument, parsed, now)


def _first_of(argument: str, year: int, month: str | None) -> int:
    """Return the beginning of a month or a year; ConfigurationError if it is the end of a query.

    Example: the end 2026-10 would leave out all of October.
    """
    first = date(year, int(month or 1), 1)
    if argument == "end":
        after = date(year + 1, 1, 1) if month in {None, "12"} else first.replace(month=first.month + 1)
        kind, named = ("month", f"{year}-{month}") if month else ("year", f"{year}")
        raise ConfigurationError(
            f"end: {named!r} is a {kind}, and the end is exclusive; write {after} to include it, {first} to "
            "stop before it"
        )
    return parse_time(argument, first, 0)


def check_order(start: int, end: int) -> None:
    """Refuse a start that is not before the end.

    >>> check_order(0, 0)
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: start: 1970-01-01T00:00:00Z is not before end 1970-01-01T00:00:00Z
    """
    if start >= end:
        raise ConfigurationError(f"start: {format_utc(start)} is not before end {format_utc(end)}")
