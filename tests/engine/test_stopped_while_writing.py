"""A run that is stopped while a store commits reports everything that was committed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Any

import anyio
import pytest
from anyio import to_thread

from marketfetch.api.pipeline import Pipeline
from marketfetch.engine.blocking import StoreRetrier
from marketfetch.engine.writers import OnWritten, open_writers
from marketfetch.errors import RowsRefused
from marketfetch.protocols import GroupWriter, Store, Writer
from marketfetch.reports import Report
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.coverage import Coverage
from marketfetch.values.instruments import Composite
from marketfetch.values.pages import Batch
from marketfetch.values.settings import RetryPolicy, Settings
from tests.support.batches import EVER, batch, candles, not_split
from tests.support.worlds import World

SYMBOLS = ["BTCUSDT", "ETHUSDT"]


class Slow(MemorySink):
    """A store that commits the batches of some symbols when it may, and shows that it is about to."""

    def __init__(self, *symbols: str) -> None:
        super().__init__()
        self.begun, self.may_commit = Event(), Event()
        self._symbols = symbols

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        with super().writer() as write:

            def write_slowly(batch: Batch) -> None:
                if batch.series.symbol in self._symbols:
                    self.begun.set()
                    self.may_commit.wait()
                write(batch)

            yield write_slowly


class SlowGroups(Slow):
    """The same with a transaction for all batches that are ready."""

    transaction_rows = 200  # two batches

    @contextmanager
    def group_writer(self) -> Iterator[GroupWriter]:
        with self.writer() as write:

            def write_all(batches: Sequence[Batch]) -> None:
                for one in batches:
                    write(one)

            yield write_all


@pytest.fixture
def world() -> Iterator[World]:
    with SimulatedExchange(GeneratedMarket(SYMBOLS)) as exchange:
        yield World(exchange, settings=Settings(batch_rows=100))


def stop_while_committing(pipeline: Pipeline, store: Slow) -> Report:
    """Cancel a run while its store commits; the commit ends after the cancellation has begun."""

    async def main() -> None:
        task = asyncio.create_task(pipeline.run())
        await to_thread.run_sync(store.begun.wait)
        task.cancel()
        await asyncio.sleep(0.01)  # long enough for the cancellation to arrive
        store.may_commit.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    anyio.run(main)
    return pipeline.report()


def assert_reported(report: Report, store: Store) -> None:
    """Assert that the report has the rows and the coverage of the store."""
    held = store.ledger()
    assert report.rows_written == sum(len(store.read(series, EVER)) for series in held) > 0
    for line in report.series:
        assert line.covered == held.get(line.series, Coverage()).covered
    assert not report.complete


@pytest.mark.parametrize("kind", [Slow, SlowGroups])
def test_a_batch_that_is_committed_while_the_run_is_stopped_is_reported(
    world: World, kind: type[Slow]
) -> None:
    store = kind(*SYMBOLS)
    assert_reported(stop_while_committing(world.pipeline(store, symbols=SYMBOLS), store), store)


def test_the_same_of_a_composite(world: World) -> None:
    store = Slow("MT")
    query: dict[str, Any] = {"symbols": SYMBOLS, "composites": [Composite("MT", SYMBOLS)]}
    assert_reported(stop_while_committing(world.pipeline(store, **query), store), store)


def test_a_transaction_is_reported_as_a_whole_though_only_a_part_was_delivered() -> None:
    """The caller leaves the loop at the first of three batches that were committed together."""
    recorded: list[Batch] = []
    store, batches = SlowGroups("A"), [batch(candles(name), range(3), open=1) for name in "ABC"]

    async def main() -> None:
        with anyio.CancelScope() as scope:

            async def deliver(_: Batch) -> None:
                scope.cancel()
                await anyio.sleep_forever()

            def refuse(one: Batch, error: RowsRefused) -> None:
                raise AssertionError(f"{one.series}: {error}")

            retrier = StoreRetrier(RetryPolicy(), lambda _: None)
            on_written = OnWritten(recorded.append, refuse, deliver, not_split)
            async with open_writers(store, retrier, on_written) as writers:
                for one in batches:
                    await writers.submit(one)
                store.may_commit.set()

    anyio.run(main)
    assert [one.series for one in recorded] == [*store.ledger()]
