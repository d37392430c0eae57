"""Work queue and memory limit: slices go out to workers, their pages come back and become batches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

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
class RowBudget:
    """Memory limit: how many rows may be held, from the first request until the batch is durable.

    BatchBuilder adds the rows of pages, ArchiveFiles those of files. FetchWorkers and ArchiveWaves set the
    limit with `resize` before they begin. The run calls `release` once for each batch that is durable or
    dropped, and `clear` when it fails. Back-pressure: while the store is slow, `acquire` waits, so no new
    request is made.

    Example: limit 100. A plan of 60 rows is acquired; a second one of 60 waits. The first plan becomes a
    batch of 50 rows, which takes the place of the 60; when the batch is durable, the second plan is acquired.
    """

    limit: int = 0
    in_use: int = attrs.field(default=0, init=False)
    _rows_of: dict[object, int] = attrs.field(factory=dict, init=False)
    """The rows of each holder: a plan that is being fetched, or a batch that is being written."""
    _freed: anyio.Event | None = attrs.field(default=None, init=False)

    def resize(self, limit: int) -> None:
        """Set how many rows may be held from now on; rows that are held stay held."""
        self.limit = limit
        self._wake_waiting()

    async def acquire(self, holder: object, rows: int) -> None:
        """Wait until the limit has room for so many rows, and hold them.

        A holder that is larger than the limit gets its rows when nothing else is held: no wait is endless.
        """
        while self.in_use and self.in_use + rows > self.limit:
            if self._freed is None:
                self._freed = anyio.Event()
            await self._freed.wait()
        self.hold(holder, rows)

    async def drain(self) -> None:
        """Wait until nothing is held: every batch with rows is durable or dropped."""
        await self.acquire(self, self.limit + 1)
        self.release(self)

    def hold(self, holder: object, rows: int) -> None:
        """Hold rows without waiting: they are in memory already."""
        self._rows_of[holder] = rows
        self.in_use += rows

    def split(self, holder: Batch, parts: tuple[Batch, Batch]) -> None:
        """Let two parts of a batch hold its rows."""
        if self._rows_of.pop(holder, None) is not None:
            self._rows_of.update((part, part.rows) for part in parts)

    def release(self, holder: object) -> None:
        """Free the rows of a holder; a holder without rows is left alone."""
        self.in_use -= self._rows_of.pop(holder, 0)
        self._wake_waiting()

    def clear(self) -> None:
        """Free everything: a run that fails drops its pages and batches."""
        self._rows_of.clear()
        self.in_use = 0
        self._wake_waiting()

    def _wake_waiting(self) -> None:
        if self._freed is not None:
            self._freed.set()
            self._freed = None


@attrs.define(eq=False)
class _PendingBatch:
    """The pages of one batch plan that have arrived so far."""

    plan: BatchPlan
    open_slices: int
    pages: list[Columns] = attrs.field(factory=list)
    rows: int = 0
    coverage: RunningUnion[Coverage] = attrs.field(factory=coverages)
    rejected: set[RejectedRow] = attrs.field(factory=set)

    def take_batch(self) -> Batch | None:
        """Return the pages as one batch and start anew; None if they prove nothing."""
        series, coverage = self.plan.series, self.coverage.value
        if not self.pages and not coverage.covered:
            return None
        columns = Columns.join(self.pages) if self.pages else Columns.empty(series.dataset)
        rejected = [row for row in self.rejected if series.interval.floor(row.time) in coverage.unusable]
        self.pages, self.rows, self.coverage, self.rejected = [], 0, coverages(), set()
        return Batch(series, columns, coverage, tuple(sorted(rejected)))


@attrs.define(eq=False)
class BatchBuilder:
    """Gathers the pages of every batch plan that is being fetched, within the memory limit."""

    batch_rows: int
    _row_budget: RowBudget
    _pending: dict[int, _PendingBatch] = attrs.field(factory=dict, init=False)

    async def begin(self, plan: BatchPlan) -> None:
        """Wait until there is room for the rows of a plan, and expect the pages of its slices."""
        pending = _PendingBatch(plan, len(plan.slices))
        await self._row_budget.acquire(pending, plan.rows)
        self._pending[plan.id] = pending

    def add(self, part: Slice, page: Page, outcome: PageOutcome) -> Batch | None:
        """Add a page; returns a batch early where a chain of pages is longer than planned."""
        pending = self._pending[part.batch_plan]
        if len(page.columns):
            pending.pages.append(page.columns)
            pending.rows += len(page.columns)
        pending.coverage.add(outcome.coverage)
        pending.rejected.update(outcome.rejected)
        return self._take_batch(pending) if pending.rows >= 2 * self.batch_rows else None

    def finish(self, part: Slice) -> Batch | None:
        """Note that a slice and all that it left over are done; after the last one return the batch."""
        pending = self._pending[part.batch_plan]
        pending.open_slices -= 1
        if pending.open_slices:
            return None
        del self._pending[part.batch_plan]
        self._row_budget.release(pending)
        return self._take_batch(pending)

    def _take_batch(self, pending: _PendingBatch) -> Batch | None:
        batch = pending.take_batch()
        if batch is not None:
            self._row_budget.hold(batch, batch.rows)
        return batch


@attrs.define(eq=False)
class WorkQueue:
    """The slices of all batch plans, in order, for any number of workers."""

    _next_plan: Callable[[], Awaitable[BatchPlan | None]]
    _builder: BatchBuilder
    _next: BatchPlan | None = attrs.field(default=None, init=False)
    _slices: list[Slice] = attrs.field(factory=list, init=False)
    """The slices of the current plan that no worker has yet; the next one is the last."""
    _lock: anyio.Lock = attrs.field(factory=anyio.Lock, init=False)

    async def get(self) -> Slice | None:
        """Return the next slice, None after the last one; waits while the memory limit is reached."""
        if not self._slices:
            async with self._lock:
                await self._begin_next_plan()
        return self._slices.pop() if self._slices else None

    async def _begin_next_plan(self) -> None:
        # Another worker may have begun a plan while this one waited for the lock.
        while not self._slices:
            self._next = self._next or await self._next_plan()
            if self._next is None:
                return
            if self._next.slices:
                await self._builder.begin(self._next)  # if cancelled, the plan stays the next one
            self._slices, self._next = list(reversed(self._next.slices)), None
