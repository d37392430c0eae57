"""Which rejected rows a store keeps: those behind the verdict *unusable*, as long as it stands."""

from __future__ import annotations

from collections.abc import Iterable

from marketfetch.values.pages import Batch, RejectedRow
from marketfetch.values.spans import Span, SpanSet

__all__ = ["reach", "still_rejected"]


def reach(batch: Batch) -> Span | None:
    """Return the span of all moments that a batch says anything of; None where it says nothing."""
    rejected = SpanSet(tuple(Span(row.time, row.time + 1) for row in batch.rejected))
    return (rejected | SpanSet.of(batch.coverage.covered.hull)).hull


def still_rejected(rows: Iterable[RejectedRow], present: SpanSet) -> set[RejectedRow]:
    """Return the rows whose moments are not present: a stored row replaces what could not be stored.

    A row belongs to the moment that its time lies in, also where it lies off the grid.

    >>> from marketfetch.values.spans import Span
    >>> late = RejectedRow(74_789, "off the grid", "[74789,1]")
    >>> still_rejected([late], SpanSet.of(Span(60_000, 120_000)))
    set()
    """
    return {row for row in rows if row.time not in present}
