"""Calendar periods: the month or day that one file of an archive covers, in the time zone of the exchange."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Literal

import attrs

from marketfetch.values.spans import DAY, Span

__all__ = ["CalendarPeriod", "Grain", "periods"]

Grain = Literal["month", "day"]
"""What one file covers."""

_LABEL = re.compile(r"([12]\d{3})-(\d{1,2})(?:-(\d{1,2}))?", re.ASCII)
_ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)


def _begins_period(period: CalendarPeriod, _attribute: object, start: date) -> None:
    if period.grain == "month" and start.day != 1:
        raise ValueError(f"start: {start} does not begin a month; write {start.replace(day=1)}")


@attrs.frozen(order=True)
class CalendarPeriod:
    """One calendar month or day where the exchange is.

    `utc_offset` is how far the exchange's clock is ahead of UTC, in milliseconds. At UTC+8 the file of
    31 January holds 30 January 16:00 to 31 January 16:00 UTC.

    >>> day = CalendarPeriod.parse("2024-01-31", utc_offset=8 * 3_600_000)
    >>> print(day, day.span)
    2024-01-31 [2024-01-30T16:00:00Z, 2024-01-31T16:00:00Z)
    """

    start: date = attrs.field(validator=_begins_period)
    grain: Grain = attrs.field(validator=attrs.validators.in_(("month", "day")))
    utc_offset: int = 0

    @classmethod
    def parse(cls, label: str, *, utc_offset: int = 0) -> CalendarPeriod:
        """Read a month such as `2024-01` or `2024-1`, or a day; ValueError for any other text.

        >>> str(CalendarPeriod.parse("2020-8"))
        '2020-08'
        """
        found = _LABEL.fullmatch(label)
        if found is None:
            raise ValueError(f"label: {label[:40]!r} is not a period; write 2024-01 or 2024-01-31")
        year, month, day = found.groups()
        try:
            start = date(int(year), int(month), int(day or 1))
        except ValueError:
            raise ValueError(f"label: {label!r} is not in the calendar") from None
        return cls(start, "day" if day else "month", utc_offset)

    @classmethod
    def containing(cls, ms: int, grain: Grain, *, utc_offset: int = 0) -> CalendarPeriod:
        """Return the period in which a moment lies; the moment is in UTC milliseconds.

        >>> print(CalendarPeriod.containing(1_706_716_800_000, "month", utc_offset=8 * 3_600_000))
        2024-02
        """
        start = (_ORIGIN + timedelta(milliseconds=ms + utc_offset)).date()
        return cls(start.replace(day=1) if grain == "month" else start, grain, utc_offset)

    @property
    def span(self) -> Span:
        """The moments of the period, in UTC milliseconds."""
        return Span(self._midnight(self.start), self._midnight(self._end))

    @property
    def next(self) -> CalendarPeriod:
        """The period that follows."""
        return attrs.evolve(self, start=self._end)

    @property
    def _end(self) -> date:
        if self.grain == "day":
            return self.start + timedelta(days=1)
        return (self.start + timedelta(days=31)).replace(day=1)

    def _midnight(self, day: date) -> int:
        return (day - _ORIGIN.date()).days * DAY - self.utc_offset

    def __str__(self) -> str:
        return self.start.isoformat()[: 7 if self.grain == "month" else 10]


def periods(span: Span, grain: Grain, *, utc_offset: int = 0) -> Iterator[CalendarPeriod]:
    """Yield the periods that overlap a span, in order.

    >>> leap_year = Span(1_704_067_200_000, 1_711_929_600_000)
    >>> [str(period) for period in periods(leap_year, "month")]
    ['2024-01', '2024-02', '2024-03']
    """
    period = CalendarPeriod.containing(span.start, grain, utc_offset=utc_offset)
    while period.span.start < span.end:
        yield period
        period = period.next
