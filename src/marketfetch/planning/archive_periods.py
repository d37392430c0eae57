"""Planning of files: the calendar periods of an archive of which enough is missing. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from marketfetch.archives.periods import CalendarPeriod, Grain, periods
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import SpanSet

__all__ = ["NeededPeriod", "needed_periods"]


@attrs.frozen
class NeededPeriod:
    """A calendar period, the moments of it that are missing, and how many rows they are."""

    period: CalendarPeriod
    missing: SpanSet
    rows: int


def needed_periods(
    missing: SpanSet, interval: Interval, grain: Grain, *, utc_offset: int = 0
) -> Iterator[NeededPeriod]:
    """Yield the periods in which something is missing, in order.

    A candle belongs to the period in which it opens. Example: 10 January to 5 February is missing in candles
    of 1d: 22 rows of January and 4 of February.

    >>> from marketfetch.values.spans import DAY, Span
    >>> january = 1_704_067_200_000
    >>> wanted = SpanSet.of(Span(january + 9 * DAY, january + 35 * DAY))
    >>> [(str(need.period), need.rows) for need in needed_periods(wanted, Interval.parse("1d"), "month")]
    [('2024-01', 22), ('2024-02', 4)]
    """
    after = None
    for span in missing:
        for period in periods(span, grain, utc_offset=utc_offset):
            if after is not None and period <= after:
                continue  # an earlier span began in it
            after = period
            inside = missing & SpanSet.of(period.span)
            rows = interval.count_rows(inside)
            if rows:
                yield NeededPeriod(period, inside, rows)
