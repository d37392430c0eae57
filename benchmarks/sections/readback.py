"""Reading back: the newest 100 rows of one symbol, out of 0.4 M rows and out of 4 M rows, in every store."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import marketfetch as mf
from benchmarks.harness.batches import START
from benchmarks.harness.results import Result, at_most, without_bar
from benchmarks.sections.postgres import server
from marketfetch.protocols import Store, SupportsBatchSize
from marketfetch.sinks import DuckDBSink, ParquetSink, PostgresSink, SQLiteSink, TableMapping
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series

__all__ = ["readback"]

_SERIES = [Series.of("binance-usdm", "mark_price", f"S{number}USDT", "1m") for number in range(4)]
_SHORT, _LONG = 100_000, 1_000_000
"""Rows of each symbol."""
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
    """Fill every store in two steps, and read the newest rows after each."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        running = stack.enter_context(server())
        databases = [stack.enter_context(running.database()) for _ in range(2)]
        _make_table(databases[1])
        stores: dict[str, Store] = {
            "PostgreSQL": PostgresSink(databases[0]),
            "PostgreSQL, a mapped table": PostgresSink(databases[1], table=_MAPPING),
            "DuckDB": DuckDBSink(Path(folder, "market.duckdb")),
            "SQLite": SQLiteSink(Path(folder, "market.sqlite")),
            "Parquet": ParquetSink(Path(folder, "market")),
        }
        for name, store in stores.items():
            short = _filled_and_read(store, 0, _SHORT, rounds)
            long = _filled_and_read(store, _SHORT, _LONG, rounds)
            what = f"{name}: newest {_NEWEST} rows of 4 M against those of 0.4 M"
            yield at_most(what, long / short, 1.5, " ×")
            yield without_bar("… of 4 M", 1000 * long, " ms")


def _make_table(dsn: str) -> None:
    import psycopg

    with psycopg.connect(dsn) as connection:
        connection.execute(_TABLE)


def _filled_and_read(store: Store, first: int, end: int, rounds: int) -> float:
    """Add rows of all symbols, and return the median of the seconds that reading the newest takes."""
    step = store.batch_rows if isinstance(store, SupportsBatchSize) else end - first
    store.prepare([_SERIES[0].dataset])
    with store.writer() as write:
        for start in range(first, end, step):
            for series in _SERIES:
                write(_batch(series, start, min(start + step, end)))
    market, found = mf.open(store), list[float]()
    for turn in range(rounds + 1):
        began = time.perf_counter()
        table = market.latest(_NEWEST, "mark_price", _SERIES[turn % len(_SERIES)].symbol)
        found.append(time.perf_counter() - began)
        newest = table.rows[_SERIES[turn % len(_SERIES)]].times
        if newest.tolist() != [START + 60_000 * row for row in range(end - _NEWEST, end)]:
            raise AssertionError(f"{store} has other newest rows than were written")
    return statistics.median(found[1:])  # the first call loads modules


def _batch(series: Series, first: int, end: int) -> Batch:
    times = START + 60_000 * np.arange(first, end)
    values = np.linspace(1, 2, end - first) + np.arange(len(series.dataset.columns))[:, None]
    return Batch(series, Columns(times, values), Coverage(series.interval.cover(times)))
