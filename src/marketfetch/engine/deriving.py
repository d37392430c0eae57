"""Composite series: a route whose source is the store itself. Blocking; runs in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import attrs

from marketfetch.arithmetic.composite import combine, known_together
from marketfetch.engine.patience import Patience
from marketfetch.engine.threads import InUse
from marketfetch.errors import RowsRefused
from marketfetch.protocols import Store, Writer
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Coverage, Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Derivation", "Deriving"]


@attrs.frozen
class Derivation:
    """A composite series to compute from its members, where the store does not have it yet."""

    series: Series
    members: tuple[Series, ...]
    wanted: SpanSet


@attrs.define(eq=False)
class Deriving:
    """Computes composite series, on the thread it is called on; tells of every durable batch and refusal."""

    store: Store
    patience: Patience
    done: Callable[[Batch], None]
    refused: Callable[[Series, RowsRefused], None]
    batch_rows: int
    in_use: InUse = attrs.field(factory=InUse, init=False)

    def derive(self, derivations: Sequence[Derivation]) -> None:
        """Compute and write what is missing; a series whose rows the store refuses is left."""
        with ExitStack() as stack:
            write = self.patience.insist(lambda: stack.enter_context(self.store.writer()))
            self.in_use.writer = write
            for derivation in derivations:
                try:
                    self._derive(derivation, write)
                except RowsRefused as error:
                    self.refused(derivation.series, error)

    def _derive(self, derivation: Derivation, write: Writer) -> None:
        """Compute and write one series: wanted − covered, read, combine, write."""
        insist, series, members = self.patience.insist, derivation.series, derivation.members
        held = insist(partial(self.store.coverage, (series, *members)))
        known = known_together([held[member] for member in members])
        # A member may have been mended since: what was unusable for its sake is computed anew.
        computed = held[series].covered - (held[series].unusable - known.unusable)
        for span in _steps(series, (derivation.wanted & known.covered) - computed, self.batch_rows):
            rows = [insist(partial(self.store.read, member, span)) for member in members]
            columns = combine(rows, series.dataset)
            batch = Batch(series, columns, _learnt(series, columns, known.within(span)))
            insist(partial(write, batch))
            self.done(batch)


def _learnt(series: Series, columns: Columns, known: Coverage) -> Coverage:
    """Return what a composite's rows prove.

    Where every member is present and there is no row all the same, a member has one off the grid, stored as
    the exchange sent it.
    """
    without = known.covered - known.empty - series.interval.cells(columns.times)
    return Coverage(known.covered, known.empty, without)


def _steps(series: Series, spans: SpanSet, rows: int) -> Sequence[Span]:
    steps = []
    for span in spans:
        start = span.start
        while start < span.end:
            stop = min(series.interval.shift(series.interval.floor(start), rows), span.end)
            steps.append(Span(start, stop))
            start = stop
    return steps
