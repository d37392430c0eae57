"""Provisional rows: stored as soon as they have closed, covered once they are final."""

from __future__ import annotations

from collections import Counter

import attrs
import numpy as np

from marketfetch.protocols import PageOutcome
from marketfetch.values.coverage import Coverage, MissingReason, Reason
from marketfetch.values.pages import Columns, Page, same_values
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

__all__ = ["PROVISIONAL", "ProvisionalRows"]

PROVISIONAL = Reason(MissingReason.NOT_PUBLISHED, "closed, and not final yet: requested once more")
"""Reason for moments whose rows are stored or awaited, and may change for some seconds more."""


@attrs.define(eq=False)
class ProvisionalRows:
    """The provisional rows of each series as they were stored, to notice a revision.

    A row is provisional from its close until the `publish_delay` has passed. Its moment is not covered, so
    whoever comes next, this process or one after a crash, requests the row once more.
    """

    revisions: Counter[Series] = attrs.field(factory=Counter, init=False)
    """Rows that came again with other values."""
    _rows: dict[Series, Columns] = attrs.field(factory=dict, init=False)
    _unconfirmed: dict[Series, SpanSet] = attrs.field(factory=dict, init=False)
    """The moments of all rows that were provisional, until a final answer decides about each."""

    def held(self, series: Series, border: int) -> SpanSet:
        """Return the moments of a series from `border` on that have a row: nothing is requested there yet."""
        rows = self._rows.get(series)
        if rows is None:
            return SpanSet()
        return series.interval.cover(rows.times[rows.times >= border])

    def count(self, series: Series, border: int) -> int:
        """Return the number of rows of a series from `border` on that are held."""
        rows = self._rows.get(series)
        return 0 if rows is None else int(np.count_nonzero(rows.times >= border))

    def forget(self) -> None:
        """Forget all rows: they may not have reached the store."""
        self._rows.clear()

    def withdrawn(self, series: Series, known: Coverage) -> SpanSet:
        """Return the moments of stored rows that final answers no longer have, or have wrong.

        `known` is the coverage of the series by now. They are returned until `decide` is called.
        """
        return self._unconfirmed.get(series, SpanSet()) & (known.empty | known.unusable)

    def decide(self, series: Series, known: Coverage) -> None:
        """Forget the moments that are covered now; those that are still missing remain unconfirmed."""
        undecided = self._unconfirmed.pop(series, SpanSet()) - known.covered
        if undecided:
            self._unconfirmed[series] = undecided

    def hold_back(self, part: Slice, page: Page, outcome: PageOutcome, border: int) -> PageOutcome:
        """Return the outcome without a verdict about moments that were not final when they were requested.

        `border` is the end of the last row that was final then. Example: at 12:01:00 a page of candles has
        11:59 and 12:00. The minute from 11:59 is final and present; that from 12:00 is given up until the
        next round. It is the same if 12:00 is not on the page: no request follows at once.
        """
        series = part.series
        if series.interval.is_event:
            return outcome
        self._compare(series, page.columns, border)
        if part.span.end <= border:
            return outcome
        fresh = SpanSet.of(Span(max(border, part.span.start), part.span.end))
        remaining = tuple(part for part in outcome.remaining if part.span.start < border)
        return attrs.evolve(
            outcome,
            present=outcome.present - fresh,
            empty=outcome.empty - fresh,
            unusable=outcome.unusable - fresh,
            rejected=tuple(row for row in outcome.rejected if row.time not in fresh),
            remaining=remaining,
            given_up=outcome.given_up | (fresh - SpanSet.of(*(each.span for each in remaining))),
            reason=outcome.reason or PROVISIONAL.detail,
            kind=outcome.kind if outcome.reason else PROVISIONAL.kind,
        )

    def _compare(self, series: Series, rows: Columns, border: int) -> None:
        """Count the rows that have changed since they were held, and hold those that may still change."""
        held = self._rows.get(series)
        if held is not None:
            _, before, now = np.intersect1d(held.times, rows.times, assume_unique=True, return_indices=True)
            same = same_values(held.values[:, before], rows.values[:, now])
            self.revisions[series] += int(np.count_nonzero(~same.all(axis=0)))
        if fresh := series.interval.cover(rows.times[rows.times >= border]):
            self._unconfirmed[series] = self._unconfirmed.get(series, SpanSet()) | fresh
        parts = [part.take(part.times >= border) for part in (held, rows) if part is not None]
        if joined := [part for part in parts if len(part)]:
            self._rows[series] = Columns.join(joined)
        else:
            self._rows.pop(series, None)
