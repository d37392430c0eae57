"""Reading back: the newest 100 rows of one symbol, out of 0.5 M rows and out of 4 M rows, in every store."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psycopg

import marketfetch as mf
from benchmarks.harness.batches import START
from benchmarks.harness.results import Result, at_most, interleaved, without_bar
from benchmarks.sections.postgres import server
from marketfetch.protocols import Store, SupportsBatchSize
from marketfetch.sinks import DuckDBSink, ParquetSink, PostgresSink, SQLiteSink, TableMapping
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series

__all__ = ["readback"]

_SERIES = [Series.of("binance-usdm", "mark_price", f"S{number}USDT", "1m") for number in range(4)]
_SHORT, _LONG = 121_600, 1_000_000
"""Rows of each symbol. Both end on the 25th of a month: the last Parquet files are of one size."""
_NEWEST = 100
_MAPPING = TableMapping(
    "candles",
    time="ts",
    symbol="symbol",
    columns={"mark_price": {name: name[0] for name in ("open", "high", "low", "close")}},
)
_TABLE = (
    "CREATE TABLE candles (symbol text, ts timestamptz, o float8, h float8, l float8, c float8, "
    "PRIMARY KEY (symbol, ts))"
)


def readback(rounds: int) -> Iterator[Result]:
    """Fill two stores of each kind, and read the newest rows of both in turns."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        running = stack.enter_context(server())
        places = iter(range(100))

        def postgres(table: TableMapping | None) -> Store:
            dsn = stack.enter_context(running.database())
            if table is not None:
                with psycopg.connect(dsn) as connection:
                    connection.execute(_TABLE)
            return PostgresSink(dsn, table=table)

        def file(kind: Callable[[Path], Store]) -> Store:
            return kind(Path(folder, f"store-{next(places)}"))

        stores: dict[str, Callable[[], Store]] = {
            "PostgreSQL": lambda: postgres(None),
            "PostgreSQL, a mapped table": lambda: postgres(_MAPPING),
            "DuckDB": lambda: file(DuckDBSink),
            "SQLite": lambda: file(SQLiteSink),
            "Parquet": lambda: file(ParquetSink),
        }
        for name, make in stores.items():
            sizes = {"short": _SHORT, "long": _LONG}
            sides = {side: partial(_read, _filled(make(), rows), rows) for side, rows in sizes.items()}
            for read in sides.values():
                read()  # loads modules, and pages of files
            found = interleaved(sides, rounds)
            ratio = statistics.median(
                long / short for short, long in zip(found["short"], found["long"], strict=True)
            )
            what = f"{name}: newest {_NEWEST} rows, of 4 M rows against 0.5 M"
            yield at_most(what, ratio, 1.5, " ×")
            yield without_bar("… of 4 M", 1000 * statistics.median(found["long"]), " ms")


def _filled(store: Store, rows: int) -> Store:
    """Store so many rows of each symbol."""
    step = store.batch_rows if isinstance(store, SupportsBatchSize) else rows
    store.prepare([_SERIES[0].dataset])
    with store.writer() as write:
        for start in range(0, rows, step):
            for series in _SERIES:
                write(_batch(series, start, min(start + step, rows)))
    return store


def _read(store: Store, rows: int) -> float:
    """Return the seconds that reading the newest rows of a symbol takes."""
    series, began = _SERIES[1], time.perf_counter()
    table = mf.open(store).latest(_NEWEST, "mark_price", series.symbol)
    took = time.perf_counter() - began
    if table.rows[series].times.tolist() != [START + 60_000 * row for row in range(rows - _NEWEST, rows)]:
        raise AssertionError(f"{store} has other newest rows than were written")
    return took


def _batch(series: Series, first: int, end: int) -> Batch:
    times = START + 60_000 * np.arange(first, end)
    values = np.linspace(1, 2, end - first) + np.arange(len(series.dataset.columns))[:, None]
    return Batch(series, Columns(times, values), Coverage(series.interval.cover(times)))
