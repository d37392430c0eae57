"""The cost of work in counts, which a busy machine does not change: a loss of a factor of two fails here.

A bar is 1.5 times the count at the time it was set. A change that makes the work more expensive for a good
reason sets a new bar and explains it. (`make bench` measures time.)
"""

from __future__ import annotations

import cProfile
import pstats
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import numpy as np
import psycopg
import pytest

from marketfetch.adapters.binance_usdm import BinanceUsdm, Ohlcv
from marketfetch.api.pipeline import Pipeline
from marketfetch.decoding.compiled import COMPILED
from marketfetch.decoding.native import read_rows
from marketfetch.reports import Report
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.testing import GeneratedMarket, LocalProxies, SimulatedExchange, SimulatorOptions
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span
from tests.support.batches import batch, candles
from tests.support.canned import NOW, CannedFetcher
from tests.support.worlds import World, run

DAY = 86_400_000
FIRST = 1_775_001_600_000
ROWS = 1500

compiled_only = pytest.mark.skipif(COMPILED is None, reason="nothing is compiled here")


def page() -> tuple[bytes, Slice]:
    part = Slice(candles(), Span(FIRST, FIRST + ROWS * 60_000), ROWS)
    request, fetcher = Ohlcv().request(part), CannedFetcher()
    return fetcher._page(request), part


def calls(days: int, fetcher: CannedFetcher) -> int:
    """Count the calls of functions, in Python and in C, that a run makes on its loop."""
    query = Query(symbols="BTCUSDT", start=FIRST, end=FIRST + days * DAY)
    settings = Settings(clock=lambda: NOW)
    profile = cProfile.Profile()

    async def counted() -> Report:
        pipeline = Pipeline(
            BinanceUsdm("http://canned"), query, MemorySink(), fetcher=fetcher, settings=settings
        )
        with profile:
            return await pipeline.run()

    assert anyio.run(counted).complete
    total: Any = pstats.Stats(profile)
    return int(total.total_calls)


def test_a_page_costs_the_loop_so_many_calls_whatever_its_rows() -> None:
    fetcher = CannedFetcher()
    for days in (25, 75):
        calls(days, fetcher)  # renders the pages, imports what is imported late
    before, few = fetcher.pages, calls(25, fetcher)
    between, many = fetcher.pages, calls(75, fetcher)
    further = (fetcher.pages - between) - (between - before)
    assert further >= 40
    assert (many - few) / further < 1200


@compiled_only
def test_decoding_calls_nothing_row_by_row() -> None:
    body, part = page()
    endpoint, profile = Ohlcv(), cProfile.Profile()
    endpoint.decode(body, part)
    with profile:
        decoded = endpoint.decode(body, part)
    total: Any = pstats.Stats(profile)
    assert len(decoded.columns) == ROWS
    assert total.total_calls < 150


@compiled_only
def test_decoding_holds_little_beside_the_page_and_its_columns() -> None:
    body, _ = page()
    tracemalloc.start()
    try:
        rows = read_rows(body, width=12, time=0, fields=range(1, 10))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows is not None
    assert peak < 1.5 * (rows.times.nbytes + rows.values.nbytes)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count the statements and the COPY streams that are sent to PostgreSQL."""
    sent: Counter[str] = Counter()
    with monkeypatch.context() as patch:
        for kind, name in ((psycopg.Connection, "execute"), (psycopg.Cursor, "copy")):
            original = getattr(kind, name)

            def wrapped(*arguments: Any, _original: Any = original, _name: str = name, **named: Any) -> Any:
                sent[_name] += 1
                return _original(*arguments, **named)

            patch.setattr(kind, name, wrapped)
        yield sent


def test_a_batch_costs_postgresql_so_many_statements(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, series = PostgresSink(postgres_dsn), candles()
    sink.prepare([series.dataset])
    with sink.writer() as write:
        write(batch(series, range(100), open=1.0))  # learns the number of the series
        with counted(monkeypatch) as new:
            write(batch(series, range(100, 300), open=1.0))
        with counted(monkeypatch) as same:
            write(batch(series, range(100, 300), open=1.0))
    # The lock, the newest row, the segments that the batch touches, and the one that has changed.
    assert new == {"execute": 4, "copy": 1}
    assert same == {"execute": 4}  # the stored rows, but nothing has changed


def test_the_same_rows_again_leave_no_version_and_next_to_no_log(postgres_dsn: str) -> None:
    sink, series = PostgresSink(postgres_dsn), candles()
    sink.prepare([series.dataset])
    rows = batch(series, range(5000), open=np.arange(5000.0))
    with sink.writer() as write, psycopg.connect(postgres_dsn, autocommit=True) as connection:
        write(rows)
        version = "SELECT sum(xmin::text::bigint), pg_current_wal_insert_lsn() - '0/0' FROM marketfetch.ohlcv"
        versions, logged = set(), []
        for _ in range(5):  # the log is the whole server's, and others can only add to it
            before = connection.execute(version).fetchone()
            write(rows)
            after = connection.execute(version).fetchone()
            assert before is not None
            assert after is not None
            versions |= {before[0], after[0]}
            logged.append(after[1] - before[1])
    assert len(versions) == 1
    assert min(logged) < 2 * len(rows.columns)


def test_many_sticky_proxies_cost_few_connections() -> None:
    symbols = [f"C{number}USDT" for number in range(4)]
    options = SimulatorOptions(limits=None)
    with SimulatedExchange(GeneratedMarket(symbols), options) as exchange, LocalProxies(60) as proxies:
        world = World(exchange)
        report = run(world.pipeline(None, proxies=proxies.urls, symbols=symbols, end="2026-08-01"))
        connections, requests = exchange.request_log.connections.total(), exchange.request_log.total
    assert report.complete
    assert requests > 200
    assert connections <= 0.1 * requests
