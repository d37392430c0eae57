"""Rows of one series that a table refuses: that series fails with its reason, the others are complete."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import attrs
import duckdb
import psycopg
import pytest

from marketfetch.errors import RowsRefused
from marketfetch.events import BatchWritten, SeriesRefused
from marketfetch.protocols import Sink, Writer
from marketfetch.reports import Report
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.instruments import Composite
from marketfetch.values.pages import Batch
from marketfetch.values.series import Series
from tests.support.batches import EVER, START, batch, candles
from tests.support.roles import role
from tests.support.worlds import World, run, span_of, truth

OHLCV = Dataset.parse("ohlcv")
MAPPING = TableMapping("candles", time="ts", symbol="symbol", columns={"ohlcv": {"volume": "v"}})
SYMBOLS = [f"{letter}{letter}USDT" for letter in "ABCDEFGHIJKLMNOPQRSTU"]
DAY = {"interval": "1h", "start": "2026-06-01", "end": "2026-06-02"}
GOOD, BAD = candles("GOODUSDT"), candles("BADUSDT")


def failed(report: Report) -> dict[str, set[str]]:
    """The symbols of which something is missing, with the reasons."""
    return {
        line.series.symbol: {gap.reason for gap in line.missing} for line in report.series if line.missing
    }


def test_a_volume_that_does_not_fit_stops_its_own_series_only(postgres_dsn: str) -> None:
    market = GeneratedMarket(SYMBOLS)
    day = span_of(DAY["start"], DAY["end"])
    volumes = {
        symbol: truth(market, Series.of("binance-usdm", "ohlcv", symbol, "1h"), day).values[4].max()
        for symbol in SYMBOLS
    }
    large = {symbol for symbol, volume in volumes.items() if volume >= 10_000}
    assert 0 < len(large) < len(SYMBOLS)
    with psycopg.connect(postgres_dsn, autocommit=True) as database:
        database.execute(
            "CREATE TABLE candles (ts bigint, symbol text, v numeric(12,8), PRIMARY KEY (symbol, ts))"
        )
    with SimulatedExchange(market) as exchange:
        world = World(exchange)
        report = run(world.pipeline(PostgresSink(postgres_dsn, table=MAPPING), symbols=SYMBOLS, **DAY))
    reasons = failed(report)
    assert reasons.keys() == large
    assert not report.complete
    assert report.error is None
    for symbol in large:
        (reason,) = reasons[symbol]
        assert "public.candles.v is numeric(12,8)" in reason
        assert 'ALTER TABLE "public"."candles" ALTER COLUMN "v" TYPE numeric' in reason
    assert {event.series.symbol for event in world.events_of(SeriesRefused)} == large
    assert len(world.events_of(SeriesRefused)) == len(large)
    assert report.rows_written == 24 * (len(SYMBOLS) - len(large))


@attrs.frozen
class Obstacle:
    """A table that takes rows of one series and refuses those of another."""

    column: str = "v numeric"
    symbol: str = "text"
    before: str = "SELECT"
    after: str = "SELECT"
    says: str = ""


OBSTACLES = {
    "check": Obstacle(column="v numeric CONSTRAINT small CHECK (v < 10)", says='DROP CONSTRAINT "small"'),
    "not null": Obstacle(
        after="ALTER TABLE candles ADD extra text DEFAULT 'x' NOT NULL; CREATE FUNCTION public.unset() "
        "RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.symbol = 'BADUSDT' THEN NEW.extra = NULL; "
        "END IF; RETURN NEW; END $$; CREATE TRIGGER unset BEFORE INSERT ON candles FOR EACH ROW "
        "EXECUTE FUNCTION public.unset()",
        says='ALTER COLUMN "extra" DROP NOT NULL',
    ),
    "enum": Obstacle(
        symbol="known", before="CREATE TYPE known AS ENUM ('GOODUSDT')", says="ADD VALUE 'BADUSDT'"
    ),
    "domain": Obstacle(
        column="v small", before="CREATE DOMAIN small AS numeric CHECK (VALUE < 10)", says="CHECK"
    ),
    "foreign key": Obstacle(
        symbol="text REFERENCES symbols",
        before="CREATE TABLE symbols (name text PRIMARY KEY); INSERT INTO symbols VALUES ('GOODUSDT')",
        says="add what it refers to",
    ),
    "deferred foreign key": Obstacle(
        symbol="text REFERENCES symbols DEFERRABLE INITIALLY DEFERRED",
        before="CREATE TABLE symbols (name text PRIMARY KEY); INSERT INTO symbols VALUES ('GOODUSDT')",
        says="add what it refers to",
    ),
    "unique": Obstacle(
        column="v numeric UNIQUE", after="INSERT INTO candles VALUES (0, 'x', 77)", says="another unique key"
    ),
    "exclusion": Obstacle(
        column="v numeric, EXCLUDE (v WITH =)",
        after="INSERT INTO candles VALUES (0, 'x', 77)",
        says="exclusion constraint",
    ),
    "trigger": Obstacle(
        after="CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.symbol = 'BADUSDT' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER refuse BEFORE INSERT ON candles FOR EACH ROW EXECUTE FUNCTION public.refuse()",
        says="a trigger of the table refuses",
    ),
}


def write(sink: Sink, *batches: Batch) -> list[str]:
    """Write batches through one writer; returns why those that were refused were."""
    reasons = []
    with sink.writer() as take:
        for one in batches:
            try:
                take(one)
            except RowsRefused as error:
                reasons.append(str(error))
    return reasons


@pytest.mark.parametrize("obstacle", OBSTACLES.values(), ids=OBSTACLES.keys())
def test_whatever_refuses_a_row_concerns_its_series(postgres_dsn: str, obstacle: Obstacle) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as database:
        database.execute(obstacle.before)
        database.execute(
            f"CREATE TABLE candles (ts bigint, symbol {obstacle.symbol}, {obstacle.column}, "
            "PRIMARY KEY (symbol, ts))"
        )
        database.execute(obstacle.after)
    sink = PostgresSink(postgres_dsn, table=MAPPING)
    sink.prepare([OHLCV])
    (reason,) = write(
        sink, batch(GOOD, [0], volume=1), batch(BAD, [1, 2], volume=[2, 77]), batch(GOOD, [3], volume=3)
    )
    assert obstacle.says in reason
    assert sink.read(GOOD, EVER).values[4].tolist() == [1, 3]
    assert not sink.ledger().get(BAD), "nothing of the refused batch is left"
    with psycopg.connect(postgres_dsn) as database:
        assert database.execute("SELECT 1 FROM candles WHERE symbol::text = 'BADUSDT'").fetchone() is None


def test_a_row_policy_concerns_the_series_it_refuses(postgres_dsn: str) -> None:
    with role(
        postgres_dsn,
        "CREATE TABLE candles (ts bigint, symbol text, v numeric, PRIMARY KEY (symbol, ts))",
        "GRANT ALL ON candles TO {role}",
        "ALTER TABLE candles ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY known ON candles USING (true) WITH CHECK (symbol = 'GOODUSDT')",
        "GRANT CREATE ON DATABASE {database} TO {role}",
    ) as dsn:
        sink = PostgresSink(dsn, table=MAPPING)
        sink.prepare([OHLCV])
        (reason,) = write(sink, batch(BAD, [1], volume=2), batch(GOOD, [0], volume=1))
        assert "CREATE POLICY" in reason
        assert sink.read(GOOD, EVER).values[4].tolist() == [1]


def test_a_month_without_a_partition_concerns_the_series_that_has_rows_in_it(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as database:
        database.execute(
            "CREATE TABLE candles (ts timestamptz, symbol text, v numeric, PRIMARY KEY (symbol, ts)) "
            "PARTITION BY RANGE (ts)"
        )
        database.execute(
            "CREATE TABLE part PARTITION OF candles FOR VALUES FROM ('2020-01-01Z') TO ('2020-01-02Z')"
        )
    sink = PostgresSink(postgres_dsn, table=MAPPING)
    sink.prepare([OHLCV])
    late = batch(BAD, [1440, 1441], volume=2)
    (reason,) = write(sink, batch(GOOD, [0], volume=1), late, batch(GOOD, [1], volume=1))
    assert len(sink.read(GOOD, EVER)) == 2
    # The statement that it says to type does help.
    statement = reason.partition("CREATE TABLE")[2].partition(", or make")[0]
    with psycopg.connect(postgres_dsn, autocommit=True) as database:
        database.execute(f"CREATE TABLE{statement}")
    assert write(sink, late) == []
    assert sink.read(BAD, EVER).times.tolist() == [START + 86_400_000, START + 86_460_000]


def test_rows_without_coverage_are_told_which_partition_they_lack(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as database:
        database.execute(
            "CREATE TABLE candles (ts timestamptz, symbol text, v numeric, PRIMARY KEY (symbol, ts)) "
            "PARTITION BY RANGE (ts)"
        )
    sink = PostgresSink(postgres_dsn, table=MAPPING)
    sink.prepare([OHLCV])
    (reason,) = write(sink, attrs.evolve(batch(BAD, [0, 1], volume=2), coverage=Coverage()))
    assert "has no partition for some of the rows of [2020-01-01T00:00:00Z, 2020" in reason


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ('ALTER TABLE "Candles" ADD CONSTRAINT "V" UNIQUE (v)', 'ALTER TABLE "public"."Candles" DROP CON'),
        ('CREATE UNIQUE INDEX "V" ON "Candles" (v)', 'DROP INDEX "public"."V"'),
    ],
    ids=["constraint", "index"],
)
def test_the_statement_against_a_unique_key_does_help(postgres_dsn: str, key: str, says: str) -> None:
    sink = PostgresSink(postgres_dsn, table=attrs.evolve(MAPPING, table="Candles"))
    with psycopg.connect(postgres_dsn, autocommit=True) as database:
        database.execute(
            'CREATE TABLE "Candles" (ts bigint, symbol text, v numeric, PRIMARY KEY (symbol, ts))'
        )
        database.execute(key)
        sink.prepare([OHLCV])
        (reason,) = write(sink, batch(GOOD, [0], volume=1), batch(BAD, [0], volume=1))
        assert says in reason
        database.execute(reason[reason.index(says) :])
    assert write(sink, batch(BAD, [0], volume=1)) == []


def test_the_statement_against_a_type_that_rounds_does_help(postgres_dsn: str) -> None:
    sink = PostgresSink(postgres_dsn, table=attrs.evolve(MAPPING, table="Candles"))
    with psycopg.connect(postgres_dsn, autocommit=True) as database:
        database.execute(
            'CREATE TABLE "Candles" (ts bigint, symbol text, v numeric(4,1), PRIMARY KEY (symbol, ts))'
        )
        sink.prepare([OHLCV])
        (reason,) = write(sink, batch(BAD, [0], volume=1.25))
        database.execute("ALTER TABLE" + reason.partition("ALTER TABLE")[2].partition(", or ")[0])
    assert write(sink, batch(BAD, [0], volume=1.25)) == []


def _duckdb(path: Path, statement: str) -> None:
    with duckdb.connect(path) as connection:
        connection.execute(statement)


def _sqlite(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("kind", "execute"), [(DuckDBSink, _duckdb), (SQLiteSink, _sqlite)], ids=["duckdb", "sqlite"]
)
@pytest.mark.parametrize(
    "columns",
    [
        "v DOUBLE CHECK (v < 10), PRIMARY KEY (symbol, ts)",
        "v DOUBLE UNIQUE, PRIMARY KEY (symbol, ts)",
        "v DOUBLE, CHECK (symbol <> 'BADUSDT'), PRIMARY KEY (symbol, ts)",
    ],
    ids=["check of a value", "another key", "check of a name"],
)
def test_a_database_file_refuses_one_series_only(
    tmp_path: Path, kind: Any, execute: Callable[[Path, str], None], columns: str
) -> None:
    path = tmp_path / "mine.db"
    execute(path, f"CREATE TABLE candles (ts BIGINT, symbol VARCHAR, {columns})")
    execute(path, "INSERT INTO candles VALUES (0, 'x', 9), (1, 'x', NULL)")
    sink = kind(path, table=MAPPING)
    sink.prepare([OHLCV])
    refused = batch(BAD, [1, 2], volume=[9, 77])
    (reason,) = write(sink, batch(GOOD, [0], volume=1), refused, batch(GOOD, [3], volume=3))
    assert "drop the constraint" in reason
    assert sink.read(GOOD, EVER).values[4].tolist() == [1, 3]
    assert BAD not in sink.ledger()


class RefusingSink(MemorySink):
    """A third party's sink, which never takes the second day of one symbol, nor a composite."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        second = span_of("2026-06-02", "2026-06-03")
        with super().writer() as take:

            def write(batch: Batch) -> None:
                late = batch.coverage.within(second).covered
                if batch.series.symbol == "MIX" or (batch.series.symbol == "ETHUSDT" and late):
                    self.refused += 1
                    raise RowsRefused(f"{batch.series.symbol} is too much; write less")
                take(batch)

            yield write


def test_a_sink_of_ones_own_says_so_and_what_was_committed_before_stays() -> None:
    sink = RefusingSink()
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT", "BNBUSDT"])) as exchange:
        world = World(exchange)
        world.settings = attrs.evolve(world.settings, batch_rows=720)
        report = run(
            world.pipeline(
                sink,
                symbols=["BTCUSDT", "ETHUSDT", "BNBUSDT"],
                composites=[
                    Composite("MIX", ("BTCUSDT", "BNBUSDT")),
                    Composite("TWO", ("BTCUSDT", "BNBUSDT")),
                ],
                start="2026-06-01",
                end="2026-06-05",
            )
        )
    assert failed(report) == {
        "ETHUSDT": {"ETHUSDT is too much; write less"},
        "MIX": {"MIX is too much; write less"},
    }
    assert sink.refused == 2, "a batch of a series that was refused is not tried again"
    rows = {line.series.symbol: line.rows for line in report.series}
    assert rows["BTCUSDT"] == rows["BNBUSDT"] == rows["TWO"] == 4 * 1440
    eth = Series.of("binance-usdm", "ohlcv", "ETHUSDT", "1m")
    assert len(sink.read(eth, EVER)) == rows["ETHUSDT"] < 4 * 1440
    written = sum(event.batch.rows for event in world.events_of(BatchWritten))
    assert written == report.rows_written == sum(rows.values())
