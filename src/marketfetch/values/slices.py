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

    - `absent_once`: moments that one answer denied; a second denial makes them empty.
    - `bad_answers`: the number of answers about these moments without a sound row.
    - `invalid_rows`: the wrong rows that all of those answers had.
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

    def __str__(self) -> str:
        return f"{self.series} {self.span}"
