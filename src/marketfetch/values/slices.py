"""Slice: the part of a series for which an adapter makes one request."""

from __future__ import annotations

import attrs

from marketfetch.values.rejected_rows import RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Slice"]


@attrs.frozen
class Slice:
    """A part of a series that is still to be fetched, of the size of one request.

    - `absent_once`: moments for which one answer had no row; a second such answer makes them empty.
    - `bad_answers`: the number of answers in which no row of these moments could be stored.
    - `invalid_rows`: the wrong rows that were in all of these answers.
    - `batch_plan`: the number of the BatchPlan that collects the rows.
    """

    series: Series
    span: Span
    rows: int
    """How many rows the request should ask for at most."""
    absent_once: SpanSet = attrs.field(factory=SpanSet)
    bad_answers: int = 0
    batch_plan: int = 0
    cursor: str | None = None
    """An opaque page token, for endpoints that page by token."""
    invalid_rows: tuple[RejectedRow, ...] = attrs.field(default=(), repr=False)

    def within(self, span: Span) -> Slice:
        """Return the part of the slice in a smaller span, with what is known of the moments there.

        >>> hours = Series.of("okx", "ohlcv", "BTC-USDT", "1h")
        >>> print(Slice(hours, Span(0, 36_000_000), rows=10).within(Span(0, 7_200_000)).rows)
        2
        """
        interval, absent_once, invalid_rows = self.series.interval, self.absent_once, self.invalid_rows
        return attrs.evolve(
            self,
            span=span,
            rows=self.rows if interval.is_event else min(self.rows, interval.count(span)),
            absent_once=absent_once & SpanSet.of(span) if absent_once else absent_once,
            invalid_rows=tuple(row for row in invalid_rows if row.time in span) if invalid_rows else (),
        )

    def __str__(self) -> str:
        return f"{self.series} {self.span}"
