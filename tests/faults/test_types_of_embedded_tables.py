"""Tables that users have: DuckDB's kinds of timestamps, and SQLite's times as text."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from marketfetch.errors import ConfigurationError, RowsRefused
from marketfetch.sinks import DuckDBSink, SQLiteSink, TableMapping
from marketfetch.values.spans import Span
from tests.support.batches import EVER, MINUTE, START, batch, candles
from tests.support.worlds import assert_same

SERIES = candles()
DAY = 86_400_000


def mapping(unit: Any = "ms") -> TableMapping:
    return TableMapping(
        "candles", time="ts", symbol="symbol", columns={"ohlcv": {"close": "close"}}, time_unit=unit
    )


def duckdb_store(folder: Path, kind: str, unit: str = "ms") -> DuckDBSink:
    with closing(duckdb.connect(folder / "mine.duckdb")) as connection:
        connection.execute(
            f"CREATE TABLE candles (symbol VARCHAR, ts {kind}, close DOUBLE, UNIQUE (symbol, ts))"
        )
    return DuckDBSink(folder / "mine.duckdb", table=mapping(unit))


def sqlite_store(folder: Path, kind: str, *rows: str | float) -> SQLiteSink:
    with closing(sqlite3.connect(folder / "mine.db", isolation_level=None)) as connection:
        connection.execute(
            f"CREATE TABLE candles (symbol TEXT, ts {kind}, close REAL, PRIMARY KEY (symbol, ts))"
        )
        connection.executemany("INSERT INTO candles VALUES ('BTCUSDT', ?, 9.0)", [[row] for row in rows])
    return SQLiteSink(folder / "mine.db", table=mapping())


def check(store: DuckDBSink | SQLiteSink, step: int = MINUTE) -> None:
    """Rows come back as they were, spans are half-open, and writing them again changes nothing."""
    series = candles(interval={MINUTE: "1m", DAY: "1d"}[step])
    sent = batch(series, [row * step // MINUTE for row in range(10)], close=[float(row) for row in range(10)])
    store.prepare([series.dataset])
    for _ in range(2):
        with store.writer() as write:
            write(sent)
    assert_same(store.read(series, Span(START, START + 100 * DAY)), sent.columns)
    assert store.coverage([series])[series] == sent.coverage
    inside = store.read(series, Span(START + 2 * step, START + 5 * step))
    assert ((inside.times - START) // step).tolist() == [2, 3, 4]
    beside = store.read(series, Span(START + 2 * step + 1, START + 5 * step + 1))
    assert ((beside.times - START) // step).tolist() == [3, 4, 5]
    assert len(store.read(series, EVER)) >= 10


@pytest.mark.parametrize(
    "kind",
    ["TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S", "BIGINT", "UBIGINT"],
)
def test_duckdb_times(tmp_path: Path, kind: str) -> None:
    check(duckdb_store(tmp_path, kind))


@pytest.mark.parametrize("kind", ["INTEGER", "UINTEGER"])
def test_duckdb_seconds(tmp_path: Path, kind: str) -> None:
    check(duckdb_store(tmp_path, kind, "s"))


def test_duckdb_dates_hold_days(tmp_path: Path) -> None:
    check(duckdb_store(tmp_path, "DATE"), DAY)


@pytest.mark.parametrize("kind", ["DATE", "TIMESTAMP_S"])
def test_a_time_that_would_be_cut_off_is_refused(tmp_path: Path, kind: str) -> None:
    store = duckdb_store(tmp_path, kind)
    store.prepare([SERIES.dataset])
    sent = batch(SERIES, range(3), close=1.0)
    sent.columns.times[:] += 9
    with (
        store.writer() as write,
        pytest.raises(RowsRefused, match=f"candles.ts is {kind}, which is too coarse"),
    ):
        write(sent)
    assert not len(store.read(SERIES, EVER))
    assert not store.coverage([SERIES])[SERIES].covered


READ_ELSEWHERE = """
import sys
from marketfetch.sinks.duckdb.sink import DuckDBSink
from tests.faults.test_types_of_embedded_tables import SERIES, mapping
from tests.support.batches import EVER
print(*DuckDBSink(sys.argv[1], table=mapping()).read(SERIES, EVER).times)
"""


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns", "Pacific/Kiritimati"])
def test_duckdb_times_are_those_of_utc_wherever_they_are_read(tmp_path: Path, zone: str) -> None:
    store = duckdb_store(tmp_path, "TIMESTAMP WITH TIME ZONE")
    check(store)
    result = subprocess.run(
        [sys.executable, "-c", READ_ELSEWHERE, store.path],
        env={**os.environ, "TZ": zone},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [*map(int, result.stdout.split())] == store.read(SERIES, EVER).times.tolist()


def test_duckdb_nanoseconds_are_what_a_query_sees(tmp_path: Path) -> None:
    store = duckdb_store(tmp_path, "TIMESTAMP_NS")
    check(store)
    with closing(duckdb.connect(store.path, read_only=True)) as connection:
        (first,) = connection.execute("SELECT epoch_ns(min(ts)) FROM candles").fetchone() or (0,)
    assert first == START * 1_000_000


@pytest.mark.parametrize("kind", ["TEXT", "VARCHAR(30)", "DATETIME", "TIMESTAMP"])
def test_sqlite_text_in_an_empty_table_is_as_sqlite_writes_it(tmp_path: Path, kind: str) -> None:
    store = sqlite_store(tmp_path, kind)
    check(store)
    with closing(sqlite3.connect(store.path)) as connection:
        found = connection.execute("SELECT ts FROM candles WHERE ts = datetime('2020-01-01')").fetchall()
    assert found == [("2020-01-01 00:00:00",)]


@pytest.mark.parametrize(
    "sample",
    [
        "2019-12-31 00:00:00",
        "2019-12-31T00:00:00",
        "2019-12-31 00:00:00.000",
        "2019-12-31 00:00:00.000000",
        "2019-12-31T00:00:00Z",
        "2019-12-31T00:00:00.000Z",
        "2019-12-31 00:00:00+00:00",
        "2019-12-31 00:00:00.000000+00:00",
    ],
)
def test_sqlite_text_keeps_the_format_of_the_rows_that_are_there(tmp_path: Path, sample: str) -> None:
    store = sqlite_store(tmp_path, "TEXT", sample)
    check(store)
    with closing(sqlite3.connect(store.path)) as connection:
        texts = [text for (text,) in connection.execute("SELECT ts FROM candles")]
    assert {len(text) for text in texts} == {len(sample)}
    assert sample.replace("2019-12-31", "2020-01-01") in texts


def test_sqlite_datetime_columns_that_hold_numbers_are_numbers(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path, "TIMESTAMP", START - DAY)
    check(store)
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("SELECT DISTINCT typeof(ts) FROM candles").fetchall() == [("integer",)]


def test_sqlite_times_without_a_declared_type_stay_whole_numbers(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path, "", START - DAY)
    check(store)
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("SELECT DISTINCT typeof(ts) FROM candles").fetchall() == [("integer",)]


@pytest.mark.parametrize("sample", ["31.12.2019", "2019-12-31 01:00:00+01:00", "yesterday", 43_830.5])
def test_sqlite_times_that_cannot_be_read_are_refused(tmp_path: Path, sample: str | float) -> None:
    store = sqlite_store(tmp_path, "DATETIME", sample)
    with pytest.raises(ConfigurationError, match=r"candles\.ts is DATETIME and holds .*; make it INTEGER"):
        store.prepare([SERIES.dataset])


def test_sqlite_text_to_the_second_refuses_milliseconds(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path, "TEXT")
    store.prepare([SERIES.dataset])
    sent = batch(SERIES, range(3), close=1.0)
    sent.columns.times[:] += 9
    with store.writer() as write, pytest.raises(RowsRefused, match=r"candles\.ts holds times to the second"):
        write(sent)
    assert not store.coverage([SERIES])[SERIES].covered
