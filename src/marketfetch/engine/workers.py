"""Filling gaps: slices are handed out to workers, each sees its slice through, pages become batches."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import attrs

from marketfetch.decoding.validation import validate_page
from marketfetch.engine.batch_builder import BatchBuilder, RowBudget, WorkQueue
from marketfetch.engine.missing import clip_to_retention, defer_recent_absence, doubt_absence_before_first_row
from marketfetch.engine.requester import RequestExecutor
from marketfetch.engine.state import RunState
from marketfetch.engine.writers import WriterPool
from marketfetch.errors import BadRequest, BadSymbol, FetchError, PaginationError, RestrictedLocation
from marketfetch.events import PageFetched
from marketfetch.planning.batches import BatchSizing, FetchTask, plan_batches
from marketfetch.planning.paginators import ProgressGuard
from marketfetch.planning.unusable_rows import store_unusable
from marketfetch.values.http import Response
from marketfetch.values.pages import Batch, Page
from marketfetch.values.slices import Slice
from marketfetch.values.spans import SpanSet
from marketfetch.values.times import Clock

__all__ = ["FetchWorkers"]


@attrs.frozen(eq=False)
class FetchWorkers:
    """Fetches what is missing, as many pages side by side as there may be requests in flight."""

    executor: RequestExecutor
    writers: WriterPool
    state: RunState
    row_budget: RowBudget
    sizing: BatchSizing
    now: Clock
    """The server's time, UTC milliseconds."""

    async def run(self, tasks: Sequence[FetchTask]) -> None:
        """Fetch one round's gaps and hand all batches over to the lanes.

        Each limit pool has workers of its own: those who wait for a slow one do not keep a fast one idle.
        """
        settings, pools = self.executor.settings, self._by_pool(tasks)
        # What is in flight, and one more batch, must fit beside those that are being written, or requests
        # would wait for the store.
        in_flight = settings.concurrency * sum(max(task.page_size for task in some) for some in pools)
        rows = self.sizing.rows
        self.row_budget.limit = max(in_flight, rows) + rows * len(self.writers)
        async with anyio.create_task_group() as group:
            for some in pools:
                group.start_soon(self._run_pool, some)

    def _by_pool(self, tasks: Sequence[FetchTask]) -> Sequence[list[FetchTask]]:
        pools: dict[str, list[FetchTask]] = {}
        for task in tasks:
            cost = self.executor.exchange.endpoint(task.series.dataset).cost(task.page_size)
            pools.setdefault(cost.pool.name, []).append(task)
        return list(pools.values())

    async def _run_pool(self, tasks: Sequence[FetchTask]) -> None:
        builder = BatchBuilder(self.sizing.rows)
        queue = WorkQueue(plan_batches(tasks, self.sizing), builder, self.row_budget)
        async with anyio.create_task_group() as group:
            for _ in range(self.executor.settings.concurrency):
                group.start_soon(self._work, queue, builder)

    async def _work(self, queue: WorkQueue, builder: BatchBuilder) -> None:
        """Take a slice, see it through with everything it leaves over, take the next."""
        while (part := await queue.get()) is not None:
            pending, guard = [part], ProgressGuard()
            while pending:
                batch, left = await self._process_slice(pending.pop(), guard, builder)
                pending += left
                await self._submit(batch)
            batch, rows = builder.finish(part)
            self.row_budget.release(rows)
            await self._submit(batch)

    async def _submit(self, batch: Batch | None) -> None:
        """Hand a batch over; its rows are held until it is durable."""
        if batch is not None:
            self.row_budget.in_use += batch.rows
            await self.writers.submit(batch)

    async def _process_slice(
        self, part: Slice, guard: ProgressGuard, builder: BatchBuilder
    ) -> tuple[Batch | None, Sequence[Slice]]:
        """Ask for one slice; returns a batch if one became ready, and the slices it leaves over."""
        state = self.state.series[part.series]
        endpoint = self.executor.exchange.endpoint(part.series.dataset)
        if state.terminal_error is not None:
            return None, ()
        reachable = clip_to_retention(state, endpoint, part, self.now())
        if reachable is None:
            return None, ()
        part = reachable
        try:
            page = await self._fetch_page(part)
            outcome = defer_recent_absence(endpoint.paginator.outcome(part, page), part.series, self.now())
            guard.observe(outcome)
            outcome = doubt_absence_before_first_row(state, endpoint, page, outcome, self.now())
        except RestrictedLocation:
            raise
        except BadSymbol as error:
            state.terminal_error = str(error)
            return None, ()
        except BadRequest as error:
            state.record_rejection(SpanSet.of(part.span), f"{type(error).__name__}: {error}")
            return None, ()
        except (FetchError, PaginationError) as error:
            if isinstance(error, FetchError) and error.egress is None:
                raise  # there is none left to ask through, for no slice
            state.give_up(SpanSet.of(part.span), f"{type(error).__name__}: {error}")
            return None, ()
        if self.executor.settings.unusable == "store":
            page, outcome = store_unusable(page, outcome, part.series.interval)
        state.record_page(page, outcome)
        return builder.add(part, page, outcome), outcome.remaining

    async def _fetch_page(self, part: Slice) -> Page:
        endpoint = self.executor.exchange.endpoint(part.series.dataset)

        def read(response: Response) -> Page:
            return validate_page(self.executor.exchange.decoded(response.body, part), part)

        page, egress = await self.executor.send(endpoint.request(part), read)
        rows = len(page.columns)
        self.state.rows_by_egress[egress] += rows
        self.executor.emit(PageFetched(part.series, egress, rows, page.rejected))
        return page
