"""Work queue, memory limit, cooperative yield, and the size of batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import numpy as np
import pytest
from anyio.lowlevel import checkpoint

from marketfetch.engine.pages.batch_builder import BatchBuilder, RowBudget, WorkQueue
from marketfetch.engine.requester import LoopYielder
from marketfetch.events import BatchWritten
from marketfetch.planning.batches import DEFAULT_BATCH_ROWS, BatchPlan
from marketfetch.protocols import Writer
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.values.pages import Batch
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span
from tests.support.batches import candles, one_by_one
from tests.support.worlds import World, run


async def test_other_tasks_run_between_two_yields() -> None:
    yielder, turns, seen = LoopYielder(seconds=0.0), 0, list[int]()

    async def somebody_else() -> None:
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    async def page() -> None:
        await yielder.maybe_yield()
        seen.append(turns)

    async with anyio.create_task_group() as group:
        group.start_soon(somebody_else)
        async with anyio.create_task_group() as pages:
            for _ in range(20):
                pages.start_soon(page)
        group.cancel_scope.cancel()
    assert len(set(seen)) == 20


def batch_plans(*sizes: int) -> Iterator[BatchPlan]:
    """Plans of so many slices of one row each."""
    series, minute = candles(), 60_000
    for number, size in enumerate(sizes):
        spans = [Span(minute * at, minute * (at + 1)) for at in range(size)]
        yield BatchPlan(number, series, tuple(Slice(series, span, 1, batch_plan=number) for span in spans))


async def test_slices_come_in_order_and_plans_without_slices_are_skipped() -> None:
    queue = WorkQueue(one_by_one(batch_plans(0, 3, 0, 0, 2, 0)), BatchBuilder(10, RowBudget(100)))
    taken = [part async for part in _all(queue)]
    assert [(part.batch_plan, part.span.start) for part in taken] == [
        (1, 0),
        (1, 60_000),
        (1, 120_000),
        (4, 0),
        (4, 60_000),
    ]


async def test_no_plan_begins_before_there_is_room_for_its_rows() -> None:
    row_budget = RowBudget(3)
    builder = BatchBuilder(10, row_budget)
    queue = WorkQueue(one_by_one(batch_plans(3, 3)), builder)
    taken = [await queue.get() for _ in range(3)]
    with anyio.move_on_after(0.01) as waited:
        await queue.get()
    assert waited.cancelled_caught
    for part in taken:
        assert part is not None
        assert builder.finish(part) is None
    with anyio.fail_after(20):
        assert await queue.get() is not None


async def _all(queue: WorkQueue) -> AsyncIterator[Slice]:
    while (part := await queue.get()) is not None:
        yield part


def test_a_partition_is_written_once_and_other_sinks_get_batches_of_their_size(tmp_path: Path) -> None:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"]), SimulatorOptions(limits=None)) as exchange:
        parquet, memory = World(exchange, "binance-spot"), World(exchange, "binance-spot")
        run(parquet.pipeline(ParquetSink(tmp_path / "store"), start="2026-03-20", end="2026-06-10"))
        run(memory.pipeline(MemorySink(), start="2026-03-20", end="2026-06-10"))
    months = [
        np.datetime64(int(event.batch.columns.times[0]), "ms").astype("datetime64[M]")
        for event in parquet.events_of(BatchWritten)
    ]
    assert sorted(map(str, months)) == ["2026-03", "2026-04", "2026-05", "2026-06"]
    assert max(event.batch.rows for event in memory.events_of(BatchWritten)) == DEFAULT_BATCH_ROWS


class Ending(MemorySink):
    """A sink whose writer raises EndOfStream, as the end of a queue does."""

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        def write(batch: Batch) -> None:
            raise anyio.EndOfStream

        yield write


def test_an_end_of_stream_that_a_writer_raises_is_an_error() -> None:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange, pytest.raises(anyio.EndOfStream):
        run(World(exchange).pipeline(Ending(), end="2026-06-20"))
