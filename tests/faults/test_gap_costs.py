"""What a batch, or a question, costs a store depends neither on the gaps nor on the series that it holds.

A year of minutes, every second of which was missing, took fifty times as long as one without gaps: each
batch read and wrote all that was known of the series. Work is counted in calls of functions, of which there
are some for every span that is read or written, and in bytes.
"""

from __future__ import annotations

import cProfile
import pstats
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marketfetch.protocols import Store, SupportsForget
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import MINUTE, START, batch, candles

STEPS = 200
"""Minutes of a batch, every second of which has a candle."""
EARLY, LATE = range(4, 10), range(38, 44)
"""Batches that are compared: before them are some hundred gaps, or ten times as many."""


# What a batch costs a Parquet folder is bounded by the period of a file: test_gap_costs_in_parquet.py. For
# PostgreSQL the work of the server is counted: test_gap_costs_in_postgresql.py.
@pytest.fixture(params=["memory", "SQLite", "DuckDB"])
def store(request: pytest.FixtureRequest, tmp_path: Path, kept_open: None) -> Store:
    makes: dict[str, Callable[[], Store]] = {
        "memory": MemorySink,
        "SQLite": lambda: SQLiteSink(tmp_path / "store"),
        "DuckDB": lambda: DuckDBSink(tmp_path / "store"),
    }
    store = makes[request.param]()
    store.prepare([candles().dataset])
    return store


def confirmed_empty(whole: SpanSet, gaps: SpanSet) -> Coverage:
    return Coverage(whole, gaps)


def unusable(whole: SpanSet, gaps: SpanSet) -> Coverage:
    return Coverage(whole, unusable=gaps)


def unknown(whole: SpanSet, gaps: SpanSet) -> Coverage:
    return Coverage(whole - gaps)


def gappy(number: int, verdict: Callable[[SpanSet, SpanSet], Coverage]) -> Batch:
    """Make one of consecutive batches, in which every second minute has no candle."""
    first = number * STEPS
    rows = batch(candles(), range(first, first + STEPS, 2), open=1)
    whole = SpanSet.of(Span(START + first * MINUTE, START + (first + STEPS) * MINUTE))
    return Batch(rows.series, rows.columns, verdict(whole, whole - rows.coverage.covered))


class Costs:
    """The calls that the steps of a long work take: counted, which takes long, for those that matter."""

    def __init__(self) -> None:
        self.early = self.late = 0

    def step(self, number: int, work: Callable[[], object]) -> None:
        """Do a step."""
        if number in EARLY:
            self.early += calls(work)
        elif number in LATE:
            self.late += calls(work)
        else:
            work()


def calls(work: Callable[[], object]) -> int:
    """Count the calls of functions, in Python and in C."""
    profile = cProfile.Profile()
    with profile:
        work()
    total: Any = pstats.Stats(profile)
    return int(total.total_calls)


@pytest.mark.parametrize(
    ("verdict", "order"),
    [
        (confirmed_empty, "forward"),
        (confirmed_empty, "backward"),
        (unknown, "forward"),
        (unusable, "forward"),
    ],
)
def test_a_batch_costs_the_same_however_many_gaps_there_are(
    store: Store, verdict: Callable[[SpanSet, SpanSet], Coverage], order: str
) -> None:
    count = LATE.stop
    numbers = range(count) if order == "forward" else reversed(range(count))
    costs = Costs()
    with store.writer() as write:
        for step, number in enumerate(numbers):
            costs.step(step, partial(write, gappy(number, verdict)))
    assert costs.late < 1.5 * costs.early
    held = store.coverage([candles()])[candles()]
    assert held.present.length == count * STEPS // 2 * MINUTE


@pytest.mark.slow
def test_a_gap_that_is_filled_costs_the_same_however_many_there_are(store: Store) -> None:
    costs = Costs()
    with store.writer() as write:
        for number in range(LATE.stop):
            write(gappy(number, confirmed_empty))
            costs.step(number, partial(write, batch(candles(), [1], open=1)))
    assert costs.late < 1.5 * costs.early


@pytest.mark.slow
def test_a_question_about_one_series_costs_the_same_however_many_are_held(store: Store) -> None:
    asked = [candles("S0USDT")]

    def fill(symbols: range) -> int:
        with store.writer() as write:
            for symbol in symbols:
                write(batch(candles(f"S{symbol}USDT"), range(0, 40, 2), open=1))
        store.coverage(asked)
        return calls(partial(store.coverage, asked))

    few, many = fill(range(5)), fill(range(5, 150))
    assert many < 1.2 * few


@pytest.mark.slow
def test_forgetting_costs_the_same_however_many_gaps_there_are(store: Store) -> None:
    assert isinstance(store, SupportsForget)
    moment, costs = SpanSet.of(Span(START, START + MINUTE)), Costs()
    with store.writer() as write:
        for number in range(LATE.stop):
            write(gappy(number, confirmed_empty))
            costs.step(number, partial(store.forget, candles(), moment))
    assert costs.late < 1.5 * costs.early


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the statements that SQLite is given, values and all."""
    lengths: list[int] = []
    connect: Any = sqlite3.connect

    def traced(*args: Any, **options: Any) -> Any:
        connection = connect(*args, **options)
        connection.set_trace_callback(lambda sql: lengths.append(len(sql)))
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return lengths


def test_a_batch_writes_as_many_bytes_however_many_gaps_there_are(tmp_path: Path, written: list[int]) -> None:
    store, cost = SQLiteSink(tmp_path / "store"), []
    store.prepare([candles().dataset])
    with store.writer() as write:
        for number in range(LATE.stop):
            before = len(written), sum(written)
            write(gappy(number, confirmed_empty))
            cost.append((len(written) - before[0], sum(written) - before[1]))
    early, late = (np.sum(cost[some.start : some.stop], axis=0) for some in (EARLY, LATE))
    assert all(late < 1.2 * early)  # statements, and bytes


@pytest.mark.usefixtures("kept_open")
@pytest.mark.parametrize("kind", [SQLiteSink, DuckDBSink])
def test_series_of_your_table_are_told_apart_without_reading_what_is_known_of_them(
    tmp_path: Path, kind: Callable[..., SQLiteSink | DuckDBSink]
) -> None:
    table = TableMapping("candles", time="ts", symbol="symbol", columns={"ohlcv": {"open": "o"}})
    store: Any = kind(tmp_path / "store", table=table)
    with store._connected() as connection:
        connection.execute(
            "CREATE TABLE candles (ts BIGINT, symbol TEXT, o DOUBLE, PRIMARY KEY (symbol, ts))"
        )
    store.prepare([candles().dataset])
    asked = [candles("ETHUSDT")]
    costs = Costs()
    with store.writer() as write:
        write(batch(candles("ETHUSDT"), [0], open=1))
        for number in range(LATE.stop):
            write(gappy(number, confirmed_empty))
            costs.step(number, partial(store.coverage, asked))
    assert costs.late < 1.2 * costs.early


def moments(count: int) -> Iterator[Span]:
    return (Span(2 * number, 2 * number + 1) for number in range(count))


def test_whether_a_moment_is_in_a_set_is_not_asked_of_every_span() -> None:
    few, many = (SpanSet(tuple(moments(count))) for count in (1000, 100_000))
    assert calls(lambda: 1999 in few) + 50 > calls(lambda: 199_999 in many)
    assert 199_998 in many
    assert 199_999 not in many
    assert -1 not in many
    assert 0 not in SpanSet()
