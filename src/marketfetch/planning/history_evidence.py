"""What proves that a series has no rows in a stretch before which no row was ever seen. Pure.

Two answers denied the stretch. That is not enough by itself: an exchange that keeps only its newest rows
denies everything older as often as it is asked.

| what else is known | verdict |
|---|---|
| the adapter's request for the first row skips the stretch | empty |
| the exchange has a row from before the stretch: it keeps rows that are so old | empty |
| the endpoint declares its `retention`, so that older moments are not asked for | empty |
| the first row came when the listing says that the instrument was listed | empty |
| no row came at all, and the listing says that the instrument had ended before | empty |
| nothing of these | missing, with the reason |
"""

from __future__ import annotations

import attrs

from marketfetch.values.instruments import Instrument
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span, format_utc

__all__ = ["Evidence", "listing_grace", "reason"]

_HOUR = 3_600_000
_DAY = 24 * _HOUR


@attrs.frozen
class Evidence:
    """What answers about rows have shown of a stretch that was denied twice.

    `first` is the first row that was seen, which lies after the stretch; None if there was no row at all.
    """

    first: int | None
    first_row_request: bool = False
    """Whether the answer to `Endpoint.first` skips the stretch."""
    row_before: bool = False
    """Whether there is a row from before the stretch."""

    def proves_empty(
        self, interval: Interval, stretch: Span, instrument: Instrument, *, reach: int | None
    ) -> bool:
        """Tell whether the stretch is confirmed empty; see the table above.

        >>> stretch, minutes = Span(0, 86_400_000), Interval.parse("1m")
        >>> listed = Instrument("A", "A", "B", listed_at=86_400_000)
        >>> Evidence(first=86_400_000).proves_empty(minutes, stretch, listed, reach=None)
        True
        >>> Evidence(first=172_800_000).proves_empty(minutes, stretch, listed, reach=None)
        False
        """
        if self.first_row_request or self.row_before or reach is not None:
            return True
        listed, ended = instrument.listed_at, instrument.delisted_at
        if self.first is not None:
            return listed is not None and abs(self.first - interval.floor(listed)) <= listing_grace(interval)
        return ended is not None and ended <= stretch.start


def listing_grace(interval: Interval) -> int:
    """Return how far the first row may be from the listing (ms): trade begins later than announced."""
    return _DAY if interval.is_event else max(_HOUR, interval.typical)


def reason(first: int | None) -> str:
    """Say why moments that were denied twice are missing all the same.

    >>> reason(1_780_272_000_000)
    'the exchange serves nothing before 2026-06-01T00:00:00Z; it may keep no more: start there'
    """
    if first is None:
        return "the exchange serves no row here and none before; it may keep no more: start later"
    return f"the exchange serves nothing before {format_utc(first)}; it may keep no more: start there"
