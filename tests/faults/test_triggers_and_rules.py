"""Triggers and rules of a user's table that swallow a row or change it: nothing is called present."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import pytest

from marketfetch.errors import RowsRefused
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.values.datasets import Dataset
from tests.support.batches import EVER, batch, candles

OHLCV = Dataset.parse("ohlcv")
MAPPING = TableMapping("candles", time="ts", symbol="symbol", columns={"ohlcv": {"open": "o"}})
ROUNDED = TableMapping(
    "candles", time="ts", symbol="symbol", columns={"ohlcv": {"open": "o"}}, rounding="allow"
)
COLUMNS = "(ts timestamptz, symbol text, o double precision, PRIMARY KEY (symbol, ts))"
PLAIN = f"CREATE TABLE candles {COLUMNS}"
PARTITIONED = (
    f"{PLAIN} PARTITION BY RANGE (ts)",
    "CREATE TABLE candles_2020 PARTITION OF candles FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
)


def trigger(body: str, table: str = "candles") -> tuple[str, str]:
    return (
        f"CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        f"CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION guard()",
    )


def prepared(dsn: str, statements: Sequence[str], mapping: TableMapping = MAPPING) -> PostgresSink:
    with psycopg.connect(dsn) as server:
        for statement in statements:
            server.execute(statement.encode())
    store = PostgresSink(dsn, table=mapping)
    store.prepare([OHLCV])
    return store


@pytest.mark.parametrize(
    "statements",
    [
        (PLAIN, *trigger("RETURN NULL;")),
        (PLAIN, *trigger("IF NEW.ts > '2020-01-01' THEN RETURN NULL; END IF; RETURN NEW;")),
        (PLAIN, "CREATE RULE guard AS ON INSERT TO candles DO INSTEAD NOTHING"),
        (PLAIN, *trigger("NEW.symbol := left(NEW.symbol, 3); RETURN NEW;")),
        (PLAIN, *trigger("NEW.o := round(NEW.o); RETURN NEW;")),
        (PLAIN, *trigger("NEW.o := NULL; RETURN NEW;")),
        (*PARTITIONED, *trigger("RETURN NULL;", "candles_2020")),
    ],
    ids=["swallowed", "one swallowed", "rule", "renamed", "rounded", "emptied", "in a partition"],
)
def test_what_is_not_stored_as_it_is_stops_its_series(postgres_dsn: str, statements: Sequence[str]) -> None:
    store = prepared(postgres_dsn, statements)
    with store.writer() as write, pytest.raises(RowsRefused, match="a trigger or rule"):
        write(batch(candles(), range(3), open=0.14))
    assert not store.coverage([candles()])[candles()].covered
    with psycopg.connect(postgres_dsn) as server:
        assert server.execute("SELECT count(*) FROM candles").fetchone() == (0,)


REDIRECTED = (
    PLAIN,
    "CREATE TABLE candles_2020 () INHERITS (candles)",
    *trigger("INSERT INTO candles_2020 SELECT NEW.*; RETURN NULL;"),
)


@pytest.mark.parametrize(
    ("statements", "mapping", "stored"),
    [
        ((PLAIN, *trigger("RETURN NEW;")), MAPPING, 1.14),
        (REDIRECTED, MAPPING, 1.14),
        ((PLAIN, *trigger("NEW.o := round(NEW.o); RETURN NEW;")), ROUNDED, 1.0),
    ],
    ids=["harmless", "moved to another table", "rounded as allowed"],
)
def test_rows_that_are_there_all_the_same_are_stored(
    postgres_dsn: str, statements: Sequence[str], mapping: TableMapping, stored: float
) -> None:
    store = prepared(postgres_dsn, statements, mapping)
    written = batch(candles(), range(3), open=1.14)
    with store.writer() as write:
        write(written)
    assert store.read(candles(), EVER).values[0].tolist() == [stored] * 3
    assert store.coverage([candles()])[candles()] == written.coverage
