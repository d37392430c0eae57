"""Two writers of a DuckDB file, whose transactions run side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from time import monotonic, sleep
from typing import Any
from unittest.mock import patch

import anyio
import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfetch.engine.blocking import StoreRetrier
from marketfetch.engine.writers import OnWritten, open_writers
from marketfetch.errors import RowsRefused
from marketfetch.sinks.duckdb import shared_connection
from marketfetch.sinks.duckdb.errors import OutOfMemory
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch
from marketfetch.values.settings import RetryPolicy
from tests.support.batches import EVER, assert_alike, batch, candles

OHLCV = Dataset.parse("ohlcv")
PATIENCE = 60
"""Seconds after which a thread that waits for another one hangs."""
SERIES = [candles(name) for name in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")]
FIRST, SECOND = [SERIES[0], SERIES[1]], [SERIES[2], SERIES[3]]
GROUPS = st.lists(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 300), st.integers(1, 120)), min_size=1, max_size=4),
    min_size=1,
    max_size=3,
)
"""Groups of batches: which of two series, its first minute, and how many rows it has."""


@pytest.fixture(autouse=True, scope="module")
def patient() -> Iterator[None]:
    """Nobody tries again here, as a run does, where the other thread takes more than 2 s."""
    with patch.object(shared_connection, "LOCK_TIMEOUT", PATIENCE):
        yield


def new_store(folder: Path, **options: Any) -> DuckDBSink:
    store = DuckDBSink(folder / "market.duckdb", **options)
    store.prepare([OHLCV])
    return store


@pytest.fixture
def store(tmp_path: Path) -> DuckDBSink:
    return new_store(tmp_path)


@contextmanager
def before_each_transaction(do: Callable[[Sequence[Batch]], None]) -> Iterator[None]:
    """Call a function inside each transaction, before anything is written."""
    write = DuckDBSink._write

    def patched(store: DuckDBSink, connection: Any, batches: Sequence[Batch]) -> None:
        do(batches)
        write(store, connection, batches)

    with patch.object(DuckDBSink, "_write", patched):
        yield


def write_side_by_side(store: DuckDBSink, *groups: Sequence[Sequence[Batch]]) -> None:
    """Write each list of groups in its order, on a thread of its own."""

    def write(some: Sequence[Sequence[Batch]]) -> None:
        with store.group_writer() as take:
            for each in some:
                take(each)

    with ThreadPoolExecutor(len(groups)) as threads:
        for written in [threads.submit(write, some) for some in groups]:
            written.result()


def rows_of(store: DuckDBSink) -> list[int]:
    return [len(store.read(one, EVER)) for one in SERIES]


def wait_until(condition: Callable[[], object]) -> None:
    give_up = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < give_up
        sleep(0.001)


def four_rows(series: Sequence[Any]) -> list[Batch]:
    return [batch(one, range(4), open=1.0) for one in series]


@pytest.mark.slow
@settings(max_examples=15)
@given(GROUPS, GROUPS)
def test_what_two_threads_write_is_what_one_writes_batch_by_batch(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[list[tuple[int, int, int]]],
    second: list[list[tuple[int, int, int]]],
) -> None:
    store, expected = new_store(tmp_path_factory.mktemp("market")), MemorySink()
    expected.prepare([OHLCV])
    groups = [
        [
            [
                batch(series[which], range(start, start + rows), open=float(number))
                for which, start, rows in each
            ]
            for number, each in enumerate(some)
        ]
        for series, some in ((FIRST, first), (SECOND, second))
    ]
    write_side_by_side(store, *groups)
    with expected.writer() as take:
        for one in (one for some in groups for each in some for one in each):
            take(one)
    for series in SERIES:
        assert_alike(store, expected, series)
    with duckdb.connect(store.path) as connection:
        ((rows, keys),) = connection.execute(
            "SELECT count(*), count(DISTINCT (symbol, open_time)) FROM ohlcv"
        ).fetchall()
        ((series_held, ids),) = connection.execute(
            "SELECT count(*), count(DISTINCT id) FROM marketfetch_series"
        ).fetchall()
    assert rows == keys
    assert series_held == ids == len(expected.ledger())


def test_two_transactions_run_side_by_side(store: DuckDBSink) -> None:
    both = Barrier(2)

    def meet(_: Sequence[Batch]) -> None:
        both.wait(PATIENCE)

    with before_each_transaction(meet):
        write_side_by_side(store, [four_rows(FIRST)] * 3, [four_rows(SECOND)] * 3)
    assert rows_of(store) == [4] * 4


def narrow(folder: Path) -> DuckDBSink:
    return new_store(folder, memory_limit="40MB")


def mapped(folder: Path) -> DuckDBSink:
    with duckdb.connect(folder / "market.duckdb") as connection:
        connection.execute("CREATE TABLE mine (symbol VARCHAR, open_time TIMESTAMP, o DOUBLE)")
    mapping = TableMapping("mine", symbol="symbol", time="open_time", columns={"ohlcv": {"open": "o"}})
    return new_store(folder, table=mapping)


@pytest.mark.parametrize(
    ("make", "second"),
    [(new_store, [SERIES[3], SERIES[1]]), (narrow, SECOND), (mapped, SECOND)],
    ids=["a series in common", "a memory limit without room for two", "a table of yours"],
)
def test_transactions_that_would_not_fit_together_run_in_turn(
    tmp_path: Path, make: Callable[[Path], DuckDBSink], second: list[Any]
) -> None:
    store, seen = make(tmp_path), list[Sequence[Batch]]()
    shared = store._shared()  # kept: the registry of stores is weak

    def see_the_other_wait(batches: Sequence[Batch]) -> None:
        if not seen:
            seen.append(batches)
            wait_until(lambda: shared.connections._waiting)

    with before_each_transaction(see_the_other_wait):
        write_side_by_side(store, [four_rows(FIRST)], [four_rows(second)])
    assert rows_of(store) == [4 * (one in {*FIRST, *second}) for one in SERIES]


def test_a_transaction_without_memory_is_written_alone(store: DuckDBSink) -> None:
    both, failed = Barrier(2), list[Sequence[Batch]]()

    def fail_once(batches: Sequence[Batch]) -> None:
        if batches[0].series in FIRST and not failed:
            failed.append(batches)
            both.wait(PATIENCE)
            raise OutOfMemory("no room for two")
        if batches[0].series in SECOND:
            both.wait(PATIENCE)

    with before_each_transaction(fail_once):
        write_side_by_side(store, [four_rows(FIRST)], [four_rows(SECOND)])
    assert failed
    assert rows_of(store) == [4] * 4


def test_a_run_writes_whole_row_groups(store: DuckDBSink) -> None:
    """Batches of sixteen pages of 1,500 rows: five of them are just below a row group, six above."""
    batches = [batch(one, range(start, start + 24_000)) for start in (0, 24_000, 48_000) for one in SERIES]
    written: list[int] = []
    parts: list[tuple[Batch, Batch]] = []

    def durable(one: Batch) -> None:
        assert one.rows

    def refused(one: Batch, error: RowsRefused) -> None:
        raise AssertionError(one.series) from error

    async def deliver(one: Batch) -> None:
        assert one.rows

    def split(_: Batch, some: tuple[Batch, Batch]) -> None:
        parts.append(some)

    async def run() -> None:
        retrier = StoreRetrier(RetryPolicy(), lambda _: None)
        async with open_writers(store, retrier, OnWritten(durable, refused, deliver, split)) as writers:
            assert len(writers) == 2
            for one in batches:
                await writers.submit(one)

    with before_each_transaction(lambda group: written.append(sum(one.rows for one in group))):
        anyio.run(run)
    assert sum(written) == 288_000
    assert max(written) == store.transaction_rows
    assert len(parts) >= 2
    assert rows_of(store) == [72_000] * 4
    assert all(store.coverage([one])[one].covered.length == 72_000 * 60_000 for one in SERIES)


@pytest.mark.slow
def test_the_log_does_not_grow_while_two_threads_write_less_than_row_groups(store: DuckDBSink) -> None:
    """DuckDB empties it, at 16 MiB, only in a commit beside which no other transaction runs."""
    lengths: list[int] = []

    def note_the_log(_: Sequence[Batch]) -> None:
        log = store.path.with_name(f"{store.path.name}.wal")
        lengths.append(log.stat().st_size if log.exists() else 0)

    def groups(series: Any) -> list[list[Batch]]:
        starts = range(0, 480_000, 24_000)
        return [[batch(series, range(start, start + 24_000), open=np.arange(24_000.0))] for start in starts]

    with before_each_transaction(note_the_log):
        write_side_by_side(store, groups(SERIES[0]), groups(SERIES[1]))
    assert rows_of(store) == [480_000, 480_000, 0, 0]
    assert max(lengths) < 2 * 2**24 < sum(lengths)
