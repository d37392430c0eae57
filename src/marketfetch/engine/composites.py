"""Composite series: a route whose source is the store itself. Blocking; runs in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import attrs
import numpy as np

from marketfetch.engine.blocking import CurrentWriter, StoreRetrier
from marketfetch.errors import RowsRefused
from marketfetch.planning.composites import combine, intersect_coverage
from marketfetch.protocols import Store, Writer
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["CompositeBuilder", "CompositeTask"]


@attrs.frozen
class CompositeTask:
    """A composite series to compute from its members, where the store does not have it yet."""

    series: Series
    members: tuple[Series, ...]
    wanted: SpanSet


@attrs.define(eq=False)
class CompositeBuilder:
    """Computes composite series, on the thread it is called on; tells of every durable batch and refusal."""

    store: Store
    retrier: StoreRetrier
    on_durable: Callable[[Batch], None]
    on_refused: Callable[[Series, RowsRefused], None]
    batch_rows: int
    current: CurrentWriter = attrs.field(factory=CurrentWriter, init=False)

    def build(self, derivations: Sequence[CompositeTask]) -> None:
        """Compute and write what is missing; a series whose rows the store refuses is left."""
        with ExitStack() as stack:
            write = self.retrier.call(lambda: stack.enter_context(self.store.writer()))
            self.current.writer = write
            for derivation in derivations:
                try:
                    self._build_one(derivation, write)
                except RowsRefused as error:
                    self.on_refused(derivation.series, error)

    def _build_one(self, derivation: CompositeTask, write: Writer) -> None:
        """Compute and write one series: wanted − covered, read, combine, write."""
        insist, series, members = self.retrier.call, derivation.series, derivation.members
        held = insist(partial(self.store.coverage, (series, *members)))
        known = intersect_coverage([held[member] for member in members])
        # A member may have been mended since: what was unusable for its sake is computed anew.
        computed = held[series].covered - (held[series].unusable - known.unusable)
        for step in _split_by_rows(series, (derivation.wanted & known.covered) - computed, self.batch_rows):
            hull = Span(step.spans[0].start, step.spans[-1].end)
            rows = [insist(partial(self.store.read, member, hull)) for member in members]
            columns = _inside(combine(rows, series.dataset), step)
            batch = Batch(series, columns, _new_coverage(series, columns, step, known))
            insist(partial(write, batch))
            self.on_durable(batch)


def _inside(columns: Columns, spans: SpanSet) -> Columns:
    """Return the rows that lie in a set of spans."""
    starts = np.array([span.start for span in spans], np.int64)
    ends = np.array([span.end for span in spans], np.int64)
    return columns.take(columns.times < ends[np.searchsorted(starts, columns.times, side="right") - 1])


def _new_coverage(series: Series, columns: Columns, step: SpanSet, known: Coverage) -> Coverage:
    """Return what a composite's rows prove about a step, all of which is known of the members.

    Where every member is present and there is no row all the same, a member has one off the grid, stored as
    the exchange sent it.
    """
    empty = known.empty & step
    return Coverage(step, empty, step - empty - series.interval.cells(columns.times))


def _split_by_rows(series: Series, spans: SpanSet, rows: int) -> Iterator[SpanSet]:
    """Cut a set into steps that have so many open times at most, from the first to the last one of each.

    Short spans with gaps between them share a step: each step costs a reading of every member, and a
    transaction.
    """
    step: list[Span] = []
    limit = 0
    for span in spans:
        start = span.start
        while start < span.end:
            if step and start >= limit:
                yield SpanSet(tuple(step))
                step = []
            if not step:
                limit = series.interval.shift(series.interval.floor(start), rows)
            stop = min(limit, span.end)
            step.append(Span(start, stop))
            start = stop
    if step:
        yield SpanSet(tuple(step))
