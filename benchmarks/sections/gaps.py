"""The cost of gaps: a year of minutes without a candle at every second minute, in every store."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.batches import START
from benchmarks.harness.results import Result, at_most, without_bar
from benchmarks.sections.postgres import server
from marketfetch.protocols import Store, SupportsBatchSize, SupportsPartitions
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["gaps", "year"]

_SERIES = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")
_MINUTE, _MINUTES = 60_000, 525_600
_BATCH = 12_000
"""Minutes of a batch for stores without a preferred batch size."""


def gaps(rounds: int) -> Iterator[Result]:
    """Fill every store with gaps and without, in turns."""
    with server() as running:
        stores: dict[str, Callable[[], AbstractContextManager[Store]]] = {
            "PostgreSQL": partial(_postgres, running.database),
            "DuckDB": partial(_file, DuckDBSink),
            "SQLite": partial(_file, SQLiteSink),
            "Parquet": partial(_file, ParquetSink),
            "memory": lambda: nullcontext(MemorySink()),
        }
        for name, store_path in stores.items():
            found = [(_fill(store_path, step=2), _fill(store_path, step=1)) for _ in range(rounds)]
            ratio = statistics.median(gappy / whole for gappy, whole in found)
            yield at_most(f"{name}: time of a year with gaps against one without", ratio, 2, " ×")
            yield without_bar("… without", statistics.median(whole for _, whole in found), " s")


def year(store: Store, step: int) -> Iterator[Batch]:
    """Yield a year in batches: one candle every `step` minutes, and confirmed absence between them."""
    most = store.batch_rows if isinstance(store, SupportsBatchSize) else _BATCH
    start, end = START, START + _MINUTES * _MINUTE
    while start < end:
        stop = min(start + most * _MINUTE, end)
        if isinstance(store, SupportsPartitions):
            stop = min(stop, store.partition(_SERIES, start).end)
        yield _batch(np.arange(start, stop, step * _MINUTE), Span(start, stop))
        start = stop


def _batch(times: NDArray[np.int64], span: Span) -> Batch:
    values = np.linspace(1, 2, len(times)) + np.arange(len(_SERIES.dataset.columns))[:, None]
    whole = [column.integer for column in _SERIES.dataset.columns]
    values[whole] = np.floor(values[whole])
    covered = SpanSet.of(span)
    return Batch(_SERIES, Columns(times, values), Coverage(covered, covered - _SERIES.interval.cover(times)))


def _fill(store_path: Callable[[], AbstractContextManager[Store]], step: int) -> float:
    """Fill a new store; returns the seconds of all writes."""
    with store_path() as store:
        batches = list(year(store, step))
        store.prepare([_SERIES.dataset])
        began = time.perf_counter()
        with store.writer() as write:
            for batch in batches:
                write(batch)
        took = time.perf_counter() - began
        held = store.coverage([_SERIES])[_SERIES]
        if held.present.length != _MINUTES // step * _MINUTE or len(held.covered) != 1:
            raise AssertionError(f"{store} has another coverage than was written")
    return took


@contextmanager
def _file(make: Callable[[Path], Store]) -> Iterator[Store]:
    with TemporaryDirectory() as folder:
        yield make(Path(folder, "store"))


@contextmanager
def _postgres(database: Callable[[], AbstractContextManager[str]]) -> Iterator[Store]:
    with database() as dsn:
        yield PostgresSink(dsn)
