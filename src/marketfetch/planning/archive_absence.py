"""What the files of a delisted symbol prove: when its rows begin and end. Pure functions.

The API does not answer for a delisted symbol, so it cannot give the second answer that makes a moment empty.
Instead, the listings of the archive and its files have to agree about a moment before the first row or after
the last one:

| files in the listings of months and days | files whose period has the moment | verdict |
|---|---|---|
| none begins before the moment, or none ends after it | there is none | empty |
| none ends before it, and a later row was read | read to the end, without a row there | empty |
| none begins after it, and an earlier row was read | read to the end, without a row there | empty |
| one of the three cases above | one is unreadable, or has a row that cannot be stored | missing |
| some end before it, and some begin after it | any | missing |

No moment is empty before the listings of months and of days were read to their ends. An archive that has only
one of them, such as only months for candles of 1w, is listed twice, and both listings have to agree.

A moment after the last row is empty only if no file has followed for two weeks. Before that, the archive may
be late (it was late by up to eight days), or the exchange may have left the symbol out of its listing by
mistake.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from marketfetch.archives.periods import CalendarPeriod
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import DAY, MAX_TIMESTAMP, Span, SpanSet

__all__ = ["FilesRead"]

_MIN_WAIT_FOR_FILE = 14 * DAY
"""Milliseconds without another file after which none follows."""


@attrs.define(eq=False)
class FilesRead:
    """The files of a series that its archive lists, and what reading them has shown.

    Example: January 2024 is the only month with a file. It was read, and has rows from the 10th to the 20th:
    on 1 March, everything before and after them is empty.

    >>> january, hours = CalendarPeriod.parse("2024-01"), Interval.parse("1h")
    >>> files = FilesRead(hours, grains=1, listed={january})
    >>> files.listings = 2
    >>> files.record(january, Span(january.span.start + 9 * DAY, january.span.start + 20 * DAY))
    >>> wanted = SpanSet.of(Span(january.span.start - DAY, january.span.end + 29 * DAY))
    >>> print(*files.empty(wanted, january.span.end + 30 * DAY))
    [2023-12-31T00:00:00Z, 2024-01-10T00:00:00Z) [2024-01-21T00:00:00Z, 2024-03-01T00:00:00Z)
    """

    interval: Interval
    grains: int
    """How many grains of files the archive has: 2 with months and days, else 1."""
    listed: set[CalendarPeriod] = attrs.field(factory=set)
    listings: int = attrs.field(default=0, init=False)
    """How many listings were read to their ends: those of months and days, or two of the only grain."""
    _complete: set[CalendarPeriod] = attrs.field(factory=set, init=False)
    """The files that were read to the end, all rows of which could be stored."""
    _rows: Span | None = attrs.field(default=None, init=False)
    """The span from the start of the first row that was read to the end of the last one."""

    @property
    def listings_needed(self) -> int:
        """How many listings of each grain are read: two of the only one, since one may lack files."""
        return 2 if self.grains == 1 else 1

    @property
    def are_known(self) -> bool:
        """Whether every listing that is needed was read to its end."""
        return self.listings >= self.grains * self.listings_needed

    def list_from(self, needed: CalendarPeriod) -> CalendarPeriod:
        """Return the first period to list, if the files of a period are needed.

        The listing has to show that period, and also where the files of the series end. Example: months are
        listed from the first one on. If the last one is July, days are listed from 1 August on, and earlier
        if an earlier day is needed.
        """
        end = max((period.span.end for period in self.listed), default=0)
        return min(needed, CalendarPeriod.containing(end, needed.grain, utc_offset=needed.utc_offset))

    def record(self, period: CalendarPeriod, rows: Span | None, *, complete: bool = True) -> None:
        """Note that a file was read, and the span of its rows.

        `complete` is false for a file with rows that cannot be stored: such a file does not show which rows
        it lacks.
        """
        if complete:
            self._complete.add(period)
        if rows is not None:
            before = self._rows or rows
            self._rows = Span(min(before.start, rows.start), max(before.end, rows.end))

    def empty(self, missing: SpanSet, now: int) -> SpanSet:
        """Return the missing moments that are empty, by the table of this module."""
        if not self.are_known or not self.listed:
            return SpanSet()
        files = [self._candles(period) for period in self.listed]
        begin, end = min(file.start for file in files), self.end
        if self._rows is not None:  # the first file is known to the first row, or to its end
            begin = max(begin, min(self._rows.start, *(file.end for file in files)))
        around = [Span(0, begin)] if begin > 0 else []
        if self.is_over(now):
            around.append(Span(end, MAX_TIMESTAMP))
        return missing & SpanSet.of(*around) - self._unread()

    @property
    def end(self) -> int:
        """Where the rows end: behind the last one in the last file, or at the end of a file without any."""
        files = [self._candles(period) for period in self.listed]
        last, end = max(file.start for file in files), max(file.end for file in files)
        return end if self._rows is None else min(end, max(last, self._rows.end))

    def is_over(self, now: int) -> bool:
        """Whether no file has followed for so long that none will.

        The time counts from the last row, or from the end of a file that was not read completely.
        """
        unread = [self._candles(period).end for period in self.listed - self._complete]
        return max(self.end, *unread, 0) + _MIN_WAIT_FOR_FILE <= now

    def _unread(self) -> SpanSet:
        """Return the moments of files that were not read completely, without the days that were."""
        unread = self.listed - self._complete
        days = self._all_candles(period for period in self._complete if period.grain == "day")
        months = self._all_candles(period for period in unread if period.grain == "month")
        return months - days | self._all_candles(period for period in unread if period.grain == "day")

    def _all_candles(self, periods: Iterable[CalendarPeriod]) -> SpanSet:
        return SpanSet.of(*map(self._candles, periods))

    def _candles(self, period: CalendarPeriod) -> Span:
        """Return the span of the candles that open in a period."""
        return Span(self.interval.ceil(period.span.start), self.interval.ceil(period.span.end))
