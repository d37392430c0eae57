"""Helpers for rejected rows: a store keeps a rejected row until a row of its moment is stored."""

from __future__ import annotations

from collections.abc import Iterable

from marketfetch.values.pages import Batch, RejectedRow
from marketfetch.values.spans import Span, SpanSet

__all__ = ["batch_hull", "still_rejected"]


def batch_hull(batch: Batch) -> Span | None:
    """Return the span from the first to the last moment that a batch covers or rejects, if any."""
    rejected = SpanSet(tuple(Span(row.time, row.time + 1) for row in batch.rejected))
    return (rejected | SpanSet.of(batch.coverage.covered.hull)).hull


def still_rejected(rows: Iterable[RejectedRow], present: SpanSet) -> set[RejectedRow]:
    """Return the rows whose moments are not present: a stored row replaces a rejected one.

    Example: a row at 00:01:14.789, off the grid of minutes, belongs to the minute from 00:01.

    >>> from marketfetch.values.spans import Span
    >>> late = RejectedRow(74_789, "off the grid", "[74789,1]")
    >>> still_rejected([late], SpanSet.of(Span(60_000, 120_000)))
    set()
    """
    return {row for row in rows if row.time not in present}
