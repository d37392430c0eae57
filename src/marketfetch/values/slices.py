"""Slice: the part of a series that an adapter is asked for."""

from __future__ import annotations

import attrs

from marketfetch.values.rejected_rows import RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Slice"]


@attrs.frozen
class Slice:
    """A part of a series still to fetch, sized to one request where the endpoint allows.

    `absent_once` are the moments for which one answer had no row: absence is believed when two answers say
    so. `bad_answers` counts answers whose content was unusable, and `invalid_rows` are the wrong rows that
    all of those answers had. `batch_plan` is the number of the BatchPlan that gathers the rows.
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

    def __str__(self) -> str:
        return f"{self.series} {self.span}"
