"""Composite series, computed from the rows of their members in the store. Blocking: runs on a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import attrs

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
    """A composite series to compute from its members, where the store has no valid result yet."""

    series: Series
    members: tuple[Series, ...]
    wanted: SpanSet


@attrs.define(eq=False)
class CompositeBuilder:
    """Computes composite series on the thread that calls it; reports every durable batch and refusal."""

    store: Store
    retrier: StoreRetrier
    on_durable: Callable[[Batch], None]
    on_refused: Callable[[Series, RowsRefused], None]
    batch_rows: int
    current: CurrentWriter = attrs.field(factory=CurrentWriter, init=False)

    def build(self, tasks: Sequence[CompositeTask]) -> None:
        """Compute and write what is missing; a series whose rows the store refuses is skipped."""
        with ExitStack() as stack:
            write = self.retrier.call(lambda: stack.enter_context(self.store.writer()))
            self.current.writer = write
            for task in tasks:
                try:
                    self._build_one(task, write)
                except RowsRefused as error:
                    self.on_refused(task.series, error)

    def _build_one(self, task: CompositeTask, write: Writer) -> None:
        """Compute and write one series: wanted − computed, read, combine, write."""
        retry, series, members = self.retrier.call, task.series, task.members
        stored = retry(partial(self.store.coverage, (series, *members)))
        known = intersect_coverage([stored[member] for member in members])
        computed = stored[series].covered - _outdated(stored[series], known)
        for step in _split_by_rows(series, (task.wanted & known.covered) - computed, self.batch_rows):
            hull = Span(step.spans[0].start, step.spans[-1].end)
            rows = [retry(partial(self.store.read, member, hull)) for member in members]
            columns = combine(rows, series.dataset).within(step)
            batch = Batch(series, columns, _new_coverage(series, columns, step, known))
            retry(partial(write, batch))
            self.on_durable(batch)


def _outdated(composite: Coverage, members: Coverage) -> SpanSet:
    """Return where a composite is stored as empty or unusable, and its members no longer say so.

    Example: member A had no row at 00:05, so the composite was stored as empty there. A was forgotten and
    fetched again, and has a row: 00:05 is computed anew, and present beats empty.
    """
    return (composite.empty - members.empty) | (composite.unusable - members.unusable)


def _new_coverage(series: Series, columns: Columns, step: SpanSet, known: Coverage) -> Coverage:
    """Return what a composite's rows prove about a step that is covered for all members.

    Where every member is present and the composite has no row, a member has a row off the grid, stored as
    the exchange sent it: the composite is unusable there.
    """
    empty = known.empty & step
    return Coverage(step, empty, step - empty - series.interval.cells(columns.times))


def _split_by_rows(series: Series, spans: SpanSet, rows: int) -> Iterator[SpanSet]:
    """Cut a set into steps; from its first to its last span, a step has at most `rows` open times.

    Short spans with gaps between them share a step, because each step costs one read of every member and
    one transaction.
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
