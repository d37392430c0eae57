"""The embedded stores against the fastest public way to load the same columns.

One side writes prepared batches to a sink with their coverage, by the writer threads of the engine. The other
side loads all rows at once, with the same durability, into tables or files of the same schema. The time to
make the batches and to call `prepare` is not measured.
"""

from __future__ import annotations

import gc
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import anyio
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.harness.batches import prepared
from benchmarks.harness.results import Result, at_most, without_bar
from marketfetch.engine.blocking import StoreRetrier
from marketfetch.engine.writers import OnWritten, open_writers
from marketfetch.errors import RowsRefused
from marketfetch.protocols import Store
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.merging import rows_equal
from marketfetch.sinks.parquet.series_folder import SeriesFolder
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy
from marketfetch.values.spans import Span

__all__ = ["embedded_bound"]

OHLCV = Dataset.parse("ohlcv")
EVER = Span(0, 2**53)
TOGETHER = 20  # rows of one INSERT of SQLite's: quickest of 1, 10, 20, 30, 50 and 100

Side = Callable[[Sequence[Batch], Path], float]
"""Loads batches into a new store at the path and returns the seconds."""


def duckdb_ours(batches: Sequence[Batch], store_path: Path) -> float:
    return _fed(DuckDBSink(store_path), batches)


def duckdb_public(batches: Sequence[Batch], store_path: Path) -> float:
    """One INSERT from an Arrow table, which DuckDB scans in place with all threads."""
    _number_series(DuckDBSink(store_path), batches)
    return _inserted(store_path, [_whole(batches)])


def duckdb_in_batches(batches: Sequence[Batch], store_path: Path) -> float:
    """INSERT from Arrow tables, one transaction for each batch."""
    _number_series(DuckDBSink(store_path), batches)
    series = dict.fromkeys(batch.series for batch in batches)
    ids = {one: number for number, one in enumerate(series, start=1)}
    parts = [(np.full(batch.rows, ids[batch.series], np.int32), batch.columns) for batch in batches]
    return _inserted(store_path, parts)


def _inserted(store_path: Path, parts: Sequence[tuple[NDArray[np.int32], Columns]]) -> float:
    """Insert each part (series ids and columns) in its own transaction."""
    began = time.perf_counter()
    with duckdb.connect(store_path) as connection:
        for ids, columns in parts:
            times = pa.array(columns.times).view(pa.timestamp("ms"))
            table = pa.Table.from_arrays([pa.array(ids), times, *map(pa.array, columns.values)], names=_NAMES)
            connection.register("given", table)
            connection.execute("INSERT INTO marketfetch_ohlcv SELECT * FROM given")
    return time.perf_counter() - began


def sqlite_ours(batches: Sequence[Batch], store_path: Path) -> float:
    return _fed(SQLiteSink(store_path), batches)


def sqlite_public(batches: Sequence[Batch], store_path: Path) -> float:
    """One transaction of INSERTs with 20 rows each."""
    _number_series(SQLiteSink(store_path), batches)
    ids, columns = _whole(batches)
    began = time.perf_counter()
    rows = np.column_stack([ids, columns.times, *columns.values])
    row = f"({', '.join('?' * rows.shape[1])})"
    pieces = (rows[start : start + TOGETHER] for start in range(0, len(rows), TOGETHER))
    with closing(sqlite3.connect(store_path)) as connection, connection:
        for count, alike in groupby(pieces, len):
            insert = f"INSERT INTO marketfetch_ohlcv VALUES {', '.join([row] * count)}"
            connection.executemany(insert, (piece.ravel().tolist() for piece in alike))
    return time.perf_counter() - began


def parquet_ours(batches: Sequence[Batch], store_path: Path) -> float:
    return _fed(ParquetSink(store_path), batches)


def parquet_public(batches: Sequence[Batch], store_path: Path) -> float:
    """The same files, each written at once, followed by fsync of file and folder."""
    whole = {"open_time", "trades"}
    encodings = {n: "DELTA_BINARY_PACKED" if n in whole else "PLAIN" for n in _NAMES[1:]}
    options: dict[str, Any] = {"compression": "lz4", "use_dictionary": False, "column_encoding": encodings}
    trades = OHLCV.index("trades")
    began = time.perf_counter()
    for batch in batches:
        home, columns = SeriesFolder(store_path, batch.series).path, batch.columns
        home.mkdir(parents=True, exist_ok=True)
        lines: list[NDArray[np.float64] | NDArray[np.int64]] = list(columns.values)
        lines[trades] = lines[trades].astype(np.int64)
        times = pa.array(columns.times).view(pa.timestamp("ms", "UTC"))
        table = pa.Table.from_arrays([times, *map(pa.array, lines)], names=_NAMES[1:])
        month = np.datetime64(int(columns.times[0]), "ms").astype("datetime64[M]")
        with (home / f"{month}.parquet").open("wb") as file:
            pq.write_table(table, file, **options)
            file.flush()
            os.fsync(file.fileno())
        _synchronise(home)
    return time.perf_counter() - began


def check_same(batches: Sequence[Batch], *stores: Store) -> None:
    """Raise AssertionError unless each store holds the rows of the batches and no others."""
    for series in {batch.series for batch in batches}:
        sent = Columns.join([batch.columns for batch in batches if batch.series == series])
        for store in stores:
            assert rows_equal(store.read(series, EVER), sent), (
                f"{store} does not hold {series} as it was sent"
            )


STORES: dict[str, tuple[Callable[[Path], Store], Side, Side]] = {
    "duckdb": (DuckDBSink, duckdb_ours, duckdb_public),
    "sqlite": (SQLiteSink, sqlite_ours, sqlite_public),
    "parquet": (ParquetSink, parquet_ours, parquet_public),
}
_NAMES = ["series_id", "open_time", *OHLCV.names]


def _fed(store: Store, batches: Sequence[Batch]) -> float:
    """Write batches as a run does: with the writer threads of the engine, which commit what is ready."""
    store.prepare([OHLCV])
    began = time.perf_counter()
    anyio.run(_write, store, batches)
    return time.perf_counter() - began


async def _write(store: Store, batches: Sequence[Batch]) -> None:
    retrier = StoreRetrier(RetryPolicy(), lambda _: None)
    async with open_writers(store, retrier, OnWritten(_durable, _refused, _deliver, _split)) as writers:
        for batch in batches:
            await writers.submit(batch)


def _durable(_batch: Batch) -> None: ...


def _split(_batch: Batch, _parts: tuple[Batch, Batch]) -> None: ...


async def _deliver(_batch: Batch) -> None: ...


def _refused(_batch: Batch, error: RowsRefused) -> None:
    raise error


def _number_series(store: Store, batches: Sequence[Batch]) -> None:
    """Prepare an empty store whose series ids count from 1, in the order of the series' first batches."""
    store.prepare([OHLCV])
    with store.writer() as write:
        for series in dict.fromkeys(batch.series for batch in batches):
            write(Batch(series, Columns.empty(OHLCV), Coverage()))


def _whole(batches: Sequence[Batch]) -> tuple[NDArray[np.int32], Columns]:
    """Join all rows, sorted by series, and return the series id of each row."""
    parts: dict[Series, list[Columns]] = {}
    for batch in batches:
        parts.setdefault(batch.series, []).append(batch.columns)
    series = [Columns.join(some) for some in parts.values()]
    ids = np.repeat(np.arange(1, 1 + len(series), dtype=np.int32), [len(one) for one in series])
    values = np.concatenate([one.values for one in series], axis=1)
    return ids, Columns(np.concatenate([one.times for one in series]), values)


def _synchronise(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _round(name: str, batches: Sequence[Batch]) -> tuple[float, float]:
    """Load once each way; returns the seconds of the sink and of the public way."""
    make, ours, public = STORES[name]
    gc.collect()
    with tempfile.TemporaryDirectory() as fresh:
        first, second = Path(fresh, "ours"), Path(fresh, "public")
        took = ours(batches, first), public(batches, second)
        check_same(batches, make(first), make(second))
    return took


def embedded_bound(rounds: int) -> Iterator[Result]:
    """Load 20 symbols × 20 days, in batches of each store's preferred size."""
    for name, (make, _, _) in STORES.items():
        batches = prepared(20, 20, make(Path(name)))
        found = [_round(name, batches) for _ in range(rounds)]
        ours, public = (statistics.median(side) for side in zip(*found, strict=True))
        ratio = statistics.median(one / other for one, other in found)
        bar = 2.0 if name == "duckdb" else 1.3
        yield at_most(f"{name}: time against the fastest public way, all at one go", ratio, bar, " ×")
        rows = sum(batch.rows for batch in batches)
        if name == "duckdb":
            yield without_bar(
                "… duckdb, against the same with a transaction for each batch",
                _against_split(batches, rounds),
                " ×",
            )
        yield without_bar(f"… {name}: rows/s, of {rows / public:,.0f} the public way", rows / ours)


def _against_split(batches: Sequence[Batch], rounds: int) -> float:
    """Return the time of the sink divided by that of INSERTs in as many transactions."""
    ratios = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as fresh:
            ours = duckdb_ours(batches, Path(fresh, "ours"))
            ratios.append(ours / duckdb_in_batches(batches, Path(fresh, "public")))
    return statistics.median(ratios)
