"""Two symbols that would meet in one row of a table, though no run has seen both: nothing is overwritten."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import psycopg
import pytest

from marketfetch.errors import ConfigurationError, RowsRefused
from marketfetch.protocols import Store
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.values.datasets import Dataset
from marketfetch.values.series import Series
from tests.support.batches import EVER, batch, candles

OHLCV = Dataset.parse("ohlcv")
FUTURES, SPOT = candles("BTCUSDT"), candles("BTCUSDT", exchange="binance-spot")
TABLE = "CREATE TABLE candles (ts bigint, symbol varchar(20), o double precision, PRIMARY KEY (symbol, ts))"


def first_three(symbol: str) -> str:
    return symbol[:3]


MAPPING = TableMapping(
    "candles", time="ts", symbol="symbol", columns={"ohlcv": {"open": "o"}}, rename_symbol=first_three
)


def write(store: Store, series: Series, value: float) -> None:
    with store.writer() as writer:
        writer(batch(series, range(3), open=value))


@pytest.fixture(params=["sqlite", "duckdb", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, postgres_dsn: str) -> str:
    """An empty table of the user's."""
    if request.param == "postgresql":
        with psycopg.connect(postgres_dsn) as server:
            server.execute(TABLE)
        return postgres_dsn
    path = tmp_path / f"market.{request.param}"
    connect = sqlite3.connect if request.param == "sqlite" else duckdb.connect
    with closing(connect(path)) as file:
        file.execute(TABLE)
    return str(path)


def store_in(place: str, mapping: TableMapping = MAPPING) -> Store:
    if place.startswith("postgresql"):
        return PostgresSink(place, table=mapping)
    return (SQLiteSink if place.endswith("sqlite") else DuckDBSink)(place, table=mapping)


@pytest.mark.parametrize("other", [candles("BTCUSDC"), SPOT, candles("BTCUSDT", "1h")], ids=str)
def test_runs_that_begin_at_once_do_not_overwrite_each_other(place: str, other: Series) -> None:
    one, two = store_in(place), store_in(place)
    for store, series in ((one, FUTURES), (two, other)):
        store.prepare([OHLCV])
        assert not store.coverage([series])[series].covered  # neither sees anything of the other
    write(one, FUTURES, 1.0)
    with pytest.raises(RowsRefused, match="would share rows of candles") as caught:
        write(two, other, 2.0)
    assert str(other) in str(caught.value)
    assert one.read(FUTURES, EVER).values[0].tolist() == [1.0, 1.0, 1.0]
    assert other not in two.ledger()
    write(one, FUTURES, 3.0)  # who came first goes on
    assert one.read(FUTURES, EVER).values[0].tolist() == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("name", "kind"), [("CANDLES", SQLiteSink), ("Candles", SQLiteSink), ("main.candles", DuckDBSink)]
)
def test_a_table_is_the_same_by_every_name(
    tmp_path: Path, name: str, kind: type[SQLiteSink | DuckDBSink]
) -> None:
    path = tmp_path / "market.db"
    with closing((sqlite3 if kind is SQLiteSink else duckdb).connect(path)) as file:
        file.execute(TABLE)
    columns = {"ohlcv": {"open": "o"}}
    plain, other = (
        kind(path, table=TableMapping(spelled, time="ts", symbol="symbol", columns=columns))
        for spelled in ("candles", name)
    )
    plain.prepare([OHLCV])
    write(plain, FUTURES, 1.0)
    other.prepare([OHLCV])
    with pytest.raises(ConfigurationError, match="would share rows"):
        other.coverage([SPOT])
    with pytest.raises(RowsRefused, match="would share rows"):
        write(other, SPOT, 2.0)
    assert plain.read(FUTURES, EVER).values[0].tolist() == [1.0, 1.0, 1.0]
