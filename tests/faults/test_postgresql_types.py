"""Tables with other types than ours: supported if the meaning is certain, else refused with the remedy."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import attrs
import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.errors import ConfigurationError, RowsRefused
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.postgres.schema.time_codecs import (
    TIMESTAMP,
    DateCodec,
    EpochCodec,
    TimeCodec,
    TimestampCodec,
)
from marketfetch.sinks.table_mapping import Name, TableMapping
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.datasets import Dataset
from marketfetch.values.series import Series
from marketfetch.values.spans import Span
from tests.support.batches import EVER, MINUTE, START, batch, candles
from tests.support.postgres import Server
from tests.support.worlds import World, assert_holds, run, span_of

OHLCV = Dataset.parse("ohlcv")
MAPPING = TableMapping("candles", time="ts", symbol="symbol", columns={"ohlcv": {"open": "o", "trades": "n"}})
FIRST = datetime(2020, 1, 1, tzinfo=UTC)


def sink_on(dsn: str, columns: str, mapping: TableMapping = MAPPING, *before: str) -> PostgresSink:
    with psycopg.connect(dsn, autocommit=True) as database:
        for statement in before:
            database.execute(statement)
        database.execute(f"CREATE TABLE candles ({columns}, PRIMARY KEY (symbol, ts))")
    return PostgresSink(dsn, table=mapping)


def first_time(dsn: str) -> Any:
    with psycopg.connect(dsn) as database:
        row = database.execute("SELECT min(ts) FROM candles").fetchone()
    assert row is not None
    return row[0]


TIMES = [
    ("timestamptz", "ms", FIRST),
    ("timestamp", "ms", FIRST.replace(tzinfo=None)),
    ("timestamptz(0)", "ms", FIRST),
    ("timestamp(0)", "ms", FIRST.replace(tzinfo=None)),
    ("timestamp(3)", "ms", FIRST.replace(tzinfo=None)),
    ("integer", "s", START // 1000),
    ("bigint", "s", START // 1000),
    ("bigint", "ms", START),
    ("moment", "ms", FIRST),
    ("utc_moment", "ms", FIRST.replace(tzinfo=None)),
    ("seconds", "s", START // 1000),
]
DOMAINS = (
    "CREATE DOMAIN moment AS timestamptz NOT NULL",
    "CREATE DOMAIN utc_moment AS timestamp(0) CHECK (VALUE > '2000-01-01')",
    "CREATE DOMAIN seconds AS integer",
)


@pytest.mark.parametrize(("kind", "unit", "first"), TIMES)
def test_times_are_written_read_and_compared_in_what_the_column_has(
    postgres_server: Server, postgres_dsn: str, kind: str, unit: Any, first: object
) -> None:
    postgres_server.adjust(
        postgres_dsn, TimeZone="Asia/Kathmandu"
    )  # times without a zone are UTC all the same
    mapping = attrs.evolve(MAPPING, time_unit=unit)
    sink = sink_on(postgres_dsn, f"ts {kind}, symbol text, o numeric, n bigint", mapping, *DOMAINS)
    sink.prepare([OHLCV])
    with sink.writer() as write:
        write(batch(candles(), range(10), open=1.5, trades=3))
        write(batch(candles(), range(5, 15), open=[2.5] * 10))
        write(batch(candles(), range(5, 15), open=np.nan, trades=4))
    found = sink.read(candles(), EVER)
    assert found.times.tolist() == [START + MINUTE * i for i in range(15)]
    assert found.values[0].tolist() == [1.5] * 5 + [2.5] * 10
    assert found.values[6].tolist() == [3] * 5 + [4] * 10
    some = sink.read(candles(), Span(START + 1, START + 3 * MINUTE))
    assert some.times.tolist() == [START + MINUTE, START + 2 * MINUTE]
    assert first_time(postgres_dsn) == first


@pytest.mark.parametrize("kind", ["date", "day"])
def test_dates_hold_daily_candles_and_no_others(postgres_dsn: str, kind: str) -> None:
    sink = sink_on(
        postgres_dsn, f"ts {kind}, symbol text, o numeric, n bigint", MAPPING, "CREATE DOMAIN day AS date"
    )
    market, days = GeneratedMarket(["BTCUSDT"]), span_of("2026-01-01", "2026-06-01")
    with SimulatedExchange(market) as exchange:
        world = World(exchange)
        daily = run(world.pipeline(sink, interval="1d", start="2026-01-01", end="2026-06-01"))
        assert daily.complete
        assert run(world.pipeline(sink, interval="1d", start="2026-01-01", end="2026-06-01")).requests == 0
    series = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1d")
    rows = sink.read(series, days)
    assert rows.times.tolist() == list(range(days.start, days.end, 86_400_000))
    assert first_time(postgres_dsn) == date(2026, 1, 1)
    middle = sink.read(series, Span(days.start + 1, days.start + 3 * 86_400_000))
    assert middle.times.tolist() == [days.start + 86_400_000, days.start + 2 * 86_400_000]
    with sink.writer() as write, pytest.raises(RowsRefused, match="cannot hold 2020-01-01T00:01:00Z"):
        write(batch(candles("ETHUSDT"), range(2), open=1))


@pytest.mark.parametrize("kind", ["timestamptz(0)", "timestamp(1)", "timestamp(2)"])
def test_a_time_that_would_be_rounded_is_refused(postgres_dsn: str, kind: str) -> None:
    sink = sink_on(postgres_dsn, f"ts {kind}, symbol text, o numeric, n bigint")
    sink.prepare([OHLCV])
    odd = batch(candles(), range(2), open=1)
    odd.columns.times[1] += 9
    with sink.writer() as write:
        with pytest.raises(RowsRefused, match=r"ts .*cannot hold 2020-01-01T00:01:00\.009Z; make it timest"):
            write(odd)
        write(batch(candles("ETHUSDT"), range(2), open=1))


@pytest.mark.parametrize(
    ("columns", "unit", "message"),
    [
        ("ts integer, symbol text, o numeric, n bigint", "ms", "time_unit='s'"),
        ("ts smallint, symbol text, o numeric, n bigint", "s", "make it timestamptz, or bigint"),
        ("ts time, symbol text, o numeric, n bigint", "ms", "make it timestamptz"),
        ("ts text, symbol text, o numeric, n bigint", "ms", "make it timestamptz"),
        ("ts bigint, symbol int, o numeric, n bigint", "ms", "rename_symbol= that returns its number"),
        ("ts bigint, symbol uuid, o numeric, n bigint", "ms", "rename_symbol= that returns its number or UU"),
        ("ts bigint, symbol text, o word, n bigint", "ms", "o is word and cannot hold open; make it numeric"),
        ("ts bigint, symbol text, o money, n bigint", "ms", "make it numeric"),
        ("ts bigint, symbol text, o numeric, n word", "ms", "make it bigint or numeric"),
    ],
)
def test_what_is_not_certain_is_refused_with_what_to_write(
    postgres_dsn: str, columns: str, unit: Any, message: str
) -> None:
    mapping = attrs.evolve(MAPPING, time_unit=unit)
    sink = sink_on(postgres_dsn, columns, mapping, "CREATE DOMAIN word AS text")
    with pytest.raises(ConfigurationError, match=message):
        sink.prepare([OHLCV])


NUMBERS: dict[str, int] = {"BTCUSDT": 1, "ETHUSDT": 2}
UUIDS = {symbol: uuid.uuid5(uuid.NAMESPACE_DNS, symbol) for symbol in NUMBERS}


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        ("integer", NUMBERS),
        ("bigint", {**NUMBERS, "BTCUSDT": 2**40}),
        ("smallint", NUMBERS),
        ("uuid", UUIDS),
        ("number", NUMBERS),
        ("integer REFERENCES symbols", NUMBERS),
        ("varchar(5)", {"BTCUSDT": "btc", "ETHUSDT": "eth"}),
    ],
)
def test_symbols_may_have_numbers(postgres_dsn: str, kind: str, ids: dict[str, Name]) -> None:
    mapping = attrs.evolve(MAPPING, rename_symbol=ids.__getitem__)
    sink = sink_on(
        postgres_dsn,
        f"ts timestamptz, symbol {kind}, o double precision, n integer",
        mapping,
        "CREATE DOMAIN number AS integer CHECK (VALUE > 0)",
        "CREATE TABLE symbols (id integer PRIMARY KEY); INSERT INTO symbols VALUES (1), (2)",
    )
    market, span = GeneratedMarket(["BTCUSDT", "ETHUSDT", "BNBUSDT"]), span_of("2026-06-01", "2026-06-02")
    with SimulatedExchange(market) as exchange:
        world = World(exchange)
        symbols = ["BTCUSDT", "ETHUSDT", "BNBUSDT"]
        report = run(world.pipeline(sink, symbols=symbols, interval="1h"))
    lines = {line.series.symbol: line for line in report.series}
    assert [lines[symbol].rows for symbol in symbols] == [24, 24, 0]
    assert "rename_symbol: has nothing for 'BNBUSDT'" in lines["BNBUSDT"].missing[0].reason
    for symbol in NUMBERS:
        series = Series.of("binance-usdm", "ohlcv", symbol, "1h")
        assert len(sink.read(series, span)) == 24
        assert not sink.coverage([series])[series].missing(span)
    with psycopg.connect(postgres_dsn) as database:
        found = database.execute("SELECT DISTINCT symbol FROM candles").fetchall()
    assert {name for (name,) in found} == set(ids.values())


def test_an_empty_table_of_doubles_holds_what_the_exchange_has(postgres_dsn: str) -> None:
    """Through a domain of every kind: the rows are those of the exchange, to the bit."""
    columns = {name: name for name in OHLCV.names}
    mapping = attrs.evolve(MAPPING, columns={"ohlcv": columns})
    fields = ", ".join(f"{name} {'count' if name == 'trades' else 'price'}" for name in columns)
    sink = sink_on(
        postgres_dsn,
        f"ts utc_moment, symbol text, {fields}",
        mapping,
        *DOMAINS,
        "CREATE DOMAIN price AS numeric",
        "CREATE DOMAIN count AS integer",
    )
    market = GeneratedMarket(["BTCUSDT"])
    with SimulatedExchange(market) as exchange:
        assert run(World(exchange).pipeline(sink, interval="5m")).complete
    series = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "5m")
    assert_holds(sink, market, series, span_of("2026-06-01", "2026-06-02"))


@pytest.mark.parametrize(
    ("kind", "label", "other", "message"),
    [
        ("integer", "BTC", 2, "holds numbers; have rename_symbol= return one"),
        ("integer", 2**31, 2, "is too small; make it bigint"),
        ("integer", uuid.UUID(int=1), 2, "holds numbers"),
        ("integer", True, 2, "holds numbers"),
        ("bigint", None, 2, "holds numbers"),
        ("uuid", "BTC", uuid.UUID(int=2), "holds UUIDs"),
        ("text", 1, "2", "holds names"),
        ("varchar(9)", None, "2", "holds names"),
    ],
)
def test_a_name_of_another_kind_stops_its_own_series(
    postgres_dsn: str, kind: str, label: Any, other: Name, message: str
) -> None:
    rename: Callable[[str], Any] = {"BTCUSDT": label, "ETHUSDT": other}.__getitem__
    sink = sink_on(
        postgres_dsn,
        f"ts bigint, symbol {kind}, o numeric, n bigint",
        attrs.evolve(MAPPING, rename_symbol=rename),
    )
    sink.prepare([OHLCV])
    with sink.writer() as write:
        with pytest.raises(RowsRefused, match=message):
            write(batch(candles(), [0], open=1))
        write(batch(candles("ETHUSDT"), [0], open=1))


CLOCKS: list[tuple[TimeCodec, int]] = [
    (TimestampCodec(), 1),
    (TimestampCodec(TIMESTAMP), 1),
    (TimestampCodec(step=1000), 1000),
    (DateCodec(), 86_400_000),
    (EpochCodec(MAPPING), 1),
    (EpochCodec(attrs.evolve(MAPPING, time_unit="s")), 1000),
]


@pytest.mark.parametrize(("clock", "step"), CLOCKS, ids=lambda value: type(value).__name__)
@given(st.lists(st.integers(-(10**6), 10**6), max_size=20), st.integers(-(10**9), 10**9))
def test_a_clock_loses_nothing_and_bounds_from_above(
    clock: TimeCodec, step: int, steps: list[int], moment: int
) -> None:
    times = np.array(steps, np.int64) * step
    wire = clock.encode(times).astype(np.int64)
    days = isinstance(clock, DateCodec)  # dates are read as days since 1970, and written as those since 2000
    assert clock.decode(wire + 10_957 if days else wire).tolist() == times.tolist()
    above, exact = -(-moment // step) * step, clock.bound(-(-moment // step) * step)
    assert clock.bound(moment) == exact or (step == 1000 and isinstance(clock, TimestampCodec))
    assert clock.bound(above) == exact
