"""Two transactions of DuckDB that are written side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfetch.errors import RowsRefused, SinkError
from marketfetch.sinks.duckdb import transactions as division
from marketfetch.sinks.duckdb.errors import OutOfMemory
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.duckdb.transactions import side_by_side, transactions
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch
from tests.support.batches import EVER, batch, candles

OHLCV = Dataset.parse("ohlcv")
ROWS = 6  # of a transaction, here
BTC, ETH, SOL, XRP = map(candles, ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"))
FOUR = [batch(one, range(4), open=1.0) for one in (BTC, ETH, SOL, XRP)]
GROUPS = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(1, 8)), min_size=1, max_size=8)
)
"""Groups of batches: the number of a series, its first minute, and how many rows it has."""


@pytest.fixture(autouse=True)
def few_rows() -> Iterator[None]:
    with patch.object(division, "TRANSACTION_ROWS", ROWS):
        yield


@pytest.fixture
def store(tmp_path: Path) -> DuckDBSink:
    store = DuckDBSink(tmp_path / "market.duckdb")
    store.prepare([OHLCV])
    return store


class Transactions:
    """The batches of each transaction of a store, and its connection and thread."""

    def __init__(self) -> None:
        self.found: list[tuple[object, int, list[Batch]]] = []
        self._write = DuckDBSink._write

    def write(self, store: DuckDBSink, connection: Any, batches: Sequence[Batch], *more: int) -> None:
        self.found.append((connection, threading.get_ident(), list(batches)))
        self._write(store, connection, batches, *more)

    @property
    def connections(self) -> int:
        return len({id(connection) for connection, _, _ in self.found})


@pytest.fixture
def seen() -> Iterator[Transactions]:
    seen = Transactions()

    def write(store: DuckDBSink, *arguments: Any) -> None:
        seen.write(store, *arguments)

    with patch.object(DuckDBSink, "_write", write):
        yield seen


@given(GROUPS)
def test_each_batch_is_in_one_transaction_and_each_series_on_one_side(
    groups: list[list[tuple[int, int, int]]],
) -> None:
    for group in groups:
        batches = [batch(FOUR[number].series, range(first, first + rows)) for number, first, rows in group]
        sides = side_by_side(batches)
        assert sorted(map(id, (*sides[0], *sides[1]))) == sorted(map(id, batches))
        assert not {one.series for one in sides[0]} & {one.series for one in sides[1]}
        for side in sides:
            divided = list(transactions(side))
            assert [one for some in divided for one in some] == list(side)
            assert all(len(some) == 1 or sum(one.rows for one in some) <= ROWS for some in divided)
            for series in {one.series for one in side}:
                of_series = [one for one in batches if one.series == series]
                assert [one for one in side if one.series == series] == of_series  # in their order
        if sum(one.rows for one in batches) <= ROWS:
            assert sides == (batches, ())
        elif len({one.series for one in batches}) > 1:
            assert all(sides)


def test_two_sides_have_two_connections_and_threads(store: DuckDBSink, seen: Transactions) -> None:
    with store.group_writer() as take:
        take(FOUR)
    assert seen.connections == 2
    assert len({thread for _, thread, _ in seen.found}) == 2
    assert len(seen.found) == 4  # of four rows each: two of them would have more than six
    for one in FOUR:
        np.testing.assert_array_equal(store.read(one.series, EVER).times, one.columns.times)


@pytest.mark.parametrize("batches", [FOUR[:1], [batch(BTC, range(4)), batch(BTC, range(4, 8))]])
def test_few_rows_and_one_series_have_one_connection(
    store: DuckDBSink, seen: Transactions, batches: list[Batch]
) -> None:
    with store.group_writer() as take:
        take(batches)
    assert seen.connections == 1
    assert len(store.read(BTC, EVER)) == sum(one.rows for one in batches)


@settings(max_examples=30)
@given(GROUPS)
def test_groups_are_stored_as_batch_by_batch(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[tuple[int, int, int]]]
) -> None:
    store, expected = DuckDBSink(tmp_path_factory.mktemp("market") / "market.duckdb"), MemorySink()
    for each in (store, expected):
        each.prepare([OHLCV])
    with store.group_writer() as take, expected.writer() as take_alone:
        for number, group in enumerate(groups):
            batches = [
                batch(FOUR[place].series, range(first, first + rows), open=float(number))
                for place, first, rows in group
            ]
            take(batches)
            for one in batches:
                take_alone(one)
    for one in FOUR:
        found, wanted = store.read(one.series, EVER), expected.read(one.series, EVER)
        np.testing.assert_array_equal(found.times, wanted.times)
        np.testing.assert_array_equal(found.values, wanted.values)
        assert store.coverage([one.series]) == expected.coverage([one.series])
    with duckdb.connect(store.path) as connection:
        ((rows, keys),) = connection.execute(
            "SELECT count(*), count(DISTINCT (symbol, open_time)) FROM ohlcv"
        ).fetchall()
        ((series, ids),) = connection.execute(
            "SELECT count(*), count(DISTINCT id) FROM marketfetch_series"
        ).fetchall()
    assert rows == keys
    assert series == ids == len({place for group in groups for place, _, _ in group})


@pytest.mark.parametrize("side", [0, 1], ids=["this thread's", "the other thread's"])
def test_an_error_of_either_side_is_raised_and_all_may_be_written_again(store: DuckDBSink, side: int) -> None:
    broken, write = side_by_side(FOUR)[side][0].series, DuckDBSink._write

    def fail(store: DuckDBSink, connection: Any, batches: Sequence[Batch], *more: int) -> None:
        if any(one.series == broken for one in batches):
            raise RowsRefused(broken.symbol)
        write(store, connection, batches, *more)

    with store.group_writer() as take:
        with patch.object(DuckDBSink, "_write", fail), pytest.raises(RowsRefused, match=broken.symbol):
            take(FOUR)
        assert broken not in store.ledger()
        take(FOUR)
    assert {series: len(store.read(series, EVER)) for series in store.ledger()} == dict.fromkeys(
        (BTC, ETH, SOL, XRP), 4
    )


def test_without_memory_for_two_the_group_is_written_in_turn(store: DuckDBSink) -> None:
    write, here = DuckDBSink._write, threading.get_ident()
    found: list[str] = []

    def fail(store: DuckDBSink, connection: Any, batches: Sequence[Batch], *more: int) -> None:
        if threading.get_ident() != here:
            found.append("the other thread")
            raise OutOfMemory("no room for two")
        found.extend(one.series.symbol for one in batches)
        write(store, connection, batches, *more)

    with store.group_writer() as take, patch.object(DuckDBSink, "_write", fail):
        take(FOUR)
    assert "the other thread" in found
    assert found[-4:] == [one.series.symbol for one in FOUR]
    assert all(len(store.read(one.series, EVER)) == 4 for one in FOUR)


@pytest.mark.parametrize("daemon", [True, False])
def test_a_thread_that_is_stuck_ends_with_the_process_as_that_of_the_writer_does(
    store: DuckDBSink, *, daemon: bool
) -> None:
    found: list[bool] = []

    def write(*_: object) -> None:
        found.append(threading.current_thread().daemon)

    def work() -> None:
        with store.group_writer() as take:
            take(FOUR)

    with patch.object(DuckDBSink, "_write", write):
        writer = threading.Thread(target=work, daemon=daemon)
        writer.start()
        writer.join()
    assert found == [daemon] * len(FOUR)


def test_a_memory_limit_without_room_for_two_has_one_connection(tmp_path: Path, seen: Transactions) -> None:
    store = DuckDBSink(tmp_path / "market.duckdb", memory_limit="40MB")
    store.prepare([OHLCV])
    with store.group_writer() as take:
        take(FOUR)
    assert seen.connections == 1
    assert all(len(store.read(one.series, EVER)) == 4 for one in FOUR)


def test_where_no_thread_can_be_started_the_group_is_written_in_turn(
    store: DuckDBSink, seen: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with store.group_writer() as take:
        monkeypatch.setattr(threading.Thread, "start", start)
        take(FOUR)
    assert {thread for _, thread, _ in seen.found} == {threading.get_ident()}
    assert all(len(store.read(one.series, EVER)) == 4 for one in FOUR)


def test_series_that_share_rows_of_a_table_of_yours_are_written_in_turn(
    tmp_path: Path, seen: Transactions
) -> None:
    path = tmp_path / "mine.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE mine (symbol VARCHAR, open_time TIMESTAMP, o DOUBLE)")
    mapping = TableMapping("mine", symbol="symbol", time="open_time", columns={"ohlcv": {"open": "o"}})
    store = DuckDBSink(path, table=mapping)
    store.prepare([OHLCV])
    with store.group_writer() as take:
        take(FOUR)
    assert seen.connections == 1
    assert all(len(store.read(one.series, EVER)) == 4 for one in FOUR)


def test_a_failure_of_both_sides_is_one_error(store: DuckDBSink) -> None:
    def fail(*_: object) -> None:
        raise SinkError("the disk is full")

    with (
        store.group_writer() as take,
        patch.object(DuckDBSink, "_write", fail),
        pytest.raises(SinkError, match="the disk is full"),
    ):
        take(FOUR)
    assert not store.ledger()
