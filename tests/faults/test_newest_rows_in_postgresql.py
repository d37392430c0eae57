"""The documented ways to read PostgreSQL read what they return, however long the history is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from marketfetch.errors import SinkError
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns
from tests.support import postgres_formats
from tests.support.batches import EVER, batch, candles
from tests.support.postgres import Server
from tests.support.postgres_formats import FUNDING
from tests.support.roles import role

PROJECT = Path(__file__).parents[2]
OHLCV = Dataset.parse("ohlcv")
SYMBOLS, MINUTES = 10, 20_000

FILL = """
    INSERT INTO marketfetch.series (table_name, exchange, dataset, symbol, interval)
    SELECT '', 'binance-usdm', 'ohlcv', symbol, '1m' FROM unnest(%s::text[]) AS symbol;
"""
ROWS = """
    INSERT INTO marketfetch.ohlcv (series_id, open_time, close)
    SELECT s.id, '2026-06-03Z'::timestamptz - minute * '1 minute'::interval, minute
    FROM marketfetch.series AS s, generate_series(%s::integer + 1, %s::integer) AS minute
"""


def documented() -> dict[str, str]:
    """The queries that docs/sinks.md shows, by the comments above them."""
    text = (PROJECT / "docs" / "sinks.md").read_text("utf-8")
    blocks = "\n".join(re.findall(r"```sql\n(.*?)```", text, re.DOTALL))
    found = re.findall(r"^-- (.*)\n((?:.+\n)+)", blocks, re.MULTILINE)
    return {title: query.strip().rstrip(";") for title, query in found}


@pytest.fixture(scope="module")
def history(postgres_server: Server) -> Iterator[psycopg.Connection]:
    """Two weeks of ten symbols: rows are all that a plan depends on, so that they need not be fetched."""
    with postgres_server.database() as dsn:
        PostgresSink(dsn).prepare([OHLCV])
        with psycopg.connect(dsn, autocommit=True) as connection:
            symbols = ["BTCUSDT", "ETHUSDT", *(f"S{number}USDT" for number in range(2, SYMBOLS))]
            connection.execute(FILL, [symbols])
            connection.execute(ROWS, [0, MINUTES])
            yield connection


def rows_read(connection: psycopg.Connection, query: str) -> tuple[int, int]:
    """Return how many rows a query returns, and how many it reads from the table to do so."""
    row = connection.execute(sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) " + query)).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return round(plan["Actual Rows"] * plan["Actual Loops"]), round(sum(_read(plan)))


def _read(node: dict[str, Any]) -> Iterator[float]:
    if node.get("Relation Name") == "ohlcv":
        removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        yield (node["Actual Rows"] + removed) * node["Actual Loops"]
    for inner in node.get("Plans", ()):
        yield from _read(inner)


FURTHER = {
    "yesterday, from the end": (
        "SELECT * FROM ohlcv('binance-usdm', 'ETHUSDT', '1m') "
        "WHERE open_time < '2026-06-02Z' ORDER BY open_time DESC LIMIT 50"
    ),
    "the last moment": "SELECT max(open_time) FROM ohlcv('binance-usdm', 'ETHUSDT', '1m')",
    "the first rows": "SELECT * FROM ohlcv('binance-usdm', 'ETHUSDT', '1m') ORDER BY open_time LIMIT 10",
    "a spread": (
        "SELECT open_time, b.close - e.close FROM ohlcv('binance-usdm', 'BTCUSDT', '1m') AS b "
        "JOIN ohlcv('binance-usdm', 'ETHUSDT', '1m') AS e USING (open_time) ORDER BY open_time DESC LIMIT 100"
    ),
}


@pytest.mark.parametrize("analysed", [False, True])
@pytest.mark.parametrize(
    "query", [*(documented().keys() - {"At which moments has the exchange no row?"}), *FURTHER]
)
def test_what_is_read_is_what_is_returned(history: psycopg.Connection, query: str, *, analysed: bool) -> None:
    if analysed:
        history.execute("ANALYZE")
    returned, read = rows_read(history, (documented() | FURTHER)[query])
    assert returned
    assert read <= 2 * returned + 10  # a join reads two sides
    assert read < SYMBOLS * MINUTES / 10


def test_a_longer_history_is_read_as_fast(postgres_dsn: str) -> None:
    PostgresSink(postgres_dsn).prepare([OHLCV])
    query = documented()["The newest rows of one symbol"]
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(FILL, [["BTCUSDT"]])
        found = []
        for first, last in ((0, 2_000), (2_000, 40_000)):
            connection.execute(ROWS, [first, last])
            connection.execute("ANALYZE")  # as the server itself does within a minute
            found.append(rows_read(connection, query))
        assert found == [(100, 100), (100, 100)]


def test_a_query_that_is_prepared_for_any_symbol_is_as_good(history: psycopg.Connection) -> None:
    """As drivers send it: the server plans once, without knowing the symbol."""
    with history.transaction():
        history.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        history.execute(
            "PREPARE newest(text) AS SELECT * FROM ohlcv('binance-usdm', $1, '1m') "
            "ORDER BY open_time DESC LIMIT 100"
        )
        assert rows_read(history, "EXECUTE newest('BTCUSDT')") == (100, 100)
        history.execute("DEALLOCATE newest")


def test_the_function_tells_what_the_view_tells(postgres_dsn: str) -> None:
    sink = PostgresSink(postgres_dsn)
    sink.prepare([OHLCV, FUNDING.dataset])
    with sink.writer() as write:
        write(batch(candles(), range(5), open=range(5), trades=7))
        write(batch(candles(interval="1h"), [0, 60], open=9))
        write(batch(FUNDING, [0, 480], funding_rate=[0.5, 0.25]))
    with psycopg.connect(postgres_dsn) as connection:
        for name, series in (("ohlcv", candles()), ("funding_rate", FUNDING)):
            labels = [series.exchange, series.symbol, series.interval.name]
            view = connection.execute(
                f"SELECT * FROM {name} WHERE (exchange, symbol, interval) = (%s, %s, %s) ORDER BY open_time",
                labels,
            )
            function = connection.execute(f"SELECT * FROM {name}(%s, %s, %s) ORDER BY open_time", labels)
            assert [column.name for column in function.description or ()] == [
                column.name for column in view.description or ()
            ]
            rows = function.fetchall()
            assert rows == view.fetchall()
            assert len(rows) == len(sink.read(series, EVER)) > 0
        assert connection.execute("SELECT * FROM ohlcv('okx', 'BTCUSDT', '1m')").fetchall() == []


def test_a_dataset_that_has_got_a_column_shows_it_in_both(postgres_dsn: str) -> None:
    sink = PostgresSink(postgres_dsn)
    sink.prepare([Dataset("mood", OHLCV.columns[:2])])
    sink.prepare([Dataset("mood", OHLCV.columns[:3])])
    with psycopg.connect(postgres_dsn) as connection:
        for source in ("mood", "mood('', '', '')"):
            found = connection.execute(f"SELECT * FROM {source}")
            assert [column.name for column in found.description or ()][4:] == ["open", "high", "low"]


def test_a_view_of_format_1_is_replaced_and_the_users_views_of_it_stay(postgres_dsn: str) -> None:
    postgres_formats.restore(postgres_dsn)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        before = connection.execute("SELECT pg_get_viewdef('ohlcv'::regclass)").fetchone()
        PostgresSink(postgres_dsn).prepare([OHLCV])
        assert connection.execute("SELECT pg_get_viewdef('ohlcv'::regclass)").fetchone() != before
        assert connection.execute("SELECT count(*) FROM my_closes").fetchone() == (13,)
        newest = "SELECT close FROM ohlcv('binance-usdm', 'BTCUSDT', '1m') ORDER BY open_time DESC LIMIT 1"
        assert connection.execute(newest).fetchone() == (4.0,)


def test_a_function_of_somebody_elses_is_left_alone(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("CREATE FUNCTION ohlcv(text, text, text) RETURNS int LANGUAGE sql AS 'SELECT 42'")
        with pytest.raises(SinkError, match=r"function .*ohlcv.* exists .* rename it, or pass views=False"):
            PostgresSink(postgres_dsn).prepare([OHLCV])
        assert connection.execute("SELECT ohlcv('', '', '')").fetchone() == (42,)
        assert connection.execute("SELECT to_regnamespace('marketfetch')").fetchone() == (None,)
        PostgresSink(postgres_dsn, views=False).prepare([OHLCV])
        assert connection.execute("SELECT ohlcv('', '', '')").fetchone() == (42,)


def test_a_role_that_does_not_own_the_view_uses_it_as_it_is(postgres_dsn: str) -> None:
    """The owner of an old store may bring it up to date with `prepare([])`, which touches no view."""
    postgres_formats.restore(postgres_dsn)
    PostgresSink(postgres_dsn).prepare([])
    rights = (
        "GRANT USAGE ON SCHEMA marketfetch TO {role}",
        "GRANT ALL ON ALL TABLES IN SCHEMA marketfetch TO {role}",
    )
    with (
        role(postgres_dsn, *rights) as dsn,
        psycopg.connect(postgres_dsn, autocommit=True) as connection,
    ):
        tenant = PostgresSink(dsn)
        tenant.prepare([OHLCV])
        with tenant.writer() as write:
            write(batch(candles("SOLUSDT"), range(3), open=1))
        assert isinstance(tenant.read(candles("SOLUSDT"), EVER), Columns)
        counted = "SELECT count(*) FROM ohlcv WHERE symbol = 'SOLUSDT'"
        assert connection.execute(counted).fetchone() == (3,)
