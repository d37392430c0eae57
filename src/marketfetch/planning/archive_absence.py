"""What the files of a delisted symbol prove: when its rows begin and end. Pure functions.

The exchange no longer answers for a delisted symbol, so that no API can be the second answer. A moment before
the first row or after the last one is empty if two parts of the archive agree:

| the listings of months and of days | the files that cover the moment | verdict |
|---|---|---|
| no file begins before it, or none ends after it | there are none | empty |
| no file ends before it, and a row came later | read to the end, and lack it | empty |
| no file begins after it, and a row came before | read to the end, and lack it | empty |
| one of the above | one could not be read, or has a row that cannot be stored | missing |
| files before and after it | whatever they are | missing |

Nothing is empty before every part of the archive, months and days, has been listed to its end. Where there is
one part alone, such as months of candles of 1w, two listings of it have to agree.

The end needs one more fact: the files have been silent for two weeks. A younger end may be an archive that
stands still, as it has for up to eight days, or a listing of the exchange that lacks a symbol by mistake.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from marketfetch.archives.periods import CalendarPeriod
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import DAY, MAX_TIMESTAMP, Span, SpanSet

__all__ = ["FilesRead"]

_SILENCE = 14 * DAY


@attrs.define(eq=False)
class FilesRead:
    """The files of a series that its archive lists, and what reading them has shown.

    Example: January 2024 is the only month with a file. It was read, and has rows from the 10th to the 20th:
    on 1 March, everything before and after them is empty.

    >>> january, hours = CalendarPeriod.parse("2024-01"), Interval.parse("1h")
    >>> files = FilesRead(hours, parts=1, listed={january})
    >>> files.listings = 2
    >>> files.record(january, Span(january.span.start + 9 * DAY, january.span.start + 20 * DAY))
    >>> wanted = SpanSet.of(Span(january.span.start - DAY, january.span.end + 29 * DAY))
    >>> print(*files.empty(wanted, january.span.end + 30 * DAY))
    [2023-12-31T00:00:00Z, 2024-01-10T00:00:00Z) [2024-01-21T00:00:00Z, 2024-03-01T00:00:00Z)
    """

    interval: Interval
    parts: int
    """How many parts the archive has: 2 with months and days, else 1."""
    listed: set[CalendarPeriod] = attrs.field(factory=set)
    listings: int = attrs.field(default=0, init=False)
    """How many listings were read to their ends: those of months and days, or two of the only part."""
    _complete: set[CalendarPeriod] = attrs.field(factory=set, init=False)
    """The files that were read to the end, all rows of which could be stored."""
    _rows: Span | None = attrs.field(default=None, init=False)
    """From the first row that was read to the end of the last one."""

    @property
    def listings_needed(self) -> int:
        """How many listings of each part are read: two of the only one, since one may lack files."""
        return 2 if self.parts == 1 else 1

    @property
    def are_known(self) -> bool:
        """Whether every listing that is needed was read to its end."""
        return self.listings >= self.parts * self.listings_needed

    def list_from(self, needed: CalendarPeriod) -> CalendarPeriod:
        """Return where a listing begins, if the files of a period are needed, to know where all files end.

        Example: months are listed from the first one on. If the last one is July, days are listed from
        1 August on, and earlier if an earlier day is needed.
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
        files = [self._cells(period) for period in self.listed]
        begin, end = min(file.start for file in files), self.end
        if self._rows is not None:
            begin = max(begin, min(self._rows.start, *(file.end for file in files)))
        around = [Span(0, begin)] if begin > 0 else []
        if self.is_over(now):
            around.append(Span(end, MAX_TIMESTAMP))
        return missing & SpanSet.of(*around) - self._unread()

    @property
    def end(self) -> int:
        """Where the rows end: behind the last one in the last file, or at the end of a file without any."""
        files = [self._cells(period) for period in self.listed]
        last, end = max(file.start for file in files), max(file.end for file in files)
        return end if self._rows is None else min(end, max(last, self._rows.end))

    def is_over(self, now: int) -> bool:
        """Whether no file has followed for so long that none will.

        A file that was not read may have rows to its end: the silence begins there.
        """
        unread = [self._cells(period).end for period in self.listed - self._complete]
        return max(self.end, *unread, 0) + _SILENCE <= now

    def _unread(self) -> SpanSet:
        """Return the moments of files that do not show what they lack; a day tells more than its month."""
        unread = self.listed - self._complete
        days = self._all_cells(period for period in self._complete if period.grain == "day")
        months = self._all_cells(period for period in unread if period.grain == "month")
        return months - days | self._all_cells(period for period in unread if period.grain == "day")

    def _all_cells(self, periods: Iterable[CalendarPeriod]) -> SpanSet:
        return SpanSet.of(*map(self._cells, periods))

    def _cells(self, period: CalendarPeriod) -> Span:
        """Return the candles that open in a period."""
        return Span(self.interval.ceil(period.span.start), self.interval.ceil(period.span.end))
