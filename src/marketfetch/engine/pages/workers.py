"""Fetch workers: each takes slices from the work queue, requests their pages, and submits the batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import attrs

from marketfetch.decoding.validation import validate_page
from marketfetch.engine.missing import (
    clip_to_retention,
    defer_recent_absence,
    defer_unproven_absence,
)
from marketfetch.engine.pages.batch_builder import BatchBuilder, RowBudget, WorkQueue
from marketfetch.engine.pages.history_bounds import HistoryBounds
from marketfetch.engine.pages.shared_work import BatchPlans, CoverageRefresher, PageSizes, unstored_part
from marketfetch.engine.pages.tasks import plan_tasks
from marketfetch.engine.requester import RequestExecutor
from marketfetch.engine.state import RunState, SeriesState
from marketfetch.engine.writers import WriterPool
from marketfetch.errors import BadRequest, BadSymbol, FetchError, PaginationError, RestrictedLocation
from marketfetch.events import PageFetched
from marketfetch.planning.batches import BatchSizing, Capacity, FetchTask
from marketfetch.planning.paginators import ProgressGuard
from marketfetch.planning.shared_order import SharedOrder
from marketfetch.planning.unusable_rows import store_unusable
from marketfetch.protocols import PageOutcome
from marketfetch.sources import Endpoint
from marketfetch.values.coverage import MissingReason, Reason
from marketfetch.values.http import Response
from marketfetch.values.pages import Batch, Page
from marketfetch.values.slices import Slice
from marketfetch.values.spans import SpanSet
from marketfetch.values.times import Clock

__all__ = ["FetchWorkers"]


@attrs.frozen(eq=False)
class FetchWorkers:
    """Fetches what is missing, with `concurrency` workers for each limit pool."""

    executor: RequestExecutor
    writers: WriterPool
    state: RunState
    row_budget: RowBudget
    sizing: BatchSizing
    now: Clock
    """The moment up to which rows count as closed (as the run decides), UTC milliseconds."""
    bounds: HistoryBounds
    refresher: CoverageRefresher | None = None
    """Reads what other processes have stored; None if they cannot see the store."""
    capacity: Callable[[], Capacity] | None = None
    """Returns the capacity for which page sizes are chosen; None to keep those of the tasks."""
    adjust: Callable[[Slice, Page, PageOutcome], PageOutcome] | None = None
    """Changes the outcome of a page before it is recorded: follow mode holds coverage back."""

    async def run(self, tasks: Sequence[FetchTask], share: float = 0.0) -> None:
        """Fetch the tasks of one round and submit all their batches to the writers.

        `share` is the number of egresses for which the page sizes of the tasks were chosen.
        Each limit pool has its own workers, so that a pool that is out of budget does not delay the others.
        """
        settings, tasks_by_pool = self.executor.settings, self._by_pool(tasks)
        # The pages in flight fit into memory beside what each writer has: one batch, or one transaction that
        # is written and one that is gathered. While the writers keep up, no request waits for memory.
        in_flight = settings.concurrency * sum(max(task.page_size for task in each) for each in tasks_by_pool)
        rows = self.sizing.rows
        for_writer = max(rows, 2 * self.writers.transaction_rows)
        self.row_budget.resize(max(in_flight, rows) + for_writer * len(self.writers))
        async with anyio.create_task_group() as group:
            for each in tasks_by_pool:
                group.start_soon(self._run_pool, each, share)

    def _by_pool(self, tasks: Sequence[FetchTask]) -> Sequence[list[FetchTask]]:
        pools: dict[str, list[FetchTask]] = {}
        for task in tasks:
            cost = self.executor.exchange.endpoint(task.series.dataset).cost(task.page_size)
            pools.setdefault(cost.pool.name, []).append(task)
        return list(pools.values())

    async def _run_pool(self, tasks: Sequence[FetchTask], share: float) -> None:
        builder = BatchBuilder(self.sizing.rows, self.row_budget)
        order = SharedOrder(shares=len(self.writers))  # each series has one writer
        plans = BatchPlans(
            tasks,
            self.sizing,
            self.state.series,
            self.refresher,
            order,
            self.row_budget,
            self._page_sizes(tasks, share),
        )
        queue = WorkQueue(plans.next, builder)
        async with anyio.create_task_group() as group:
            for _ in range(self.executor.settings.concurrency):
                group.start_soon(self._work, queue, builder)

    def _page_sizes(self, tasks: Sequence[FetchTask], share: float) -> PageSizes:
        if (capacity := self.capacity) is None:
            return PageSizes()
        states = [self.state.series[task.series] for task in tasks]
        exchange = self.executor.exchange
        return PageSizes(lambda: capacity().egresses, lambda: plan_tasks(states, exchange, capacity()), share)

    async def _work(self, queue: WorkQueue, builder: BatchBuilder) -> None:
        """Take one slice after another. Fetch each slice, and the slices that its pages leave over."""
        while (part := await queue.get()) is not None:
            pending, guard = [part], ProgressGuard()
            async with self.bounds.turns.turn(self.state.series[part.series], part):
                while pending:
                    batch, remaining = await self._process_slice(pending.pop(), guard, builder)
                    pending += remaining
                    await self._submit(batch)
            await self._submit(builder.finish(part))

    async def _submit(self, batch: Batch | None) -> None:
        if batch is not None:
            await self.writers.submit(batch)

    async def _process_slice(
        self, part: Slice, guard: ProgressGuard, builder: BatchBuilder
    ) -> tuple[Batch | None, Sequence[Slice]]:
        """Request one slice; return a batch if one became ready, and the slices that are left over.

        1. The series was stopped, another process has stored the slice, the exchange no longer serves it, or
           it is known to be empty: no request.
        2. A refused location, or no egress left: the error ends the run.
        3. Any other error concerns this slice or its series: it is noted, and the other slices go on.
        4. A page arrives: the state notes what the page proves, and the batch builder gets the rows.
        """
        state = self.state.series[part.series]
        endpoint = self.executor.exchange.endpoint(part.series.dataset)
        if state.terminal_error is not None:
            return None, ()
        unstored = await self._unstored(state, endpoint, part)
        reachable = None if unstored is None else clip_to_retention(state, endpoint, unstored, self.now())
        left = None if reachable is None else await self.bounds.cross(state, reachable)
        if left is None:
            return None, ()
        part = left
        try:
            page = await self._fetch_page(endpoint, part)
            # Only now: a page of another slice may have refuted a file meanwhile.
            part = _with_denials(state, part)
            outcome = defer_recent_absence(endpoint.paginator.outcome(part, page), part.series, self.now())
            guard.observe(outcome)
            outcome = defer_unproven_absence(state, endpoint, page, outcome, self.now())
        except RestrictedLocation:
            raise
        except BadSymbol as error:
            state.refuse_symbol(str(error))
            return None, ()
        except BadRequest as error:
            state.record_rejection(SpanSet.of(part.span), f"{type(error).__name__}: {error}")
            return None, ()
        except (FetchError, PaginationError) as error:
            if isinstance(error, FetchError) and error.egress is None:
                raise  # no egress is left, for any slice
            reason = Reason(MissingReason.REQUEST_FAILED, f"{type(error).__name__}: {error}")
            state.give_up(SpanSet.of(part.span), reason)
            return None, ()
        if self.executor.settings.unusable == "store":
            page, outcome = store_unusable(page, outcome, part.series.interval)
        if self.adjust is not None:
            outcome = self.adjust(part, page, outcome)
        state.record_page(page, outcome)
        return builder.add(part, page, outcome), outcome.remaining

    async def _unstored(self, state: SeriesState, endpoint: Endpoint, part: Slice) -> Slice | None:
        """Return what others have not stored of a slice; in a chain, the store is read before each page."""
        if self.refresher is None:
            return part
        if endpoint.paginator.sequential and self.refresher.is_shared:
            await self.refresher.refresh()
        return unstored_part(state, part) if part.series in self.refresher.others else part

    async def _fetch_page(self, endpoint: Endpoint, part: Slice) -> Page:
        def read(response: Response) -> Page:
            return validate_page(self.executor.exchange.decoded(response.body, part), part)

        request = endpoint.request(part)
        page, measures = await self.executor.send_measured(request, read, series=part.series)
        egress, rows = measures.egress, len(page.columns)
        self.state.rows_by_egress[egress] += rows
        event = measures.event(
            PageFetched, series=part.series, egress=egress, rows=rows, rejected=page.rejected
        )
        self.executor.emit(event)
        return page


def _with_denials(state: SeriesState, part: Slice) -> Slice:
    """Return a slice that knows which of its moments a file denies."""
    denied = state.denied_once(part.span)
    return attrs.evolve(part, absent_once=part.absent_once | denied) if denied else part
