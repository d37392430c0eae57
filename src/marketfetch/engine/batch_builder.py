"""From plan to batches: the work queue of slices, the pages of each batch, the budget of rows in memory."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import attrs

from marketfetch.planning.batches import BatchPlan
from marketfetch.planning.running_union import RunningUnion, coverages
from marketfetch.protocols import PageOutcome
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns, Page
from marketfetch.values.rejected_rows import RejectedRow
from marketfetch.values.slices import Slice

__all__ = ["BatchBuilder", "RowBudget", "WorkQueue"]


@attrs.define(eq=False)
class _PendingBatch:
    batch_plan: BatchPlan
    open_slices: int
    pages: list[Columns] = attrs.field(factory=list)
    rows: int = 0
    coverage: RunningUnion[Coverage] = attrs.field(factory=coverages)
    rejected: set[RejectedRow] = attrs.field(factory=set)

    def batch(self) -> Batch | None:
        """Turn what lies here into a batch and start anew; None if there is nothing to say."""
        interval, coverage = self.batch_plan.series.interval, self.coverage.value
        if not self.pages and not coverage.covered:
            return None
        columns = Columns.join(self.pages) if self.pages else Columns.empty(self.batch_plan.series.dataset)
        rejected = [row for row in self.rejected if interval.floor(row.time) in coverage.unusable]
        self.pages, self.rows, self.coverage, self.rejected = [], 0, coverages(), set()
        return Batch(self.batch_plan.series, columns, coverage, tuple(sorted(rejected)))


@attrs.define(eq=False)
class BatchBuilder:
    """Holds the pages of every chunk that is being fetched; knows nothing of tasks and threads."""

    batch_rows: int
    _pending: dict[int, _PendingBatch] = attrs.field(factory=dict, init=False)

    def begin(self, batch_plan: BatchPlan) -> None:
        """Expect the parts of a chunk."""
        self._pending[batch_plan.id] = _PendingBatch(batch_plan, len(batch_plan.slices))

    def add(self, part: Slice, page: Page, outcome: PageOutcome) -> Batch | None:
        """Put a page down; returns a batch when a chain has grown to the size of one."""
        pile = self._pending[part.batch_plan]
        if len(page.columns):
            pile.pages.append(page.columns)
            pile.rows += len(page.columns)
        pile.coverage.add(outcome.coverage)
        pile.rejected.update(outcome.rejected)
        return pile.batch() if pile.rows >= 2 * self.batch_rows else None

    def finish(self, part: Slice) -> tuple[Batch | None, int]:
        """Note that a part and all its follow-ups are done.

        The last part of a chunk returns its batch, and the rows that the chunk was expected to have.
        """
        pile = self._pending[part.batch_plan]
        pile.open_slices -= 1
        if pile.open_slices:
            return None, 0
        del self._pending[part.batch_plan]
        return pile.batch(), pile.batch_plan.rows


@attrs.define(eq=False)
class RowBudget:
    """Rows that may be in memory, from being asked for until they are durable.

    Any task may take or give back. Something larger than the whole allowance gets it when nothing else is
    held, so that nothing waits for ever.
    """

    limit: int = 0
    in_use: int = attrs.field(default=0, init=False)
    _freed: anyio.Event | None = attrs.field(default=None, init=False)

    async def acquire(self, rows: int) -> None:
        """Wait until so many rows may be held, and hold them."""
        while self.in_use and self.in_use + rows > self.limit:
            if self._freed is None:
                self._freed = anyio.Event()
            await self._freed.wait()
        self.in_use += rows

    def release(self, rows: int) -> None:
        """Let go of rows that were written, or that never came."""
        self.in_use -= rows
        if self._freed is not None:
            self._freed.set()
            self._freed = None


@attrs.define(eq=False)
class WorkQueue:
    """The slices of a plan, for any number of workers; knows nothing of what they do with them."""

    _chunks: Iterator[BatchPlan]
    _builder: BatchBuilder
    _budget: RowBudget
    _next: BatchPlan | None = attrs.field(default=None, init=False)
    _parts: list[Slice] = attrs.field(factory=list, init=False)
    _turn: anyio.Lock = attrs.field(factory=anyio.Lock, init=False)

    async def get(self) -> Slice | None:
        """Return the next slice, None after the last; waits while too many rows are held."""
        if not self._parts:
            async with self._turn:
                await self._open_chunk()
        return self._parts.pop() if self._parts else None

    async def _open_chunk(self) -> None:
        """Lay out the parts of the next chunk, unless somebody else just did."""
        while not self._parts:
            self._next = self._next or next(self._chunks, None)  # still there if the wait was cancelled
            if self._next is None:
                return
            await self._budget.acquire(self._next.rows)
            batch_plan, self._next = self._next, None
            self._builder.begin(batch_plan)
            self._parts = list(reversed(batch_plan.slices))
