"""Composite series: a route whose source is the store itself. Blocking; runs in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import attrs

from marketfetch.arithmetic.composite import combine, known_together
from marketfetch.engine.patience import Patience
from marketfetch.engine.query import BATCH_ROWS, Settings
from marketfetch.protocols import Store
from marketfetch.values.pages import Batch
from marketfetch.values.series import Coverage, Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Derivation", "derive"]


@attrs.frozen
class Derivation:
    """A composite series to compute from its members, where the store does not have it yet."""

    series: Series
    members: tuple[Series, ...]
    wanted: SpanSet


def derive(
    store: Store,
    derivations: Sequence[Derivation],
    settings: Settings,
    patience: Patience,
    done: Callable[[Batch], None],
) -> None:
    """Compute and write what is missing of composite series: wanted − covered, read, combine, write."""
    with ExitStack() as stack:
        write = patience.insist(lambda: stack.enter_context(store.writer()))
        for derivation in derivations:
            held = patience.insist(partial(store.coverage, (derivation.series, *derivation.members)))
            known = known_together([held[member] for member in derivation.members])
            computable = (derivation.wanted & known.covered) - held[derivation.series].covered
            for span in _steps(derivation.series, computable, settings.batch_rows or BATCH_ROWS):
                members = [
                    patience.insist(partial(store.read, member, span)) for member in derivation.members
                ]
                columns = combine(members, derivation.series.dataset)
                covered = SpanSet.of(span)
                batch = Batch(derivation.series, columns, Coverage(covered, known.empty & covered))
                patience.insist(partial(write, batch))
                done(batch)


def _steps(series: Series, spans: SpanSet, rows: int) -> Sequence[Span]:
    steps = []
    for span in spans:
        start = span.start
        while start < span.end:
            stop = min(series.interval.shift(series.interval.floor(start), rows), span.end)
            steps.append(Span(start, stop))
            start = stop
    return steps
