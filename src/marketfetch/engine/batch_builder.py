"""Gathering pages into batches: the rows of one chunk, written in one transaction."""

from __future__ import annotations

import attrs

from marketfetch.planning.batches import BatchPlan
from marketfetch.planning.running_union import RunningUnion, coverages
from marketfetch.protocols import PageOutcome
from marketfetch.values.pages import Batch, Columns, Page
from marketfetch.values.rejected_rows import RejectedRow
from marketfetch.values.series import Coverage, Slice

__all__ = ["BatchBuilder"]


@attrs.define(eq=False)
class _PendingBatch:
    chunk: BatchPlan
    open_slices: int
    pages: list[Columns] = attrs.field(factory=list)
    rows: int = 0
    coverage: RunningUnion[Coverage] = attrs.field(factory=coverages)
    rejected: set[RejectedRow] = attrs.field(factory=set)

    def batch(self) -> Batch | None:
        """Turn what lies here into a batch and start anew; None if there is nothing to say."""
        interval, coverage = self.chunk.series.interval, self.coverage.value
        if not self.pages and not coverage.covered:
            return None
        columns = Columns.join(self.pages) if self.pages else Columns.empty(self.chunk.series.dataset)
        rejected = [row for row in self.rejected if interval.floor(row.time) in coverage.unusable]
        self.pages, self.rows, self.coverage, self.rejected = [], 0, coverages(), set()
        return Batch(self.chunk.series, columns, coverage, tuple(sorted(rejected)))


@attrs.define(eq=False)
class BatchBuilder:
    """Holds the pages of every chunk that is being fetched; knows nothing of tasks and threads."""

    batch_rows: int
    _pending: dict[int, _PendingBatch] = attrs.field(factory=dict, init=False)

    def begin(self, chunk: BatchPlan) -> None:
        """Expect the parts of a chunk."""
        self._pending[chunk.id] = _PendingBatch(chunk, len(chunk.slices))

    def add(self, part: Slice, page: Page, settlement: PageOutcome) -> Batch | None:
        """Put a page down; returns a batch when a chain has grown to the size of one."""
        pile = self._pending[part.chunk]
        if len(page.columns):
            pile.pages.append(page.columns)
            pile.rows += len(page.columns)
        pile.coverage.add(settlement.coverage)
        pile.rejected.update(settlement.rejected)
        return pile.batch() if pile.rows >= 2 * self.batch_rows else None

    def finish(self, part: Slice) -> tuple[Batch | None, int]:
        """Note that a part and all its follow-ups are done.

        The last part of a chunk returns its batch, and the rows that the chunk was expected to have.
        """
        pile = self._pending[part.chunk]
        pile.open_slices -= 1
        if pile.open_slices:
            return None, 0
        del self._pending[part.chunk]
        return pile.batch(), pile.chunk.rows
