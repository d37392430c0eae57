"""What only the SQLite store does."""

from __future__ import annotations

import re
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marketfetch.errors import ConfigurationError, SinkUnavailable
from marketfetch.sinks import sqlite
from marketfetch.sinks.files.atomic_files import LOCK_TIMEOUT
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch, Columns, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import EVER, MINUTE, START, batch, candles

OHLCV, FUNDING = Dataset.parse("ohlcv"), Dataset.parse("funding_rate")


@pytest.fixture
def store(tmp_path: Path) -> SQLiteSink:
    store = SQLiteSink(tmp_path / "market.db")
    store.prepare([OHLCV, FUNDING])
    return store


def query(store: SQLiteSink, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(store.path)) as connection:
        return connection.execute(sql).fetchall()


def test_the_view_shows_milliseconds(store: SQLiteSink) -> None:
    series = Series.of("binance-usdm", "funding_rate", "BTCUSDT", "event")
    rows = Columns(np.array([START, START + 7]), np.array([[1e-4, 2e-4], [1, 1], [np.nan, np.nan]]))
    with store.writer() as take:
        take(Batch(series, rows, Coverage(series.interval.cover(rows.times))))
    assert query(store, "SELECT open_time, funding_rate, special_funding_rate FROM funding_rate") == [
        ("2020-01-01 00:00:00.000", 1e-4, None),
        ("2020-01-01 00:00:00.007", 2e-4, None),
    ]


def test_an_identical_batch_writes_no_row(store: SQLiteSink) -> None:
    with store.writer() as take:
        take(batch(candles(), range(50), open=0.1, trades=5))
        with closing(sqlite3.connect(store.path)) as other:
            other.execute(
                "CREATE TRIGGER touched BEFORE UPDATE ON marketfetch_ohlcv "
                "BEGIN SELECT RAISE(ABORT, 'touched'); END"
            )
        take(batch(candles(), range(60), open=0.1))


def fill(path: Path) -> None:
    with SQLiteSink(path).writer() as take:
        for start in range(0, 200, 10):
            for symbol in ("BTCUSDT", "ETHUSDT"):
                take(batch(candles(symbol), range(start, start + 15), open=1))


def test_two_processes_fill_one_file_at_once(store: SQLiteSink) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        for done in [processes.submit(fill, store.path) for _ in range(2)]:
            done.result()
    counted = "SELECT symbol, count(*), count(open) FROM ohlcv GROUP BY symbol ORDER BY symbol"
    assert query(store, counted) == [("BTCUSDT", 205, 205), ("ETHUSDT", 205, 205)]
    assert store.coverage([candles()])[candles()].covered.length == 205 * MINUTE


def test_a_file_that_is_held_for_long_is_unavailable(
    store: SQLiteSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_TIMEOUT", 0.01)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other, store.writer() as take:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SinkUnavailable, match=r"market\.db: database is locked; another process"):
            take(batch(candles(), [0], open=1))
        assert len(store.read(candles(), EVER)) == 0  # readers do not wait
        other.execute("ROLLBACK")
        take(batch(candles(), [0], open=1))
    assert len(store.read(candles(), EVER)) == 1


def test_a_call_that_waits_twice_waits_no_longer_than_one_that_waits_once(store: SQLiteSink) -> None:
    with store._connected() as connection:  # which may wait for the file, as a transaction may afterwards
        ((milliseconds,),) = connection.execute("PRAGMA busy_timeout").fetchall()
    assert 2 * milliseconds == 1000 * LOCK_TIMEOUT


def test_your_table_needs_the_key(tmp_path: Path) -> None:
    store = SQLiteSink(
        tmp_path / "mine.db",
        table=TableMapping("candles", time="ts", symbol="s", columns={"ohlcv": {"open": "o"}}),
    )
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("CREATE TABLE candles (ts INTEGER PRIMARY KEY, s TEXT, o REAL)")
    with pytest.raises(ConfigurationError, match=r'candles does not fit: .*PRIMARY KEY \("s", "ts"\)'):
        store.prepare([OHLCV])


def gappy(first: int) -> Batch:
    """Make a batch of 40 minutes, every second of which is confirmed empty."""
    rows = batch(candles(), range(first, first + 40, 2), open=1)
    whole = SpanSet.of(Span(START + first * MINUTE, START + (first + 40) * MINUTE))
    return Batch(rows.series, rows.columns, Coverage(whole, whole - rows.coverage.covered))


def fill_with_gaps(path: Path, first: int, step: int) -> None:
    with SQLiteSink(path).writer() as take:
        for start in range(first, first + 3000, step):
            take(gappy(start))


def test_what_two_processes_learn_at_once_is_united(store: SQLiteSink) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        for done in [
            processes.submit(fill_with_gaps, store.path, first, step) for first, step in ((0, 40), (20, 60))
        ]:
            done.result()
    held = store.coverage([candles()])[candles()]
    assert held.covered == SpanSet.of(Span(START, START + 3000 * MINUTE))
    assert len(held.empty) == 1500
    found: list[Any] = query(store, "SELECT start_time, end_time FROM marketfetch_coverage ORDER BY 1")
    assert len(found) > 1
    assert all(end <= start for (_, end), (start, _) in pairwise(found))


def test_the_ledger_is_looked_up_and_never_scanned(
    store: SQLiteSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    connect: Any = sqlite3.connect

    def traced(path: Path, **options: Any) -> Any:
        connection = connect(path, **options)
        connection.set_trace_callback(asked.append)
        return connection

    wrong = RejectedRow(START, "impossible", "[]")
    whole = SpanSet.of(Span(START, START + MINUTE))
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", traced)
        with store.writer() as take:
            take(gappy(0))
            take(gappy(40))
            take(Batch(candles(), Columns.empty(OHLCV), Coverage(whole, unusable=whole), (wrong,)))
            take(batch(candles(), [0, 1], open=1))
        store.coverage([candles(), candles("ETHUSDT")])
        store.rejected(candles(), EVER)
        store.forget(candles(), whole)
    ours = re.compile(r"(SELECT|UPDATE|DELETE) .*marketfetch_(series|coverage|rejected)\b")
    plans = {sql: str(query(store, f"EXPLAIN QUERY PLAN {sql}")) for sql in asked if ours.match(sql)}
    assert len(plans) >= 10
    assert [sql for sql, plan in plans.items() if "SCAN marketfetch" in plan] == []
