"""Conversion: a table of 1 M rows as pandas, polars, Arrow and DuckDB take it, beside pandas on its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

import marketfetch as mf
from benchmarks.harness.batches import START
from benchmarks.harness.results import Result, at_most, interleaved, medians, without_bar
from marketfetch.reports import Report
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series

__all__ = ["conversion"]

_SYMBOLS, _ROWS = 10, 100_000
"""Symbols, and rows of each."""


def conversion(rounds: int) -> Iterator[Result]:
    """Convert the same table in turns, after a first time which loads the libraries."""
    table = _table()
    sides: dict[str, Callable[[], Any]] = {
        "pandas, from columns of numpy": lambda: _plain_frame(table),
        "to_pandas": table.to_pandas,
        "to_polars": table.to_polars,
        "polars.DataFrame(table)": lambda: pl.DataFrame(table),
        "pyarrow.table(table)": lambda: pa.table(table),
        "DuckDB, the sum of a column": lambda: _sum_of(table),
    }
    for name, convert in sides.items():
        _check(name, table, convert())
    took = medians(interleaved({name: _timed(convert) for name, convert in sides.items()}, rounds))
    plain = took.pop("pandas, from columns of numpy")
    yield at_most(
        "1 M rows: to_pandas, against pandas itself from columns of numpy",
        took["to_pandas"] / plain,
        1,
        " ×",
    )
    for name in ("polars.DataFrame(table)", "pyarrow.table(table)"):
        yield at_most(f"… {name}, against the same", took[name] / plain, 0.5, " ×")
    yield without_bar("… pandas itself", plain * 1000, " ms")
    for name, seconds in took.items():
        yield without_bar(f"… {name}", seconds * 1000, " ms")


def _table() -> mf.Table:
    rng, rows = np.random.default_rng(1), dict[Series, Columns]()
    for number in range(_SYMBOLS):
        series = Series.of("binance-usdm", "ohlcv", f"S{number}USDT", "1m")
        values = rng.uniform(1, 2, (len(series.dataset.columns), _ROWS))
        values[series.dataset.index("trades")] = np.arange(_ROWS)
        rows[series] = Columns(START + 60_000 * np.arange(_ROWS), values)
    return mf.Table(next(iter(rows)).dataset, rows, Report.empty())


def _plain_frame(table: mf.Table) -> pd.DataFrame:
    """Make the frame as a user would who has the columns of all symbols as arrays already."""
    names, parts = table.dataset.names, list(table.rows.values())
    values = np.concatenate([columns.values for columns in parts], axis=1)
    frame = pd.DataFrame(dict(zip(names, values, strict=True)))
    times = np.concatenate([columns.times for columns in parts])
    frame.insert(0, "open_time", pd.to_datetime(times, unit="ms", utc=True))
    counts = [len(columns) for columns in parts]
    keys = {
        "interval": [series.interval.name for series in table.rows],
        "symbol": [series.symbol for series in table.rows],
        "exchange": [series.exchange for series in table.rows],
    }
    for name, texts in keys.items():
        frame.insert(0, name, np.repeat(np.array(texts, object), counts))
    return frame.astype({"trades": "Int64"})


def _sum_of(candles: mf.Table) -> Any:
    found: Any = duckdb.sql("SELECT sum(close) FROM candles")
    return found.fetchall()


def _timed(convert: Callable[[], Any]) -> Callable[[], float]:
    def side() -> float:
        began = time.perf_counter()
        convert()
        return time.perf_counter() - began

    return side


def _check(name: str, table: mf.Table, found: Any) -> None:
    """Raise AssertionError for a result that does not have the values of the table."""
    total = float(
        np.sum([columns.values[table.dataset.index("close")].sum() for columns in table.rows.values()])
    )
    match found:
        case [(value,)]:
            close = value
        case pa.Table():
            close = sum(chunk.to_numpy().sum() for chunk in found["close"].chunks)
        case _:
            close = found["close"].sum()
    if not np.isclose(close, total) or (
        not isinstance(found, list) and list(_names(found)) != list(table.columns)
    ):
        raise AssertionError(f"{name} has other rows than the table")


def _names(frame: Any) -> list[str]:
    return frame.column_names if isinstance(frame, pa.Table) else list(frame.columns)
