"""Two writers of a Parquet store, as a run has them: each on a thread of its own, with series of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, get_ident
from unittest.mock import patch

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfetch.engine.blocking import StoreRetrier
from marketfetch.engine.writers import OnWritten, open_writers
from marketfetch.errors import RowsRefused
from marketfetch.sinks.files import atomic_files
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch
from marketfetch.values.settings import RetryPolicy
from tests.support.batches import assert_alike, batch, candles, not_split

OHLCV = Dataset.parse("ohlcv")
PATIENCE = 20
SERIES = [candles(name) for name in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")]
WEEK = 7 * 1_440
PARTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 8 * WEEK), st.integers(1, WEEK)), min_size=1, max_size=12
)
"""Batches: which of four series, its first minute, and how many rows it has."""


def new_store(folder: Path) -> ParquetSink:
    store = ParquetSink(folder)
    store.prepare([OHLCV])
    return store


def write_as_a_run(store: ParquetSink, batches: Sequence[Batch]) -> list[Batch]:
    """Write batches with the writer threads of the engine; return them in the order of their commits."""
    durable = list[Batch]()

    async def deliver(_: Batch) -> None: ...

    def refused(_: Batch, error: RowsRefused) -> None:
        raise error

    async def write() -> None:
        retrier = StoreRetrier(RetryPolicy(), lambda _: None)
        recorded = OnWritten(durable.append, refused, deliver, not_split)
        async with open_writers(store, retrier, recorded) as writers:
            for one in batches:
                await writers.submit(one)

    anyio.run(write)
    return durable


@settings(max_examples=10)
@given(PARTS)
def test_what_two_threads_write_is_what_one_writes(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, int, int]]
) -> None:
    store, expected = new_store(tmp_path_factory.mktemp("market")), MemorySink()
    expected.prepare([OHLCV])
    batches = [
        batch(SERIES[which], range(start, start + rows), open=float(number), trades=number)
        for number, (which, start, rows) in enumerate(parts)
    ]
    assert sorted(map(id, write_as_a_run(store, batches))) == sorted(map(id, batches))
    with expected.writer() as take:
        for one in batches:
            take(one)
    for series in SERIES:
        assert_alike(store, expected, series)
    assert store.ledger() == expected.ledger()


def test_a_folder_that_the_other_writer_has_just_made_is_on_the_disk_too(tmp_path: Path) -> None:
    """The first writer has made `ohlcv` and waits for a slow disk; the second one must not rely on it."""
    store = new_store(tmp_path / "market")
    made, finished = Event(), Event()
    synchronised = defaultdict[int, list[Path]](list)
    original = atomic_files._fsync_directory

    def slow(folder: Path) -> None:
        if folder == store.folder and not made.is_set():
            made.set()
            assert finished.wait(PATIENCE)
        original(folder)
        synchronised[get_ident()].append(folder)

    def write(symbol: str) -> list[Path]:
        with store.writer() as take:
            take(batch(candles(symbol), range(5), open=1.0))
        return synchronised[get_ident()]

    with patch.object(atomic_files, "_fsync_directory", slow), ThreadPoolExecutor(2) as threads:
        first = threads.submit(write, "BTCUSDT")
        assert made.wait(PATIENCE)
        try:
            second = threads.submit(write, "ETHUSDT").result(PATIENCE)
        finally:
            finished.set()
        first.result(PATIENCE)
    home = store.folder / "ohlcv" / "exchange=binance-usdm" / "symbol=ETHUSDT" / "interval=1m"
    below = [home, *home.parents]
    assert {*below[: below.index(store.folder) + 1]} <= {*second}
