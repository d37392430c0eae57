"""Two runs at once fill one wide table of the user's: no NULL overwrites a value, no value is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import psycopg
import pytest

from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.reports import Report
from marketfetch.sinks import PostgresSink, TableMapping, without_quote
from marketfetch.testing import LocalProxies, Market, ReplayedMarket, SimulatedExchange
from marketfetch.values.instruments import Composite
from marketfetch.values.query import Query
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span
from tests.support.worlds import span_of, truth

TABLE = """
    CREATE TABLE candles (
        ts bigint, symbol text, o numeric, h numeric, l numeric, c numeric, v numeric, pfr numeric,
        PRIMARY KEY (ts, symbol)
    )
"""
MAPPING = TableMapping(
    "candles",
    time="ts",
    symbol="symbol",
    columns={
        "ohlcv": {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"},
        "premium_index": {"close": "pfr"},
    },
    rename_symbol=without_quote("USDT"),
)
SYMBOL = "AVAXUSDT"
JUNE = span_of("2026-06-01", "2026-07-01")


def fill(exchange: SimulatedExchange, proxies: LocalProxies, dsn: str, dataset: str) -> Report:
    """One run of one dataset, with its own event loop, pool and connections."""
    query = Query(symbols=SYMBOL, datasets=dataset, start=JUNE.start, end=JUNE.end)
    sink = PostgresSink(dsn, table=MAPPING)
    pool = RotatingProxies(proxies.urls, direct=False)
    # Small batches, so that the two runs meet often.
    settings = Settings(batch_rows=3000, concurrency=4)
    pipeline = Pipeline(BinanceUsdm(exchange.base_url), query, sink, proxies=pool, settings=settings)
    return anyio.run(pipeline.run)


def rows_of(dsn: str) -> dict[int, tuple[float | None, ...]]:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT ts, o, h, l, c, v, pfr FROM candles WHERE symbol = 'AVAX'"
        ).fetchall()
    return {ts: tuple(None if value is None else float(value) for value in values) for ts, *values in found}


def expected(market: Market, span: Span) -> dict[int, tuple[float | None, ...]]:
    candles = truth(market, Series.of("binance-usdm", "ohlcv", SYMBOL, "1m"), span)
    premium = truth(market, Series.of("binance-usdm", "premium_index", SYMBOL, "1m"), span)
    values = [*candles.values[:5], premium.values[3]]
    return dict(
        zip(candles.times.tolist(), zip(*(line.tolist() for line in values), strict=True), strict=True)
    )


@pytest.mark.slow
def test_two_runs_share_the_rows_of_one_table(shared_data: Path, postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(TABLE)
    market = ReplayedMarket.from_folder(shared_data / "binance_usdm_1m", symbols=[SYMBOL])
    with (
        SimulatedExchange(market) as exchange,
        LocalProxies(3) as proxies,
        ThreadPoolExecutor(2) as pool,
    ):
        runs = [
            pool.submit(fill, exchange, proxies, postgres_dsn, name) for name in ("ohlcv", "premium_index")
        ]
        reports = [run.result() for run in runs]
        assert all(report.complete for report in reports)
        assert rows_of(postgres_dsn) == expected(market, JUNE)
        # Two pools on the same addresses share no budget here; the used-weight header informs each of them.
        assert 429 not in exchange.request_log.statuses
        # A third run finds nothing to do.
        assert fill(exchange, proxies, postgres_dsn, "ohlcv").requests == 0


@pytest.mark.slow
def test_composites_land_beside_the_symbols_they_are_made_of(postgres_dsn: str, shared_data: Path) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(TABLE)
    market = ReplayedMarket.from_folder(shared_data / "binance_usdm_1m", symbols=[SYMBOL])
    with SimulatedExchange(market) as exchange:
        query = Query(
            symbols=SYMBOL,
            start="2026-06-01",
            end="2026-06-02",
            composites=[Composite("MT", ("AVAXUSDT", "NOUSDT"))],
        )
        report = anyio.run(
            Pipeline(BinanceUsdm(exchange.base_url), query, PostgresSink(postgres_dsn, table=MAPPING)).run
        )
    assert not report.complete
    assert {line.series.symbol: bool(line.missing) for line in report.series} == {
        "AVAXUSDT": False,
        "NOUSDT": True,
        "MT": True,
    }
