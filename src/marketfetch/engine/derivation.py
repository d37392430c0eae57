"""Series that are computed from others: their source is the store, once their inputs are durable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.engine.blocking import CurrentWriter, StoreRetrier, call_on_loop, run_in_thread
from marketfetch.engine.state import SeriesState
from marketfetch.engine.writers import OnWritten, WrittenBatches
from marketfetch.errors import ConfigurationError, RowsRefused
from marketfetch.planning.derivation import derived_coverage, intersect_coverage, outdated, split_by_rows
from marketfetch.protocols import Store
from marketfetch.sources import DerivedSource
from marketfetch.values.coverage import Coverage, MissingReason, Reason
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span

__all__ = ["Derivation"]

_ROUNDING = 1.0
"""By how much two numbers may differ and be the same: a table that may round holds whole numbers at worst."""
_RELATIVE_ROUNDING = 1e-6
"""The same as a part of a large number: a column of 32 bits has seven digits."""


@attrs.frozen(eq=False)
class Derivation:
    """Computes derived series on one thread; records every durable batch and every refusal on the loop."""

    store: Store
    retrier: StoreRetrier
    on_written: OnWritten
    batch_rows: int

    async def run(self, derived: Sequence[tuple[SeriesState, DerivedSource]]) -> None:
        """Compute and write what is missing of derived series; give up what not all inputs cover.

        A series whose rows the store refuses is left out. Raises ConfigurationError for a series whose
        stored rows do not follow from its inputs.
        """
        current, written = CurrentWriter(), WrittenBatches(self.on_written)
        found: dict[SeriesState, Coverage] = {}
        try:
            work = partial(self._derive, derived, current, written, found)
            await run_in_thread(work, interrupt=current.interrupt)
        finally:
            written.record()
        for state, coverage in found.items():
            state.record_stored(coverage)  # another process may have computed it
        for state, source in derived:
            missing = state.wanted - state.covered
            if missing and state.terminal_error is None:
                text = f"not known of every input ({_names(source)})"
                state.give_up(missing, Reason(MissingReason.INPUT_MISSING, text))

    def _derive(
        self,
        derived: Sequence[tuple[SeriesState, DerivedSource]],
        current: CurrentWriter,
        written: WrittenBatches,
        found: dict[SeriesState, Coverage],
    ) -> None:
        with ExitStack() as stack:
            write = self.retrier.call(lambda: stack.enter_context(self.store.writer()))
            current.writer = write
            for state, source in derived:
                if state.terminal_error is not None:
                    continue
                for batch in self._batches(state, source, found):
                    refusal = None
                    try:
                        self.retrier.call(partial(write, batch))
                    except RowsRefused as error:
                        refusal = error
                    written.add(batch, refusal)
                    call_on_loop(written.record_and_deliver)
                    if refusal is not None:
                        break

    def _batches(
        self, state: SeriesState, source: DerivedSource, found: dict[SeriesState, Coverage]
    ) -> Iterator[Batch]:
        """Compute one series, batch by batch: wanted − computed, read, combine.

        `found` gets what the store has of it.
        """
        series = state.series
        stored = self.retrier.call(partial(self.store.coverage, (series, *source.inputs)))
        known = intersect_coverage([stored[each] for each in source.inputs])
        self._check_stored(series, source, stored[series], known)
        computed = stored[series].covered - outdated(stored[series], known)
        found[state] = stored[series]
        missing = (state.wanted & known.covered) - computed
        state.rows_to_compute += series.interval.count_rows(missing - known.empty)
        for step in split_by_rows(series.interval, missing, self.batch_rows):
            hull = Span(step.spans[0].start, step.spans[-1].end)
            columns = self._combined(source, hull).within(step)
            yield Batch(series, columns, derived_coverage(series.interval, columns, step, known))

    def _combined(self, source: DerivedSource, span: Span) -> Columns:
        """Return the rows that follow from the inputs as they are stored."""
        return source.combine([self._read(each, span) for each in source.inputs])

    def _read(self, series: Series, span: Span) -> Columns:
        return self.retrier.call(partial(self.store.read, series, span))

    def _check_stored(self, series: Series, source: DerivedSource, stored: Coverage, known: Coverage) -> None:
        """Raise ConfigurationError if a store has the series under this name, computed from other inputs.

        The ledger keeps names alone, so the oldest row that can be computed anew is compared. The newest one
        may differ for another reason: exchanges revise it.
        """
        both = (stored.present & known.present).hull
        if both is None:
            return
        oldest = Span(both.start, series.interval.shift(series.interval.floor(both.start), 1))
        found, computed = self._read(series, oldest), self._combined(source, oldest)
        if np.array_equal(found.times, computed.times) and _contradict(found.values, computed.values):
            raise ConfigurationError(
                f"composites: {series.symbol} in the store does not follow from {_names(source)}: it has "
                "other members there, or their rows have changed since; forget it with its rows, or choose "
                "another name"
            )


def _contradict(found: NDArray[np.float64], computed: NDArray[np.float64]) -> bool:
    """Whether numbers differ by more than a table may have rounded, where both are known."""
    known = ~np.isnan(found) & ~np.isnan(computed)
    return not np.allclose(found[known], computed[known], _RELATIVE_ROUNDING, _ROUNDING)


def _names(source: DerivedSource) -> str:
    return ", ".join(each.symbol for each in source.inputs)
