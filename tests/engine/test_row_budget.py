"""The memory limit counts every row that is held, and is back at zero after every run, however it ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import anyio.lowlevel
import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.api.pipeline import Pipeline
from marketfetch.engine.pages.batch_builder import BatchBuilder, RowBudget, WorkQueue
from marketfetch.engine.run import Run
from marketfetch.errors import MarketfetchError, RowsRefused, SinkError
from marketfetch.events import BatchWritten, Event
from marketfetch.planning.batches import BatchPlan
from marketfetch.protocols import PageOutcome, Writer
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import FaultKind, Faults, GeneratedMarket, SimulatedExchange
from marketfetch.values.instruments import Composite
from marketfetch.values.pages import Batch, Columns, Page
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import candles, one_by_one
from tests.support.worlds import MINUTE, World

SERIES = candles()
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
SETTINGS = Settings(concurrency=4, batch_rows=500, retries=RetryPolicy(attempts=2, initial=0.01, cap=0.02))


def page_of(rows: int) -> tuple[Page, PageOutcome]:
    times = np.arange(rows) * MINUTE
    columns = Columns(times, np.ones((len(SERIES.dataset.columns), rows)))
    return Page(columns), PageOutcome(SpanSet.of(Span(0, max(1, rows) * MINUTE)))


def plans_of(sizes: list[list[int]]) -> Iterator[BatchPlan]:
    for number, expected in enumerate(sizes):
        spans = (Span(0, rows * MINUTE) for rows in expected)
        slices = tuple(
            Slice(SERIES, span, rows, batch_plan=number) for span, rows in zip(spans, expected, strict=True)
        )
        yield BatchPlan(number, SERIES, slices)


def split(budget: RowBudget, batch: Batch | None) -> tuple[Batch, ...]:
    """Split a large batch, as a writer does."""
    if batch is None or batch.rows <= 5:
        return (batch,) if batch else ()
    parts = batch.split(5)
    budget.split(batch, parts)
    budget.release(batch)  # changes nothing any more
    return parts


@given(
    sizes=st.lists(st.lists(st.integers(1, 30), max_size=4), max_size=6),
    pages=st.lists(st.integers(0, 60), min_size=1, max_size=12),
    limit=st.integers(1, 40),
    workers=st.integers(1, 4),
)
def test_every_row_that_is_held_is_released_once(
    sizes: list[list[int]], pages: list[int], limit: int, workers: int
) -> None:
    """Chains may be longer than planned, slices may have no row, and a plan may exceed the limit."""
    budget = RowBudget(limit)
    builder = BatchBuilder(10, budget)
    queue = WorkQueue(one_by_one(plans_of(sizes)), builder)
    planned, held, finished = dict[int, int](), dict[Batch, int](), [0] * len(sizes)

    def check() -> None:
        assert budget.in_use == sum(planned.values()) + sum(held.values())

    async def write(batch: Batch | None) -> None:
        parts = split(budget, batch)
        held.update((part, part.rows) for part in parts)
        for part in parts:
            check()
            await anyio.lowlevel.checkpoint()
            del held[part]
            budget.release(part)
            budget.release(part)  # a second report, as of a thread that was left behind, changes nothing

    async def work() -> None:
        while (part := await queue.get()) is not None:
            planned[part.batch_plan] = sum(sizes[part.batch_plan])
            for rows in pages:
                await write(builder.add(part, *page_of(rows)))
            batch = builder.finish(part)
            finished[part.batch_plan] += 1
            if finished[part.batch_plan] == len(sizes[part.batch_plan]):
                del planned[part.batch_plan]
            await write(batch)

    async def main() -> None:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                for _ in range(workers):
                    group.start_soon(work)

    anyio.run(main)
    assert finished == [len(each) for each in sizes]
    assert budget.in_use == 0


class RefusingSink(MemorySink):
    """Raises an error for every batch of one symbol."""

    def __init__(self, symbol: str, error: Exception) -> None:
        super().__init__()
        self._symbol, self._error = symbol, error

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        with super().writer() as write:

            def write_or_raise(batch: Batch) -> None:
                if batch.series.symbol == self._symbol:
                    raise self._error
                write(batch)

            yield write_or_raise


@attrs.frozen
class Ending:
    """A way in which a run ends."""

    store: MemorySink
    fault: FaultKind | None = None
    composite: bool = False
    cancelled: bool = False


ENDINGS = {
    "complete": lambda: Ending(MemorySink()),
    "with composites": lambda: Ending(MemorySink(), composite=True),
    "with a refused series": lambda: Ending(RefusingSink("ETHUSDT", RowsRefused("too large"))),
    "with a refused composite": lambda: Ending(RefusingSink("MT", RowsRefused("too large")), composite=True),
    "failed by the store": lambda: Ending(RefusingSink("ETHUSDT", SinkError("no permission"))),
    "failed by a refused location": lambda: Ending(MemorySink(), FaultKind.STATUS_451),
    "incomplete": lambda: Ending(MemorySink(), FaultKind.STATUS_503),
    "cancelled": lambda: Ending(MemorySink(), cancelled=True),
}


def _in_use(pipeline: Pipeline) -> int:
    run = pipeline._last
    assert isinstance(run, Run)
    return run._row_budget.in_use


@pytest.mark.parametrize("name", ENDINGS)
def test_no_row_is_held_after_a_run(name: str) -> None:
    ending, scopes = ENDINGS[name](), list[anyio.CancelScope]()
    faults = (
        Faults(rate=0.5, kinds=[ending.fault], paths=["/fapi/v1/klines"], times=99) if ending.fault else None
    )
    seen: list[int] = []

    def listen(event: Event) -> None:
        seen.append(_in_use(pipeline))
        if ending.cancelled and isinstance(event, BatchWritten):
            scopes[0].cancel()

    with SimulatedExchange(GeneratedMarket(SYMBOLS, seed=5)) as exchange:
        exchange.faults = faults
        world = World(exchange, settings=SETTINGS, listeners=[listen])
        composites = [Composite("MT", tuple(SYMBOLS))] if ending.composite else []
        pipeline: Pipeline = world.pipeline(
            ending.store, symbols=SYMBOLS, composites=composites, end="2026-06-04"
        )

        async def work() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await pipeline

        try:
            anyio.run(work)
        except MarketfetchError:
            assert name.startswith("failed")
    assert scopes[0].cancelled_caught == ending.cancelled
    assert max(seen) > 0
    assert min(seen) >= 0
    assert _in_use(pipeline) == 0


def test_drain_waits_until_nothing_is_held() -> None:
    async def work() -> list[str]:
        budget, order = RowBudget(limit=10), list[str]()
        budget.hold("a batch", 4)

        async def drain() -> None:
            await budget.drain()
            order.append("drained")

        async with anyio.create_task_group() as group:
            group.start_soon(drain)
            await anyio.wait_all_tasks_blocked()
            order.append("durable")
            budget.release("a batch")
        assert budget.in_use == 0
        return order

    assert anyio.run(work) == ["durable", "drained"]
