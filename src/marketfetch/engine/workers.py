"""Filling gaps: slices are handed out to workers, each sees its slice through, pages become batches."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import attrs

from marketfetch.planning.paginators import Headway
from marketfetch.planning.batches import Gap, Portions, plan
from marketfetch.decoding.validation import inspect
from marketfetch.planning.unusable_rows import store_unusable
from marketfetch.engine.state import Books
from marketfetch.engine.row_budget import Allowance
from marketfetch.engine.requester import Asker
from marketfetch.engine.batch_builder import Gatherer
from marketfetch.engine.work_queue import Handout
from marketfetch.engine.writers import Lanes
from marketfetch.engine.missing import hold_back, set_aside, within_reach
from marketfetch.errors import BadRequest, BadSymbol, FetchError, PaginationError, RestrictedLocation
from marketfetch.events import PageFetched
from marketfetch.values.http import Response
from marketfetch.values.pages import Batch, Page
from marketfetch.values.series import Slice
from marketfetch.values.spans import SpanSet
from marketfetch.values.times import Clock

__all__ = ["Filling"]


@attrs.frozen(eq=False)
class Filling:
    """Fetches what is missing, as many pages side by side as there may be requests in flight."""

    asker: Asker
    lanes: Lanes
    books: Books
    allowance: Allowance
    portions: Portions
    now: Clock
    """The server's time, UTC milliseconds."""

    async def fill(self, gaps: Sequence[Gap]) -> None:
        """Fetch one round's gaps and hand all batches over to the lanes.

        Each limit pool has workers of its own: those who wait for a slow one do not keep a fast one idle.
        """
        settings, pools = self.asker.settings, self._by_pool(gaps)
        # What is in flight, and one more batch, must fit beside those that are being written, or requests
        # would wait for the store.
        in_flight = settings.concurrency * sum(max(gap.page_size for gap in some) for some in pools)
        rows = self.portions.rows
        self.allowance.limit = max(in_flight, rows) + rows * len(self.lanes)
        async with anyio.create_task_group() as group:
            for some in pools:
                group.start_soon(self._fill_from_one_pool, some)

    def _by_pool(self, gaps: Sequence[Gap]) -> Sequence[list[Gap]]:
        pools: dict[str, list[Gap]] = {}
        for gap in gaps:
            cost = self.asker.exchange.endpoint(gap.series.dataset).cost(gap.page_size)
            pools.setdefault(cost.pool.name, []).append(gap)
        return list(pools.values())

    async def _fill_from_one_pool(self, gaps: Sequence[Gap]) -> None:
        gatherer = Gatherer(self.portions.rows)
        handout = Handout(plan(gaps, self.portions), gatherer, self.allowance)
        async with anyio.create_task_group() as group:
            for _ in range(self.asker.settings.concurrency):
                group.start_soon(self._work, handout, gatherer)

    async def _work(self, handout: Handout, gatherer: Gatherer) -> None:
        """Take a slice, see it through with everything it leaves over, take the next."""
        while (part := await handout.take()) is not None:
            pending, headway = [part], Headway()
            while pending:
                batch, left = await self._see_to(pending.pop(), headway, gatherer)
                pending += left
                await self._put(batch)
            batch, rows = gatherer.finish(part)
            self.allowance.give_back(rows)
            await self._put(batch)

    async def _put(self, batch: Batch | None) -> None:
        """Hand a batch over; its rows are held until it is durable."""
        if batch is not None:
            self.allowance.held += batch.rows
            await self.lanes.put(batch)

    async def _see_to(
        self, part: Slice, headway: Headway, gatherer: Gatherer
    ) -> tuple[Batch | None, Sequence[Slice]]:
        """Ask for one slice; returns a batch if one became ready, and the slices it leaves over."""
        account = self.books.accounts[part.series]
        endpoint = self.asker.exchange.endpoint(part.series.dataset)
        if account.failed is not None:
            return None, ()
        reachable = within_reach(account, endpoint, part, self.now())
        if reachable is None:
            return None, ()
        part = reachable
        try:
            page = await self._page(part)
            settlement = hold_back(endpoint.paginator.settle(part, page), part.series, self.now())
            headway.note(settlement)
            settlement = set_aside(account, endpoint, page, settlement, self.now())
        except RestrictedLocation:
            raise
        except BadSymbol as error:
            account.failed = str(error)
            return None, ()
        except BadRequest as error:
            account.refuse(SpanSet.of(part.span), f"{type(error).__name__}: {error}")
            return None, ()
        except (FetchError, PaginationError) as error:
            if isinstance(error, FetchError) and error.egress is None:
                raise  # there is none left to ask through, for no slice
            account.lose(SpanSet.of(part.span), f"{type(error).__name__}: {error}")
            return None, ()
        if self.asker.settings.unusable == "store":
            page, settlement = store_unusable(page, settlement, part.series.interval)
        account.settle(page, settlement)
        return gatherer.add(part, page, settlement), settlement.remaining

    async def _page(self, part: Slice) -> Page:
        endpoint = self.asker.exchange.endpoint(part.series.dataset)

        def read(response: Response) -> Page:
            return inspect(self.asker.exchange.decoded(response.body, part), part)

        page, egress = await self.asker.ask(endpoint.request(part), read)
        rows = len(page.columns)
        self.books.rows_by_egress[egress] += rows
        self.asker.emit(PageFetched(part.series, egress, rows, page.rejected))
        return page
