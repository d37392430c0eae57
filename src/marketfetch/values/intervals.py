"""Intervals: how long a candle is and where its grid is anchored."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from functools import cache

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import ConfigurationError, unknown
from marketfetch.redaction import redact
from marketfetch.values.spans import DAY, HOUR, MINUTE, SECOND, Span, SpanSet

__all__ = ["EVENT", "Interval"]

_FIRST_MONDAY = 4 * DAY
"""1970-01-05, the first Monday after the epoch: week candles open on Mondays."""

_WRITTEN = re.compile(r"(?P<count>[1-9]\d{0,5})(?P<unit>[smhdSHD])")
"""Without M: a capital M is a month, not a minute."""
_ZONED = re.compile(r"(?P<name>[^+-]+)(?P<sign>[+-])(?P<hours>0\d|1[0-4]):(?P<minutes>00|15|30|45)")
"""An interval whose candles open by the clock of another zone than UTC: 1d+08:00."""
_EASTERNMOST = 14 * HOUR + 45 * MINUTE
"""No zone is further ahead of UTC, and no name of an interval says so."""
_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes", "t"), "m"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours", "hourly"), "h"),
    **dict.fromkeys(("d", "day", "days", "daily", "dutc"), "d"),
    **dict.fromkeys(("w", "wk", "week", "weeks", "weekly", "wutc"), "w"),
    **dict.fromkeys(("mo", "mon", "month", "months", "monthly", "mutc", "ms", "me"), "M"),
}
"""Names of units in other libraries and APIs: pandas, Yahoo, OKX."""
_WORDY = re.compile(rf"(?P<count>\d{{0,3}})[\s_-]?(?P<unit>{'|'.join(_UNITS)})", re.IGNORECASE)


def _months(ms: int) -> int:
    return int(np.datetime64(ms, "ms").astype("datetime64[M]").astype(np.int64))


def _month_opens(months: NDArray[np.int64] | int) -> NDArray[np.int64]:
    return np.asarray(months).astype("datetime64[M]").astype("datetime64[ms]").astype(np.int64)


@attrs.frozen
class Interval:
    """The grid of open times on which the rows of a series lie.

    `length` is in milliseconds, None for the calendar month `1M`; `anchor` is one open time of the grid.
    A series of events (funding, trades) has the interval `event`, whose grid is every millisecond.

    >>> Interval.parse("1h").floor(5_400_000)
    3600000
    """

    name: str
    length: int | None = attrs.field(repr=False)
    anchor: int = attrs.field(default=0, repr=False)

    @classmethod
    def parse(cls, text: str | timedelta | Interval) -> Interval:
        """Return the interval with a name; case matters (`1m` minute, `1M` month).

        Every length of whole seconds that divides a day is an interval, such as `10m`: it opens at 00:00 UTC
        and then each 10 minutes. `1d+08:00` is a day that opens at midnight of the zone UTC+08:00; `1w` and
        intervals of hours may have such an offset, too. Other spellings with one certain meaning are
        accepted: `60m` for `1h`, `1D` for `1d`, a timedelta of that length, also one of NumPy. Raises
        ConfigurationError, with near matches, for anything else.

        >>> Interval.parse("60m"), Interval.parse("1D"), Interval.parse("10m"), Interval.parse("1d+08:00")
        (Interval(name='1h'), Interval(name='1d'), Interval(name='10m'), Interval(name='1d+08:00'))
        >>> Interval.parse("1d+08:00").floor(0) / 3_600_000
        -8.0
        """
        if isinstance(text, Interval):
            return text
        found = _intervals().get(text) if isinstance(text, str) else None
        found = found or _of_length(_length(text)) or _zoned(text)
        if found is None:
            raise _no_interval(text)
        return found

    @property
    def is_event(self) -> bool:
        """Whether rows come when something happens, not on a grid: any millisecond may have one."""
        return self.length == 1

    @property
    def typical(self) -> int:
        """The length of one step in milliseconds; 30 days for the calendar month."""
        return 30 * DAY if self.length is None else self.length

    def floor(self, ms: int) -> int:
        """Return the open time at or before a moment."""
        if self.length is None:
            return int(_month_opens(_months(ms)))
        return ms - (ms - self.anchor) % self.length

    def floors(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the open time at or before each moment.

        >>> Interval.parse("1m").floors(np.array([61_000, 5_000]))
        array([60000,     0])
        """
        if self.length is None:
            return _month_opens(times.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64))
        return times - (times - self.anchor) % self.length

    def ceil(self, ms: int) -> int:
        """Return the open time at or after a moment."""
        floor = self.floor(ms)
        return floor if floor == ms else self.shift(floor, 1)

    def shift(self, open_time: int, steps: int) -> int:
        """Return the open time that lies a number of steps after another one."""
        if self.length is None:
            return int(_month_opens(_months(open_time) + steps))
        return open_time + steps * self.length

    def count(self, span: Span) -> int:
        """Count the open times inside a span."""
        if self.length is None:
            return _months(self.ceil(span.end)) - _months(self.ceil(span.start))
        return (self.ceil(span.end) - self.ceil(span.start)) // self.length

    def count_rows(self, spans: Iterable[Span]) -> int:
        """Count the rows that spans stand for: their open times. Of events nobody knows the number: 0.

        >>> Interval.parse("1m").count_rows([Span(0, 120_000), Span(300_000, 360_000)])
        3
        """
        return 0 if self.is_event else sum(map(self.count, spans))

    def grid(self, span: Span) -> NDArray[np.int64]:
        """Return all open times inside a span, shape (n,), UTC milliseconds."""
        first, last = self.ceil(span.start), self.ceil(span.end)
        if self.length is None:
            return _month_opens(np.arange(_months(first), _months(last)))
        return np.arange(first, last, self.length, dtype=np.int64)

    def aligned(self, times: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell for each time whether it is an open time of this grid."""
        if self.length is None:
            months = times.astype("datetime64[ms]").astype("datetime64[M]")
            return np.equal(_month_opens(months.astype(np.int64)), times)
        # Not by the remainder: NumPy divides many numbers by one at twice the speed.
        since = times - self.anchor
        return np.equal(since // self.length * self.length, since)

    def cells(self, times: NDArray[np.int64]) -> SpanSet:
        """Return the grid steps in which moments lie; the moments may be unsorted and off the grid.

        >>> Interval.parse("1m").cells(np.array([61_000, 5_000])).spans
        (Span(start=0, end=120000),)
        """
        return self.cover(np.unique(self.floors(times)))

    def cover(self, times: NDArray[np.int64]) -> SpanSet:
        """Return the spans of the rows that open at these times, which are sorted and on the grid.

        >>> Interval.parse("1m").cover(np.array([0, 60_000, 180_000])).spans
        (Span(start=0, end=120000), Span(start=180000, end=240000))
        """
        if not len(times):
            return SpanSet()
        if self.length is None:
            ends = _month_opens(times.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64) + 1)
        else:
            ends = times + self.length
        breaks = np.flatnonzero(ends[:-1] != times[1:])
        if not len(breaks):
            return SpanSet((Span(int(times[0]), int(ends[-1])),))
        starts = np.concatenate((times[:1], times[breaks + 1]))
        stops = np.concatenate((ends[breaks], ends[-1:]))
        return SpanSet(tuple(map(Span, starts.tolist(), stops.tolist())))

    def __str__(self) -> str:
        return self.name


@cache
def _intervals() -> dict[str, Interval]:
    fixed = {
        "1s": SECOND,
        **{f"{n}m": n * MINUTE for n in (1, 3, 5, 15, 30)},
        **{f"{n}h": n * HOUR for n in (1, 2, 4, 6, 8, 12)},
        **{f"{n}d": n * DAY for n in (1, 2, 3)},
    }
    return {
        **{name: Interval(name, length) for name, length in fixed.items()},
        "1w": Interval("1w", 7 * DAY, _FIRST_MONDAY),
        "1M": Interval("1M", None),
        "event": EVENT,
    }


def _length(text: object) -> int | None:
    """Return the length of a timedelta or of text such as 60m (ms); None for text of another form.

    None also for months and weeks, and for a timedelta that is not a whole number of milliseconds.
    """
    if isinstance(text, np.timedelta64) and np.datetime_data(text.dtype)[0] not in {"M", "Y", "generic"}:
        whole = text.astype("timedelta64[ms]")
        text = whole.item() if whole == text else None
    if isinstance(text, timedelta):
        length, rest = divmod(text, timedelta(milliseconds=1))
        return None if rest else length
    written = _WRITTEN.fullmatch(text.strip()) if isinstance(text, str) else None
    if written is None:
        return None
    return int(written["count"]) * {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}[written["unit"].lower()]


def _of_length(length: float | None) -> Interval | None:
    """Return the interval of a length, which opens at 00:00 UTC; None for one that does not.

    Seven days may be counted from any weekday, and candles of 7m would open at other times on each day.
    """
    if length is None:
        return None
    for each in _intervals().values():
        if each.length == length and not (each.is_event or each.anchor):
            return each
    if length < SECOND or length % SECOND or DAY % length:
        return None
    unit, ms = next((unit, ms) for unit, ms in (("h", HOUR), ("m", MINUTE), ("s", SECOND)) if not length % ms)
    return Interval(f"{int(length // ms)}{unit}", int(length))


def _zoned(text: object) -> Interval | None:
    """Return the interval of text such as 1d+08:00; None for text of another form, and for months."""
    found = _ZONED.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        return None
    base = _intervals().get(found["name"]) or _of_length(_length(found["name"]))
    if base is None or base.length is None or base.is_event:
        return None
    offset = int(found["hours"]) * HOUR + int(found["minutes"]) * MINUTE
    # Each grid has one name: that of 1h+05:30 and 1h-00:30 is 1h+00:30.
    offset = (-offset if found["sign"] == "-" else offset) % base.length
    if offset > _EASTERNMOST:
        offset -= base.length
    if not offset:
        return base
    hours, minutes = divmod(abs(offset) // MINUTE, 60)
    name = f"{base.name}{'-' if offset < 0 else '+'}{hours:02}:{minutes:02}"
    return Interval(name, base.length, base.anchor - offset)


def _no_interval(text: object) -> ConfigurationError:
    """Make the error for a value that is not an interval; names of units of other libraries get a hint."""
    names = [name for name in _intervals() if name != "event"]
    if isinstance(text, int | float) and not isinstance(text, bool):
        meant = ((unit, _of_length(text * ms)) for unit, ms in (("seconds", SECOND), ("minutes", MINUTE)))
        near = [f"{each.name!r} for {text} {unit}" for unit, each in meant if each]
        return ConfigurationError(
            f"interval: {text!r} has no unit; write {' or '.join(near) or 'text like 1h'}"
        )
    shown = redact(repr(text))
    if isinstance(text, list | tuple | set):
        return ConfigurationError(f"interval: {shown} is several; a run has one: make one for each")
    words = _WORDY.fullmatch(text.strip()) if isinstance(text, str) else None
    if words is not None:
        name = f"{words['count'] or 1}{_UNITS[words['unit'].lower()]}"
        meaning = _intervals().get(name) or _of_length(_length(name))
        if meaning:
            return ConfigurationError(f"interval: {shown} is unknown; did you mean {meaning.name!r}?")
    if isinstance(text, str) and re.fullmatch(r"\s*\w+[+-]\d.*", text):
        return ConfigurationError(f"interval: {shown} is unknown; days of another zone are written 1d+08:00")
    length = _length(text)
    if isinstance(text, timedelta | np.timedelta64) or (length or 0) > DAY:
        return ConfigurationError(f"interval: {shown} is none of {', '.join(names)}; write one of these")
    if length:
        near = sorted(names[:-2], key=lambda name: abs((_length(name) or 0) - length))[:2]
        return ConfigurationError(
            f"interval: {shown} does not divide a day; did you mean {' or '.join(map(repr, near))}?"
        )
    return unknown("interval", text, names)


EVENT = Interval("event", 1)
"""The interval of event series, such as funding: their rows lie on no grid."""
