from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import attrs
import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketfetch.errors import ConfigurationError, SinkError
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.table_mapping import TableMapping, without_quote
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch
from marketfetch.values.series import Series
from tests.support.batches import EVER, START, batch, candles, premium
from tests.support.postgres import Server

OHLCV, PREMIUM = Dataset.parse("ohlcv"), Dataset.parse("premium_index")
MAPPING = TableMapping(
    "candles",
    time="ts",
    symbol="symbol",
    columns={
        "ohlcv": {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v", "trades": "n"},
        "premium_index": {"close": "pfr"},
    },
    rename_symbol=without_quote("USDT"),
)
CANDLES = (
    "CREATE TABLE candles (ts bigint, symbol text, o numeric, h numeric, l numeric, c numeric, v numeric, "
    "n bigint, pfr numeric, note text DEFAULT 'mine', PRIMARY KEY (ts, symbol))"
)


@pytest.fixture
def database(postgres_dsn: str) -> Iterator[psycopg.Connection]:
    # Nothing is prepared: behind a pooler the next statement may be another session's.
    with psycopg.connect(postgres_dsn, autocommit=True, prepare_threshold=None) as connection:
        yield connection


@pytest.fixture
def sink(postgres_dsn: str, database: psycopg.Connection) -> PostgresSink:
    database.execute(CANDLES)
    sink = PostgresSink(postgres_dsn, table=MAPPING)
    sink.prepare([OHLCV, PREMIUM])
    return sink


def write(sink: PostgresSink, *batches: Batch) -> None:
    with sink.writer() as writer:
        for one in batches:
            writer(one)


def test_datasets_share_the_rows_of_the_table(sink: PostgresSink, database: psycopg.Connection) -> None:
    write(
        sink,
        batch(candles(), [0, 1], open=[0.1, 2], trades=[3, np.nan]),
        batch(premium(), [1, 2], close=[7e-5, 8]),
    )
    assert database.execute("SELECT ts, symbol, o, n, pfr, note FROM candles ORDER BY ts").fetchall() == [
        (START, "BTC", Decimal("0.1"), 3, None, "mine"),
        (START + 60_000, "BTC", Decimal(2), None, Decimal("0.00007"), "mine"),
        (START + 120_000, "BTC", None, None, Decimal(8), "mine"),
    ]
    assert sink.read(premium(), EVER).values[3].tolist() == [7e-5, 8]
    assert np.isnan(sink.read(premium(), EVER).values[:3]).all()
    assert sink.read(candles(), EVER).values[0].tolist() == [0.1, 2]


@given(st.lists(st.floats(-1e15, 1e15), min_size=1, max_size=20))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_number_is_the_shortest_decimal_of_the_float(
    sink: PostgresSink, database: psycopg.Connection, values: list[float]
) -> None:
    database.execute("DELETE FROM candles")
    write(sink, batch(candles(), range(len(values)), open=values))
    stored = [value for (value,) in database.execute("SELECT o FROM candles ORDER BY ts")]
    assert stored == [Decimal(repr(value)) for value in values]
    assert sink.read(candles(), EVER).values[0].tolist() == values


def test_the_decimal_is_the_shortest_even_if_the_role_rounds_floats(
    sink: PostgresSink, database: psycopg.Connection, postgres_server: Server, postgres_dsn: str
) -> None:
    postgres_server.adjust(postgres_dsn, extra_float_digits="-5")
    write(sink, batch(candles(), [0], open=0.1 + 0.2))
    assert database.execute("SELECT o::text FROM candles").fetchone() == ("0.30000000000000004",)


def test_null_never_overwrites_and_identical_rows_are_left_alone(
    sink: PostgresSink, database: psycopg.Connection
) -> None:
    write(sink, batch(candles(), range(50), open=0.1, trades=5), batch(premium(), range(50), close=0.3))
    before = database.execute("SELECT ctid::text, xmin::text FROM candles ORDER BY ctid").fetchall()
    write(sink, batch(candles(), range(50), open=0.1, close=np.nan), batch(premium(), range(50), close=0.3))
    assert database.execute("SELECT ctid::text, xmin::text FROM candles ORDER BY ctid").fetchall() == before


@pytest.mark.parametrize("key", ["(ts, symbol)", "(symbol, ts)"])
def test_two_runs_fill_the_same_rows_at_once_and_no_value_is_lost(
    postgres_dsn: str, database: psycopg.Connection, key: str
) -> None:
    database.execute(CANDLES.replace("(ts, symbol)", key))
    everything = {"ohlcv": ("open", candles), "premium_index": ("close", premium)}

    def run(dataset: str) -> None:
        sink = PostgresSink(postgres_dsn, table=MAPPING)
        column, series = everything[dataset]
        with sink.writer() as write_batch:
            for step in range(20):
                for symbol in ("BTCUSDT", "ETHUSDT", "MT"):
                    write_batch(batch(series(symbol), range(step * 10, step * 10 + 25), **{column: 1.25}))

    PostgresSink(postgres_dsn, table=MAPPING).prepare([OHLCV, PREMIUM])
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, [*everything, *everything]))
    counted = "SELECT symbol, count(*), count(o), count(pfr) FROM candles GROUP BY symbol ORDER BY symbol"
    assert database.execute(counted).fetchall() == [(name, 215, 215, 215) for name in ("BTC", "ETH", "MT")]


def test_a_row_that_another_program_inserts_meanwhile_is_completed(
    sink: PostgresSink, database: psycopg.Connection, postgres_dsn: str
) -> None:
    """It does not know of our locks: its row is invisible when we look, and there when we insert."""
    with psycopg.connect(postgres_dsn) as other, ThreadPoolExecutor(1) as thread:
        other.execute("INSERT INTO candles (ts, symbol, pfr) VALUES (%s, 'BTC', 9)", [START])
        ours = thread.submit(write, sink, batch(candles(), [0, 1], open=1))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while database.execute(waiting).fetchone() == (0,):
            assert not ours.done()
        other.commit()
        ours.result(60)
    assert database.execute("SELECT o, pfr FROM candles ORDER BY ts").fetchall() == [(1, 9), (1, None)]


@pytest.mark.parametrize("kind", ["double precision", "real", "numeric(12, 2)"])
def test_columns_may_be_of_other_types(postgres_dsn: str, database: psycopg.Connection, kind: str) -> None:
    database.execute(
        CANDLES.replace("numeric", kind)
        .replace("n bigint", "n integer")
        .replace("ts bigint", "ts timestamptz")
    )
    sink = PostgresSink(postgres_dsn, table=attrs.evolve(MAPPING, rounding="allow"))
    sink.prepare([OHLCV, PREMIUM])
    one = batch(candles(), range(3), open=[0.5, 0.25, 100.75], close=1 / 3, trades=4)
    write(sink, one)
    before = database.execute("SELECT ctid::text, xmin::text FROM candles").fetchall()
    write(sink, one)
    assert database.execute("SELECT ctid::text, xmin::text FROM candles").fetchall() == before
    back = sink.read(candles(), EVER)
    assert back.times.tolist() == one.columns.times.tolist()
    assert back.values[0].tolist() == [0.5, 0.25, 100.75]
    assert back.values[3] == pytest.approx(1 / 3, abs=0.01)
    assert back.values[6].tolist() == [4, 4, 4]


def test_times_may_be_seconds(postgres_dsn: str, database: psycopg.Connection) -> None:
    database.execute(CANDLES)
    sink = PostgresSink(postgres_dsn, table=attrs.evolve(MAPPING, time_unit="s"))
    sink.prepare([OHLCV])
    write(sink, batch(candles(), range(3), open=1))
    assert database.execute("SELECT min(ts) FROM candles").fetchone() == (START // 1000,)
    assert sink.read(candles(), EVER).times.tolist() == [START, START + 60_000, START + 120_000]
    off = batch(candles(), range(3), open=1)
    off.columns.times[0] += 1
    with pytest.raises(SinkError, match=r"candles\.ts counts seconds .*time_unit='ms'"):
        write(sink, off)


def test_a_table_may_tell_exchanges_and_intervals_apart(
    postgres_dsn: str, database: psycopg.Connection
) -> None:
    database.execute("CREATE SCHEMA market")
    database.execute(
        'CREATE TABLE market."Candles" ("Venue" varchar(20), grid char(4), symbol text, ts timestamptz, '
        'o double precision, UNIQUE ("Venue", grid, symbol, ts))'
    )
    mapping = TableMapping(
        "market.Candles",
        time="ts",
        symbol="symbol",
        exchange="Venue",
        interval="grid",
        columns={"ohlcv": {"open": "o"}},
    )
    sink = PostgresSink(postgres_dsn, table=mapping)
    sink.prepare([OHLCV])
    series = [candles(), candles(interval="1h"), candles(exchange="okx")]
    write(sink, *(batch(one, [0], open=i) for i, one in enumerate(series)))
    assert [sink.read(one, EVER).values[0].tolist() for one in series] == [[0], [1], [2]]
    assert set(sink.coverage(series)) == set(series)


def test_series_that_would_overwrite_each_other_are_refused_before_anything_is_fetched(
    sink: PostgresSink,
) -> None:
    with pytest.raises(ConfigurationError, match=r"1m and .*1h would share rows of candles; .*interval="):
        sink.coverage([candles(), candles(interval="1h")])
    write(sink, batch(candles(), [0], open=1))
    with pytest.raises(ConfigurationError, match="would share rows"):
        sink.coverage([candles(exchange="binance-spot")])


def test_coverage_of_each_table_is_its_own(
    sink: PostgresSink, postgres_dsn: str, database: psycopg.Connection
) -> None:
    database.execute(CANDLES.replace("candles", "other"))
    other = PostgresSink(postgres_dsn, table=attrs.evolve(MAPPING, table="other"))
    plain = PostgresSink(postgres_dsn)
    plain.prepare([OHLCV])
    write(sink, batch(candles(), [0], open=1))
    assert sink.coverage([candles()])[candles()].covered
    assert other.coverage([candles()]) == plain.coverage([candles()]) == {candles(): Coverage()}
    assert sink.ledger().keys() == {candles()}
    assert not other.ledger()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "CREATE TABLE candels (ts bigint)",
            r"'candles' is unknown; did you mean 'candels'\?; or create it, .*ts, symbol",
        ),
        (CANDLES.replace("l numeric", "low numeric"), r"column of public\.candles: 'l' is unknown"),
        (CANDLES.replace("ts bigint", "time bigint").replace("(ts", "(time"), r"'ts' is unknown"),
        (
            CANDLES.replace(", PRIMARY KEY (ts, symbol)", ""),
            r"no primary key or unique index on exactly \(.*ADD PRIMARY KEY",
        ),
        (CANDLES.replace("PRIMARY KEY (ts, symbol)", "n2 int, UNIQUE (ts, symbol, n2)"), "no primary key"),
        (CANDLES.replace("ts, symbol)", "ts, symbol) DEFERRABLE"), "no primary key"),
        (
            CANDLES.replace("ts bigint", "ts time"),
            r"candles\.ts is time without time zone.*make it timestamptz",
        ),
        (CANDLES.replace("symbol text", "symbol int"), r"candles\.symbol is integer and cannot hold names"),
        (
            CANDLES.replace("c numeric", "c text"),
            r"candles\.c is text and cannot hold close; make it numeric",
        ),
        (
            CANDLES.replace("c numeric", "c bigint"),
            r"candles\.c is bigint and cannot hold close; make it numeric",
        ),
        (CANDLES.replace("n bigint", "n date"), r"candles\.n is date and cannot hold trades; make it bigint"),
        (CANDLES.replace("l numeric", "l numeric GENERATED ALWAYS AS (1) STORED"), "computed by the server"),
        (CANDLES.replace("DEFAULT 'mine'", "NOT NULL"), r"candles\.note must not be NULL.*DROP NOT NULL"),
        (
            CANDLES.replace("o numeric", "o numeric NOT NULL"),
            r"candles\.o .* rows of premium_index have nothing for it",
        ),
        ("CREATE VIEW candles AS SELECT 1 AS ts", "is not a table; map the table behind it"),
    ],
)
def test_a_table_that_is_not_fit_is_refused_with_the_remedy(
    postgres_dsn: str, database: psycopg.Connection, table: str, message: str
) -> None:
    database.execute(table)
    with pytest.raises(ConfigurationError, match=message):
        PostgresSink(postgres_dsn, table=MAPPING).prepare([OHLCV, PREMIUM])


def test_a_dataset_that_is_not_mapped_is_refused(sink: PostgresSink) -> None:
    with pytest.raises(ConfigurationError, match=r"dataset for table candles: 'mark_price' is unknown"):
        sink.prepare([Dataset.parse("mark_price")])


def test_a_name_of_too_many_parts_is_refused(postgres_dsn: str) -> None:
    with pytest.raises(ConfigurationError, match=r"write table or schema\.table"):
        PostgresSink(postgres_dsn, table=attrs.evolve(MAPPING, table="a.b.c")).prepare([OHLCV])


def test_names_are_quoted(postgres_dsn: str, database: psycopg.Connection) -> None:
    database.execute(
        'CREATE TABLE "drop table" ("select" bigint, "from" text, "a""b%s{}" numeric, '
        'PRIMARY KEY ("select", "from"))'
    )
    mapping = TableMapping("drop table", time="select", symbol="from", columns={"ohlcv": {"open": 'a"b%s{}'}})
    sink = PostgresSink(postgres_dsn, table=mapping)
    sink.prepare([OHLCV])
    series = Series.of("x", "ohlcv", "'; --", "1m")
    write(sink, batch(series, [0], open=1.5), batch(series, [0], open=2.5))
    assert sink.read(series, EVER).values[0].tolist() == [2.5]


def test_percent_signs_in_names_of_types_are_no_placeholders(
    postgres_dsn: str, database: psycopg.Connection
) -> None:
    database.execute('CREATE DOMAIN "p%s" AS numeric; CREATE TYPE "n%s" AS ENUM (\'BTCUSDT\')')
    database.execute('CREATE TABLE candles (ts bigint, symbol "n%s", o "p%s", PRIMARY KEY (symbol, ts))')
    mapping = TableMapping("candles", time="ts", symbol="symbol", columns={"ohlcv": {"open": "o"}})
    sink = PostgresSink(postgres_dsn, table=mapping)
    sink.prepare([OHLCV])
    write(sink, batch(candles(), [0, 1], open=1.5), batch(candles(), [1], open=2.5))
    assert sink.read(candles(), EVER).values[0].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("columns", "rounding"),
    [
        ('o numeric, "Note" text NOT NULL, PRIMARY KEY (ts, "Symbol")', "refuse"),
        ('o real, PRIMARY KEY (ts, "Symbol")', "refuse"),
        ("o numeric", "refuse"),
    ],
    ids=["not null", "real", "no key"],
)
def test_a_statement_to_type_helps_whatever_the_table_is_called(
    postgres_dsn: str, database: psycopg.Connection, columns: str, rounding: Any
) -> None:
    database.execute(f'CREATE TABLE "My ""Candles" (ts bigint, "Symbol" text, {columns})')
    mapping = TableMapping(
        'My "Candles', time="ts", symbol="Symbol", columns={"ohlcv": {"open": "o"}}, rounding=rounding
    )
    sink = PostgresSink(postgres_dsn, table=mapping)
    with pytest.raises(ConfigurationError, match="ALTER TABLE") as caught:
        sink.prepare([OHLCV])
    statement = str(caught.value)[str(caught.value).index("ALTER TABLE") :].partition(", or ")[0]
    database.execute(statement)
    sink.prepare([OHLCV])
    write(sink, batch(candles(), [0], open=1.5))
    assert sink.read(candles(), EVER).values[0].tolist() == [1.5]
