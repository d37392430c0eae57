"""Names that a column would cut, pad or fold into another's: refused, and nothing is stored wrongly."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import duckdb
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from marketfetch.errors import ConfigurationError, RowsRefused
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.postgres.schema.tables import KeyColumn
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.testing import GeneratedMarket, MarketInstrument, SimulatedExchange
from marketfetch.values.datasets import Dataset
from marketfetch.values.series import Series
from tests.support.batches import EVER, batch, candles
from tests.support.postgres import Server
from tests.support.worlds import World, run

OHLCV = Dataset.parse("ohlcv")
MAPPING = TableMapping("candles", time="ts", symbol="symbol", columns={"ohlcv": {"open": "o"}})
SEPTEMBER, DECEMBER = "BTCUSDT_260925", "BTCUSDT_261225"


def prepared(dsn: str, symbol: str, *before: str, mapping: TableMapping = MAPPING) -> PostgresSink:
    """A sink on a table whose column of symbols has the given type."""
    with psycopg.connect(dsn, autocommit=True) as database:
        for statement in before:
            database.execute(statement)
        database.execute(
            f"CREATE TABLE candles (ts bigint, symbol {symbol}, o numeric, venue text, "
            f"PRIMARY KEY ({', '.join(mapping.key)}))"
        )
    sink = PostgresSink(dsn, table=mapping)
    sink.prepare([OHLCV])
    return sink


def stored(dsn: str) -> Sequence[str]:
    """The symbols in the table."""
    with psycopg.connect(dsn) as database:
        return [name for (name,) in database.execute("SELECT DISTINCT symbol::text FROM candles ORDER BY 1")]


def refusal(sink: PostgresSink, series: Series) -> str:
    """Why the rows of a series are refused."""
    with sink.writer() as write, pytest.raises(RowsRefused) as caught:
        write(batch(series, range(3), open=1))
    return str(caught.value)


def test_two_contracts_do_not_become_one(postgres_dsn: str) -> None:
    sink = prepared(postgres_dsn, "varchar(10)")
    listed = [
        MarketInstrument("BTCUSDT", "BTC", "USDT", "USDT", 1_577_836_800_000),
        MarketInstrument(SEPTEMBER, "BTC", "USDT", "USDT", 1_577_836_800_000),
        MarketInstrument(DECEMBER, "BTC", "USDT", "USDT", 1_577_836_800_000),
    ]
    with SimulatedExchange(GeneratedMarket(listed)) as exchange:
        report = run(World(exchange).pipeline(sink, symbols=["BTCUSDT", SEPTEMBER, DECEMBER], interval="1h"))
    lines = {line.series.symbol: line for line in report.series}
    assert not report.complete
    assert lines["BTCUSDT"].rows == 24
    assert stored(postgres_dsn) == ["BTCUSDT"]
    for symbol in (SEPTEMBER, DECEMBER):
        assert lines[symbol].rows == 0
        (gap,) = lines[symbol].missing
        assert f"public.candles.symbol is character varying(10) and cannot hold '{symbol}'" in gap.reason
        assert "make it text" in gap.reason


@pytest.mark.parametrize(
    ("kind", "before", "long"),
    [
        ("char(10)", (), SEPTEMBER),
        ("ticker", ("CREATE DOMAIN ticker AS varchar(10)",), SEPTEMBER),
        (
            "inner_ticker",
            ("CREATE DOMAIN ticker AS varchar(10)", "CREATE DOMAIN inner_ticker AS ticker"),
            DECEMBER,
        ),
        ("name", (), "X" * 64),
        ("name", (), "我" * 22),
        ("known", ("CREATE TYPE known AS ENUM ('BTCUSDT')",), SEPTEMBER),
        ("varchar(10)", (), "BTCUSDT   X"),
        ("char(12)", (), "BTCUSDT "),
        ("text CHECK (length(symbol) < 11)", (), SEPTEMBER),
    ],
)
def test_no_type_cuts_a_name(postgres_dsn: str, kind: str, before: tuple[str, ...], long: str) -> None:
    sink = prepared(postgres_dsn, kind, *before)
    assert "candles" in refusal(sink, candles(long))
    assert stored(postgres_dsn) == []
    with sink.writer() as write:
        write(batch(candles("BTCUSDT"), range(3), open=2))
        write(batch(candles("BTCUSDT"), range(4), open=[2, 2, 3, 4]))
    assert sink.read(candles("BTCUSDT"), EVER).values[0].tolist() == [2, 2, 3, 4]


def test_a_name_that_is_cut_by_the_users_own_code_is_refused_with_its_twin(postgres_dsn: str) -> None:
    sink = prepared(
        postgres_dsn, "text", mapping=attrs.evolve(MAPPING, rename_symbol=lambda symbol: symbol[:10])
    )
    with pytest.raises(ConfigurationError, match="would share rows"):
        sink.coverage([candles(SEPTEMBER), candles(DECEMBER)])


@pytest.mark.parametrize("column", ["exchange", "interval"])
def test_the_other_names_are_not_cut_either(postgres_dsn: str, column: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as database:
        database.execute(
            "CREATE TABLE candles (ts bigint, symbol text, tag varchar(2), o numeric, "
            "PRIMARY KEY (ts, symbol, tag))"
        )
    mapping = attrs.evolve(
        MAPPING,
        exchange="tag" if column == "exchange" else None,
        interval="tag" if column == "interval" else None,
    )
    sink = PostgresSink(postgres_dsn, table=mapping)
    sink.prepare([OHLCV])
    reason = refusal(sink, candles(interval="15m"))
    assert "public.candles.tag is character varying(2) and cannot hold" in reason
    assert stored(postgres_dsn) == []


INSENSITIVE = (
    "CREATE COLLATION public.insensitive (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
)


@pytest.mark.parametrize(
    ("kind", "before"),
    [
        ("text COLLATE insensitive", (INSENSITIVE,)),
        ("varchar(20) COLLATE insensitive", (INSENSITIVE,)),
        ("ticker", (INSENSITIVE, 'CREATE DOMAIN ticker AS text COLLATE "insensitive"')),
        ("citext", ("CREATE EXTENSION citext SCHEMA public",)),
    ],
)
def test_names_that_a_column_takes_for_the_same_are_refused(
    postgres_dsn: str, kind: str, before: tuple[str, ...]
) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as database:
        try:
            database.execute(before[0])
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
            pytest.skip(f"this server has none: {error}")
        except psycopg.errors.InvalidParameterValue as error:
            pytest.skip(f"this server has no ICU: {error}")
    sink = prepared(postgres_dsn, kind, *before[1:])
    sink.coverage([candles("BTCUSDT"), candles("ETHUSDT")])
    with pytest.raises(ConfigurationError, match=r"BTCUSDT.*btcusdt.* would share rows of candles"):
        sink.coverage([candles("BTCUSDT"), candles("btcusdt")])
    with sink.writer() as write:
        write(batch(candles("BTCUSDT"), [0], open=1))
    with pytest.raises(ConfigurationError, match="would share rows of candles"):
        sink.coverage([candles("btcusdt")])  # against what is held
    assert sink.read(candles("BTCUSDT"), EVER).values[0].tolist() == [1]


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12))
@settings(max_examples=60)
def test_a_label_says_beforehand_what_the_server_would_do(postgres_server: Server, name: str) -> None:
    """Against the server itself: a name is let through exactly where the column gives it back as it was."""
    label = KeyColumn("symbol", "character(6)", "bpchar", 6)
    with psycopg.connect(postgres_server.direct) as database:
        table = sql.Identifier("pg_temp", f"t{uuid.uuid4().hex}")
        database.execute(sql.SQL("CREATE TABLE {} (symbol char(6))").format(table))
        try:
            with database.transaction():
                database.execute(sql.SQL("INSERT INTO {} VALUES (%s::bpchar)").format(table), [name])
            row = database.execute(sql.SQL("SELECT symbol::text FROM {}").format(table)).fetchone()
        except psycopg.errors.StringDataRightTruncation:
            row = None
        assert (label.misfit(name) is None) == (row == (name,))
        database.rollback()


@pytest.mark.parametrize(("kind", "connect"), [(SQLiteSink, sqlite3.connect), (DuckDBSink, duckdb.connect)])
@pytest.mark.parametrize("column", ["symbol", "venue"])
def test_a_database_file_that_ignores_case_makes_no_two_symbols_one(
    tmp_path: Path, kind: Any, connect: Any, column: str
) -> None:
    path = tmp_path / "mine.db"
    types = {"symbol": "VARCHAR", "venue": "VARCHAR", column: "VARCHAR COLLATE NOCASE"}
    with closing(connect(path)) as connection:
        connection.execute(
            f"CREATE TABLE candles (ts BIGINT, symbol {types['symbol']}, venue {types['venue']}, o DOUBLE, "
            "PRIMARY KEY (symbol, venue, ts))"
        )
    sink = kind(path, table=attrs.evolve(MAPPING, exchange="venue"))
    sink.prepare([OHLCV])
    one, same = candles("BTC'USDT"), candles("BTC'usdt")
    if column == "venue":
        same = candles("BTC'USDT", exchange="BINANCE-usdm")
    sink.coverage([one, candles("ETHUSDT")])
    with pytest.raises(ConfigurationError, match="would share rows of candles"):
        sink.coverage([one, same])
    with sink.writer() as write:
        write(batch(one, [0], open=1))
    with pytest.raises(ConfigurationError, match="would share rows of candles"):
        sink.coverage([same])  # against what is held


def test_a_database_file_that_ignores_blanks_makes_no_two_symbols_one(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mine.db")) as connection:
        connection.execute(
            "CREATE TABLE candles (ts BIGINT, symbol TEXT COLLATE RTRIM, o DOUBLE, PRIMARY KEY (symbol, ts))"
        )
    sink = SQLiteSink(tmp_path / "mine.db", table=MAPPING)
    sink.prepare([OHLCV])
    with pytest.raises(ConfigurationError, match="would share rows of candles"):
        sink.coverage([candles("BTC"), candles("BTC ")])
