"""The period of a file of a series: a day, a month or a year, which names the file `2026-06.parquet`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs
import numpy as np

from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Columns
from marketfetch.values.spans import DAY, HOUR, MINUTE, Span, SpanSet

__all__ = ["Period", "periods_of", "split", "unit_of", "whole_periods"]


_SHORTEST = {"D": DAY, "M": 28 * DAY, "Y": 51 * 7 * DAY}
"""The shortest length that a period covers, in milliseconds; a year of weekly candles may cover 52 weeks."""

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
        """Return the period of a moment."""
        return cls(unit, int(np.datetime64(moment, "ms").astype(f"datetime64[{unit}]").astype(np.int64)))

    @classmethod
    def parse(cls, name: str, unit: str) -> Period | None:
        """Return the period of a name; None for a text that `str` of a period does not write."""
        if _NAME.fullmatch(name) is None:
            return None
        try:
            period = cls(unit, int(np.datetime64(name).astype(f"datetime64[{unit}]").astype(np.int64)))
        except ValueError:
            return None  # such as 31 June
        return period if str(period) == name else None

    @property
    def span(self) -> Span:
        """The span of the period: all rows of its file have their open times in it."""
        return Span(_start(self.number, self.unit), _start(self.number + 1, self.unit))

    def covers(self, interval: Interval) -> Span:
        """Return the span that the candles of the file cover: a week that opens in December ends in January.

        >>> print(Period.of(1_609_459_200_000, "Y").covers(Interval.parse("1w")))
        [2021-01-04T00:00:00Z, 2022-01-03T00:00:00Z)
        """
        span = self.span
        return span if interval.is_event else Span(interval.ceil(span.start), interval.ceil(span.end))

    def __str__(self) -> str:
        return str(_moment(self.number, self.unit))


def unit_of(interval: Interval) -> str:
    """Choose the period of a file; a merge rewrites the file, so it has far less than a million rows."""
    if interval.is_event or interval.typical >= HOUR:
        return "Y"
    return "M" if interval.typical >= MINUTE else "D"


def periods_of(spans: SpanSet, interval: Interval) -> Iterator[Period]:
    """Yield the periods whose candles cover moments of the spans, in order of time, each once."""
    unit, last = unit_of(interval), None
    until = spans.spans[0].start if spans else 0
    for span in spans:
        if last is not None and span.end <= until:
            continue  # the usual case: a month has thousands of spans
        first = Period.of(interval.floor(max(span.start, until)), unit)
        last = Period.of(interval.floor(span.end - 1), unit)
        until = last.covers(interval).end
        yield from (Period(unit, number) for number in range(first.number, last.number + 1))


def whole_periods(spans: SpanSet, interval: Interval) -> Iterator[Span]:
    """Yield the parts of spans that consist of whole periods.

    >>> spans = SpanSet.of(Span(0, 80 * DAY), Span(100 * DAY, 110 * DAY))
    >>> print(*whole_periods(spans, Interval.parse("1m")))
    [1970-01-01T00:00:00Z, 1970-03-01T00:00:00Z)
    """
    unit = unit_of(interval)
    shortest = _SHORTEST[unit]
    for span in [span for span in spans if span.end - span.start >= shortest]:  # few of thousands
        first, last = (Period.of(interval.floor(moment), unit) for moment in (span.start, span.end - 1))
        head, tail = first.covers(interval), last.covers(interval)
        start = head.start if head.start >= span.start else head.end
        end = tail.end if tail.end <= span.end else tail.start
        if start < end:
            yield Span(start, end)


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
    """Return the start of a period; a NumPy integer has no unit of time, so it is cast and not added."""
    moment: np.datetime64 = np.int64(number).astype(f"datetime64[{unit}]")
    return moment
