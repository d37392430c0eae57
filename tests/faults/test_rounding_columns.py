"""Numbers that a column would round: refused with the value and the remedy, unless rounding is asked for."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import attrs
import duckdb
import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.errors import ConfigurationError, RowsRefused
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.sql.number_limits import NumberLimits
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.datasets import Dataset
from tests.support.batches import EVER, batch, candles
from tests.support.worlds import World, run

OHLCV = Dataset.parse("ohlcv")
MAPPING = TableMapping(
    "candles", time="ts", symbol="symbol", columns={"ohlcv": {"open": "o", "volume": "v", "trades": "n"}}
)
ROUNDING = attrs.evolve(MAPPING, rounding="allow")


def on_postgres(dsn: str, kind: str, mapping: TableMapping = MAPPING, before: str = "SELECT") -> PostgresSink:
    """A sink on a table whose `o`, `v` and `n` are of one type."""
    with psycopg.connect(dsn, autocommit=True) as database:
        database.execute(before)
        database.execute(
            f"CREATE TABLE candles (ts bigint, symbol text, o {kind}, v {kind}, n {kind}, "
            "PRIMARY KEY (symbol, ts))"
        )
    return PostgresSink(dsn, table=mapping)


def on_duckdb(path: Path, kind: str, mapping: TableMapping = MAPPING) -> DuckDBSink:
    with duckdb.connect(path) as connection:
        connection.execute(
            f"CREATE TABLE candles (ts BIGINT, symbol VARCHAR, o {kind}, v {kind}, n {kind}, "
            "PRIMARY KEY (symbol, ts))"
        )
    return DuckDBSink(path, table=mapping)


def refusal(sink: PostgresSink | DuckDBSink, **columns: float) -> str:
    """Why a batch is refused, of which nothing is left."""
    sink.prepare([OHLCV])
    with sink.writer() as write:
        with pytest.raises(RowsRefused) as caught:
            write(batch(candles(), range(5), **columns))
        assert len(sink.read(candles(), EVER)) == 0
        assert not sink.ledger()
        write(batch(candles("ETHUSDT"), [0], open=1, volume=2, trades=3))  # the writer goes on
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "value", "becomes"),
    [
        ("numeric(18,8)", 0.00000000123, "0.0"),
        ("numeric(12,2)", 0.004, "0.0"),
        ("numeric(12,2)", 1234567.125, "1234567.12"),
        ("numeric(10,0)", 3.5, "4.0"),
        ("numeric(10)", 0.5, "0.0"),
        ("price", 0.004, "0.0"),
        ("numeric(10,2)", 123456789.0, "does not fit"),
        ("price", 1e300, "does not fit"),
    ],
)
def test_a_price_that_would_be_rounded_is_refused(
    postgres_dsn: str, kind: str, value: float, becomes: str
) -> None:
    sink = on_postgres(postgres_dsn, kind, before="CREATE DOMAIN price AS numeric(12,2) CHECK (VALUE >= 0)")
    message = refusal(sink, open=value)
    assert "public.candles.o" in message
    assert repr(value) in message
    assert becomes in message
    assert 'ALTER TABLE "public"."candles" ALTER COLUMN "o" TYPE numeric' in message
    assert "rounding='allow'" in message


@pytest.mark.parametrize("kind", ["smallint", "integer", "bigint", "numeric(4,0)"])
def test_a_count_that_does_not_fit_is_refused(postgres_dsn: str, kind: str) -> None:
    sink = on_postgres(postgres_dsn, kind, attrs.evolve(MAPPING, columns={"ohlcv": {"trades": "n"}}))
    assert f"is {kind}, and 1e+19 does not fit" in refusal(sink, trades=1e19)


def test_a_count_is_whole_in_tables_of_our_own_too(postgres_dsn: str, tmp_path: Path) -> None:
    assert "trades" in refusal(PostgresSink(postgres_dsn), trades=3.5)
    assert "trades" in refusal(PostgresSink(postgres_dsn, schema="other", views=False), trades=1e19)
    assert "trades" in refusal(DuckDBSink(tmp_path / "own.duckdb"), trades=3.5)


def test_real_is_refused_before_anything_is_fetched(postgres_dsn: str, tmp_path: Path) -> None:
    with SimulatedExchange(GeneratedMarket()) as exchange:
        world = World(exchange)
        for sink, wider in (
            (on_postgres(postgres_dsn, "real"), "double precision"),
            (on_duckdb(tmp_path / "a.duckdb", "FLOAT4"), "DOUBLE"),
        ):
            with pytest.raises(
                ConfigurationError, match=rf"keeps about 7 digits of open; .*TYPE {wider}, or"
            ):
                run(world.pipeline(sink))
        assert not world.asked()


def test_rounding_is_done_where_it_is_asked_for(postgres_dsn: str, tmp_path: Path) -> None:
    sinks = (
        on_postgres(postgres_dsn, "numeric(12,2)", ROUNDING),
        on_duckdb(tmp_path / "a.duckdb", "DECIMAL(12,2)", ROUNDING),
    )
    for sink in sinks:
        sink.prepare([OHLCV])
        one = batch(candles(), range(2), open=[0.004, 1.125001], trades=[5, np.nan])
        with sink.writer() as write:
            write(one)
            write(one)
            with pytest.raises(RowsRefused, match="does not fit"):
                write(batch(candles(), [2], open=1e11))
        assert sink.read(candles(), EVER).values[0].tolist() == [0, 1.13]
    with pytest.raises(ConfigurationError, match="rounding: 'maybe' is unknown; choose 'refuse' or 'allow'"):
        attrs.evolve(MAPPING, rounding="maybe")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("DECIMAL(18,8)", 0.00000000123),
        ("DECIMAL(12,2)", 0.004),
        ("DECIMAL", 0.0004),
        ("DECIMAL(5,2)", 1000.0),
    ],
)
def test_duckdb_rounds_nothing_either(tmp_path: Path, kind: str, value: float) -> None:
    message = refusal(on_duckdb(tmp_path / "a.duckdb", kind), open=value)
    assert "candles.o is DECIMAL(" in message
    assert repr(value) in message
    assert 'ALTER COLUMN "o" TYPE DOUBLE' in message


def test_a_decimal_of_38_digits_keeps_every_float_in_duckdb(tmp_path: Path) -> None:
    sink = on_duckdb(tmp_path / "a.duckdb", "DECIMAL(38,18)")
    sink.prepare([OHLCV])
    values = [0.1 + 0.2, 123.456, 61234.17, 1e-18, 987654321.123456]
    with sink.writer() as write:
        write(batch(candles(), range(5), open=values))
        write(batch(candles(), range(5), open=values))
    assert sink.read(candles(), EVER).values[0].tolist() == values


@pytest.mark.parametrize("kind", ["DECIMAL(18,8)", "NUMERIC(4,2)", "FLOAT", "REAL", ""])
def test_sqlite_keeps_every_number_whatever_its_columns_are_called(tmp_path: Path, kind: str) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute(
            f"CREATE TABLE candles (ts BIGINT, symbol TEXT, o {kind}, v {kind}, n {kind}, "
            "PRIMARY KEY (symbol, ts))"
        )
    sink = SQLiteSink(tmp_path / "a.db", table=MAPPING)
    sink.prepare([OHLCV])
    values = [1.23e-9, 0.004, 1e300, 0.1 + 0.2, 2.0**60]
    with sink.writer() as write:
        write(batch(candles(), range(5), open=values))
    assert sink.read(candles(), EVER).values[0].tolist() == values


def test_a_time_between_two_seconds_stops_its_own_series(postgres_dsn: str) -> None:
    sink = on_postgres(postgres_dsn, "numeric", attrs.evolve(MAPPING, time_unit="s"))
    sink.prepare([OHLCV])
    odd = batch(candles(), range(2), open=1)
    odd.columns.times[1] += 9
    with sink.writer() as write:
        with pytest.raises(RowsRefused, match="counts seconds"):
            write(odd)
        write(batch(candles("ETHUSDT"), [0], open=1))


@given(
    st.lists(
        st.floats(-1e15, 1e15, allow_subnormal=False) | st.decimals(-(10**9), 10**9, places=8).map(float)
    ),
    st.integers(1, 30),
    st.integers(-3, 30),
)
def test_what_is_held_is_what_the_shortest_decimal_says(
    values: Sequence[float], digits: int, scale: int
) -> None:
    """A value is kept exactly where its shortest decimal has no more places than the column, and fits."""
    held = NumberLimits.of(f"numeric({digits},{scale})").as_stored(np.array(values, np.float64))
    for value, kept in zip(values, held.tolist(), strict=True):
        number = Decimal(repr(value))
        places = -int(number.normalize().as_tuple().exponent)
        fits = abs(number) < Decimal(10) ** (digits - scale)
        assert (kept == value) == ((places <= scale and fits) or value == 0)
