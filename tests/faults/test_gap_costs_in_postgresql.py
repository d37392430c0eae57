"""What a batch makes the server write and read depends neither on the gaps nor on the series it holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import psycopg
import pytest

from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.postgres.coverage_tables import PostgresCoverageTables
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import MINUTE, START, batch, candles

OHLCV = Dataset.parse("ohlcv")
GAPS = 8_000
MAPPING = TableMapping("candles", time="ts", symbol="symbol", columns={"ohlcv": {"open": "o"}})


def at(first: int, last: int) -> Span:
    return Span(START + MINUTE * first, START + MINUTE * last)


EVERY_OTHER = SpanSet(tuple(at(minute, minute + 1) for minute in range(0, 2 * GAPS, 2)))
WHOLE = SpanSet.of(at(0, 2 * GAPS))
KINDS = {
    "missing": Coverage(EVERY_OTHER),
    "confirmed empty": Coverage(WHOLE, EVERY_OTHER),
    "unusable": Coverage(WHOLE, unusable=EVERY_OTHER),
}


@pytest.fixture
def database(postgres_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_dsn, autocommit=True, prepare_threshold=None) as connection:
        yield connection


def covering(series: Series, coverage: Coverage) -> Batch:
    return Batch(series, Columns.empty(series.dataset), coverage)


def write(sink: PostgresSink, *batches: Batch) -> None:
    with sink.writer() as writer:
        for one in batches:
            writer(one)


def logged(database: psycopg.Connection, sink: PostgresSink, *batches: Batch) -> int:
    """Write batches, and return how many bytes the server logs meanwhile."""
    (before,) = database.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone() or (0,)
    write(sink, *batches)
    (after,) = database.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone() or (0,)
    return int(after - before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [2 * GAPS + 1, GAPS, -3], ids=["behind", "amid", "before"])
@pytest.mark.parametrize("mapped", [False, True], ids=["own", "mapped"])
def test_a_batch_writes_little_wherever_the_gaps_are(
    postgres_dsn: str, database: psycopg.Connection, kind: str, place: int, *, mapped: bool
) -> None:
    if mapped:
        database.execute("CREATE TABLE candles (ts bigint, symbol text, o float, PRIMARY KEY (symbol, ts))")
    sink = PostgresSink(postgres_dsn, table=MAPPING if mapped else None)
    sink.prepare([OHLCV])
    whole = logged(database, sink, covering(candles(), KINDS[kind]))
    learnt = batch(candles(), [place, place + 1], open=1)
    assert logged(database, sink, learnt) < whole / 4
    known = KINDS[kind] | learnt.coverage
    assert known != KINDS[kind]
    assert sink.coverage([candles()])[candles()] == known


def test_the_last_batches_of_a_year_write_as_little_as_the_first(
    postgres_dsn: str, database: psycopg.Connection
) -> None:
    sink = PostgresSink(postgres_dsn)
    sink.prepare([OHLCV])
    runs = [range(first, first + 3_000, 2) for first in range(0, 90_000, 3_000)]
    found = [logged(database, sink, batch(candles(), run, open=1)) for run in runs]
    assert np.median(found[-10:]) < 1.2 * np.median(found[5:15])


def ledger_rows(connection: psycopg.Connection) -> int:
    """Return how many rows of the ledger this session has read since it last reported its statistics."""
    row = connection.execute(
        "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::integer "
        "FROM pg_stat_xact_user_tables WHERE schemaname = 'marketfetch' AND relname IN ('series', 'coverage')"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_batch_reads_the_segments_that_it_touches(postgres_dsn: str, database: psycopg.Connection) -> None:
    sink = PostgresSink(postgres_dsn)
    sink.prepare([OHLCV])
    write(sink, covering(candles(), KINDS["missing"]))
    ledger = PostgresCoverageTables("marketfetch")
    for place in (-5, 0, GAPS, 2 * GAPS, 3 * GAPS):
        with database.transaction():
            series_id = ledger.find(database, "", candles())
            assert series_id is not None
            before = ledger_rows(database)
            assert len(ledger.segments(database, {series_id: at(place, place + 1)})[series_id]) <= 2
            assert ledger_rows(database) - before <= 5


@pytest.mark.parametrize("asked", [1, 3])
def test_a_question_about_few_series_reads_those_alone(
    postgres_dsn: str, database: psycopg.Connection, asked: int
) -> None:
    PostgresSink(postgres_dsn).prepare([OHLCV])
    database.execute(
        "INSERT INTO marketfetch.series (table_name, exchange, dataset, symbol, interval) SELECT '', "
        "'binance-usdm', 'ohlcv', 'S' || number, '1m' FROM generate_series(0, 9999) AS number"
    )
    database.execute(
        "INSERT INTO marketfetch.coverage (series_id, start_time, covered, empty) "
        "SELECT id, 0, '{[0,60000)}', '{}' FROM marketfetch.series"
    )
    series = [candles(f"S{17 * number}") for number in range(asked)]
    for analysed in (False, True):
        if analysed:
            database.execute("ANALYZE")
        with database.transaction():
            before = ledger_rows(database)
            found = PostgresCoverageTables("marketfetch").coverage(database, "", series)
            assert ledger_rows(database) - before <= 10 + 4 * asked  # the planner looks, too
        assert found == PostgresSink(postgres_dsn).coverage(series)
        assert found == dict.fromkeys(series, Coverage(SpanSet.of(Span(0, 60_000))))
