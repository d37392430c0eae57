"""A table of ours that was dropped by hand: a ledger that counts on its rows is not believed."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import psycopg
import pytest

from marketfetch.errors import SinkError
from marketfetch.protocols import Store, SupportsForget
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import EVER, MINUTE, START, batch, candles

OHLCV, FUNDING = Dataset.parse("ohlcv"), Dataset.parse("funding_rate")
Place = tuple[Store, Callable[[str], None]]


@pytest.fixture(params=["sqlite", "duckdb", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, postgres_dsn: str) -> Place:
    """A store, and what drops the table of a dataset."""
    if request.param == "postgresql":

        def drop_there(name: str) -> None:
            with psycopg.connect(postgres_dsn) as server:
                server.execute(f"DROP TABLE marketfetch.{name} CASCADE".encode())

        return PostgresSink(postgres_dsn), drop_there
    path = tmp_path / "the market"
    module, kind = (sqlite3, SQLiteSink) if request.param == "sqlite" else (duckdb, DuckDBSink)

    def drop(name: str) -> None:
        with closing(module.connect(path)) as file:
            file.execute(f"DROP VIEW {name}")
            file.execute(f"DROP TABLE marketfetch_{name}")

    return kind(path), drop


def write(store: Store, expected_message: Batch) -> None:
    with store.writer() as writer:
        writer(expected_message)


def test_candles_that_are_gone_are_missed(place: Place) -> None:
    store, drop = place
    store.prepare([OHLCV, FUNDING])
    write(store, batch(candles(), range(3), open=1.0))
    drop("ohlcv")
    with pytest.raises(SinkError, match="the ledger counts on its rows") as caught:
        store.prepare([OHLCV, FUNDING])
    words = shlex.split(str(caught.value).partition("anew after: ")[2])
    assert words[:3] == ["marketfetch", "forget", "--to"]
    assert words[-2:] == ["--dataset", "ohlcv"]
    store.prepare([FUNDING])  # which is all there

    assert isinstance(store, SupportsForget)
    store.forget(candles(), SpanSet.of(EVER))
    store.prepare([OHLCV])
    assert not store.coverage([candles()])[candles()].covered
    write(store, batch(candles(), range(3), open=1.0))
    assert len(store.read(candles(), EVER)) == 3


def test_events_that_are_gone_are_missed(place: Place) -> None:
    store, drop = place
    store.prepare([FUNDING])
    funding = Series.of("okx", FUNDING, "BTC-USDT-SWAP", "event")
    write(store, batch(funding, [0], funding_rate=0.1))
    drop("funding_rate")
    with pytest.raises(SinkError, match="funding_rate"):
        store.prepare([FUNDING])


def test_a_table_on_which_nothing_counts_is_made_anew(place: Place) -> None:
    store, drop = place
    store.prepare([OHLCV])
    hour = SpanSet.of(Span(START, START + 60 * MINUTE))
    write(store, Batch(candles(), Columns.empty(OHLCV), Coverage(hour, hour)))
    drop("ohlcv")
    store.prepare([OHLCV])
    assert store.coverage([candles()])[candles()].empty == hour
