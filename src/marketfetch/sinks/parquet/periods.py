"""Which file of a series holds which moment: a day, a month or a year, named as in `2026-06.parquet`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs
import numpy as np

from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Columns
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Period", "periods_of", "split", "unit_of", "whole_periods"]


_SHORTEST = {"D": 86_400_000, "M": 28 * 86_400_000, "Y": 51 * 7 * 86_400_000}
"""No period stands for less, in milliseconds; a year of weeks may stand for 52 of them."""

_NAME = re.compile(r"-?\d{4,}(-\d\d){0,2}", re.ASCII)


@attrs.frozen(order=True)
class Period:
    """A calendar day, month or year of UTC; `number` counts them from 1970.

    >>> print(Period.of(1_780_272_000_000, "M"))
    2026-06
    """

    unit: str
    """In NumPy's letters: D, M or Y."""
    number: int

    @classmethod
    def of(cls, moment: int, unit: str) -> Period:
        """Return the period that a moment lies in."""
        return cls(unit, int(np.datetime64(moment, "ms").astype(f"datetime64[{unit}]").astype(np.int64)))

    @classmethod
    def parse(cls, name: str, unit: str) -> Period | None:
        """Return the period of a name; None where it is not written as `str` writes one."""
        if _NAME.fullmatch(name) is None:
            return None
        try:
            period = cls(unit, int(np.datetime64(name).astype(f"datetime64[{unit}]").astype(np.int64)))
        except ValueError:
            return None  # the 31st of a month of 30 days
        return period if str(period) == name else None

    @property
    def span(self) -> Span:
        """The moments of the period: the open times of all rows in its file."""
        return Span(_start(self.number, self.unit), _start(self.number + 1, self.unit))

    def covers(self, interval: Interval) -> Span:
        """Return the moments that its candles stand for: the week of a Monday in December ends in January.

        >>> print(Period.of(1_609_459_200_000, "Y").covers(Interval.parse("1w")))
        [2021-01-04T00:00:00Z, 2022-01-03T00:00:00Z)
        """
        span = self.span
        return span if interval.is_event else Span(interval.ceil(span.start), interval.ceil(span.end))

    def __str__(self) -> str:
        return str(_moment(self.number, self.unit))


def unit_of(interval: Interval) -> str:
    """Choose the period of a file: merging rewrites it, so it holds no million rows."""
    if interval.is_event or interval.typical >= 3_600_000:
        return "Y"
    return "M" if interval.typical >= 60_000 else "D"


def periods_of(spans: SpanSet, interval: Interval) -> Iterator[Period]:
    """Yield the periods whose candles stand for moments of the spans, in order of time, each once."""
    unit, last = unit_of(interval), None
    until = spans.spans[0].start if spans else 0
    for span in spans:
        if last is not None and span.end <= until:
            continue  # mostly: of thousands of spans in a month
        first = Period.of(interval.floor(max(span.start, until)), unit)
        last = Period.of(interval.floor(span.end - 1), unit)
        until = last.covers(interval).end
        yield from (Period(unit, number) for number in range(first.number, last.number + 1))


def whole_periods(spans: SpanSet, interval: Interval) -> Iterator[Span]:
    """Yield the parts of spans that consist of whole periods.

    >>> spans = SpanSet.of(Span(0, 80 * 86_400_000), Span(100 * 86_400_000, 110 * 86_400_000))
    >>> print(*whole_periods(spans, Interval.parse("1m")))
    [1970-01-01T00:00:00Z, 1970-03-01T00:00:00Z)
    """
    unit = unit_of(interval)
    for span in spans:
        if span.length < _SHORTEST[unit]:
            continue
        first, last = (Period.of(interval.floor(moment), unit) for moment in (span.start, span.end - 1))
        start, end = first.covers(interval), last.covers(interval)
        starts = start.start if start.start >= span.start else start.end
        ends = end.end if end.end <= span.end else end.start
        if starts < ends:
            yield Span(starts, ends)


def split(rows: Columns, unit: str) -> Iterator[tuple[Period, Columns]]:
    """Cut sorted rows into periods."""
    start = 0
    while start < len(rows):
        period = Period.of(int(rows.times[start]), unit)
        end = int(np.searchsorted(rows.times, period.span.end))
        yield period, rows.take(slice(start, end))
        start = end


def _start(number: int, unit: str) -> int:
    return int(_moment(number, unit).astype("datetime64[ms]").astype(np.int64))


def _moment(number: int, unit: str) -> np.datetime64:
    """Return the start of a period: never by adding to one, since a plain number has no unit of time."""
    moment: np.datetime64 = np.int64(number).astype(f"datetime64[{unit}]")
    return moment
