"""Whole runs against the simulated COIN-M: what is requested, what is stored, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from marketfetch.adapter import BadSymbol, Series, Slice, Span
from marketfetch.adapters.binance_coinm import BinanceCoinm
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import (
    GeneratedMarket,
    LimitRules,
    LocalProxies,
    MarketInstrument,
    SimulatedExchange,
    SimulatorOptions,
)
from marketfetch.values.query import AllSymbols
from marketfetch.values.settings import Settings
from marketfetch.values.spans import SpanSet
from tests.support.worlds import DAY, HOUR, MINUTE, World, assert_holds, assert_same, at, run, span_of, truth

NOW = "2026-06-20T00:00:00Z"
JUNE = span_of("2026-06-01", "2026-06-19")
LATE = span_of("2026-03-10T09:30Z", "2026-06-19").start
ENDS = span_of("2026-06-26T08:00Z", "2026-07-01").start
KLINES = ["ohlcv", "premium_index", "mark_price", "index_price"]
STATISTICS = ["open_interest", "long_short_ratio", "taker_volume"]

market = GeneratedMarket(
    [
        *("BTCUSD_PERP", "ETHUSD_PERP", "BTCUSDT"),
        MarketInstrument.parse("NEWUSD_PERP", LATE),
        MarketInstrument.parse("BTCUSD_260626", LATE, ENDS),
    ],
    seed=6,
)


def simulated(**limits: Any) -> SimulatedExchange:
    return SimulatedExchange(market, SimulatorOptions(now=at(NOW), limits=LimitRules(**limits)))


def world(exchange: SimulatedExchange) -> World:
    return World(exchange, "binance-coinm", settings=Settings(concurrency=8, clock=at(NOW)))


def kline_spans(exchange: SimulatedExchange) -> list[int]:
    """Return how long the windows of all candle requests were, in milliseconds, both ends included."""
    asked = [seen.params for seen in exchange.request_log.latest if seen.path.endswith("lines")]
    return [int(params["endTime"]) + 1 - int(params["startTime"]) for params in asked]


def test_a_back_fill_through_proxies_into_duckdb(tmp_path: Path) -> None:
    store, symbols = DuckDBSink(tmp_path / "market.duckdb"), ["BTCUSD_PERP", "ETHUSD_PERP"]
    datasets = [*KLINES, "funding_rate", *STATISTICS]
    with simulated() as exchange, LocalProxies(3) as proxies:
        job: dict[str, Any] = {
            "proxies": proxies.urls,
            "symbols": symbols,
            "datasets": datasets,
            "interval": "5m",
            "start": JUNE.start,
            "end": JUNE.end,
        }
        report = run(world(exchange).pipeline(store, **job))
        statuses, requests = exchange.request_log.statuses, exchange.request_log.total
        again = run(world(exchange).pipeline(store, **job))
        assert exchange.request_log.total == requests, "nothing is missing, so nothing is requested"
    assert report.complete
    assert set(statuses) == {200}
    assert len(report.series) == len(symbols) * len(datasets)
    for line in report.series:
        assert_holds(store, market, line.series, JUNE)
    assert again.complete


def test_each_page_is_requested_once_and_no_request_is_refused() -> None:
    """The first page is requested once more before: it shows that history reaches back so far."""
    with simulated() as exchange:
        report = run(
            world(exchange).pipeline(
                MemorySink(), symbols="BTCUSD_PERP", start=JUNE.start, end=JUNE.end, interval="1m"
            )
        )
        statuses, weights, spans = (
            exchange.request_log.statuses,
            exchange.request_log.weights,
            kline_spans(exchange),
        )
    assert report.complete
    assert set(statuses) == {200}
    assert report.weight == weights.total()
    assert sum(spans[1:]) == JUNE.length
    assert len(spans) == 1 + -(-JUNE.length // (1500 * MINUTE))


@pytest.mark.parametrize("interval", ["1h", "12h", "1d", "3d", "1w", "1M"])
@pytest.mark.parametrize("dataset", KLINES)
def test_years_of_large_candles_are_requested_in_windows_of_200_days(dataset: str, interval: str) -> None:
    store = MemorySink()
    with simulated() as exchange:
        report = run(
            world(exchange).pipeline(
                store,
                symbols="BTCUSD_PERP",
                datasets=dataset,
                interval=interval,
                start="2023-01-01",
                end="2026-06-01",
            )
        )
        statuses, spans = exchange.request_log.statuses, kline_spans(exchange)
    assert report.complete
    assert set(statuses) == {200}, "a window of more than 200 days is refused"
    assert max(spans) <= 200 * DAY
    (line,) = report.series
    assert line.rows > 0
    assert_holds(store, market, line.series, line.wanted)


@pytest.mark.parametrize("interval", ["1m", "1h", "1d"])
def test_years_before_a_listing_cost_a_few_requests_for_each_200_days(interval: str) -> None:
    """The first row is searched in windows of 200 days; two answers and the listing prove the rest empty."""
    store = MemorySink()
    first = LATE - LATE % {"1m": MINUTE, "1h": HOUR, "1d": DAY}[interval]
    span = Span(span_of("2020-01-01", NOW).start, first + 2 * DAY)
    with simulated() as exchange:
        query: dict[str, Any] = {
            "symbols": "NEWUSD_PERP",
            "interval": interval,
            "start": span.start,
            "end": span.end,
        }
        report = run(world(exchange).pipeline(store, **query))
        statuses, spans = exchange.request_log.statuses, kline_spans(exchange)
    assert report.complete
    assert set(statuses) == {200}
    assert max(spans) <= 200 * DAY
    (line,) = report.series
    assert line.empty == SpanSet.of(Span(span.start, first))
    assert_holds(store, market, line.series, span)
    assert len(spans) <= 5 * -(-span.length // (200 * DAY))


def test_names_of_contracts() -> None:
    store = MemorySink()
    with simulated() as exchange:
        coinm = world(exchange)
        symbols = ["BTC/USD:BTC", "BTC/USD:BTC-260626", "ETHUSD_PERP"]
        report = run(coinm.pipeline(store, symbols=symbols, interval="1h"))
        everything = run(coinm.pipeline(None, symbols=AllSymbols(quote="USD"), interval="1d"))
    assert report.complete
    assert [line.series.symbol for line in report.series] == ["BTCUSD_PERP", "BTCUSD_260626", "ETHUSD_PERP"]
    assert {line.series.symbol for line in everything.series} == {*market.instruments} - {"BTCUSDT"}


def test_a_dated_contract_shares_the_series_of_its_pair_and_has_no_funding() -> None:
    store = MemorySink()
    datasets = ["index_price", "long_short_ratio", "funding_rate"]
    with simulated() as exchange:
        query: dict[str, Any] = {"datasets": datasets, "interval": "1h", "start": JUNE.start, "end": JUNE.end}
        report = run(world(exchange).pipeline(store, symbols="BTCUSD_260626", **query))
    assert report.complete
    index, ratio, funding = report.series
    for line in (index, ratio):
        of_pair = Series.of("binance-coinm", line.series.dataset, "BTCUSD_PERP", "1h")
        assert_same(store.read(line.series, JUNE), truth(market, of_pair, JUNE))
    assert funding.rows == 0
    assert funding.empty == SpanSet.of(JUNE)


@pytest.mark.parametrize("dataset", ["open_interest", "taker_volume"])
def test_a_statistic_of_a_dated_contract_is_refused_and_the_others_go_on(dataset: str) -> None:
    with simulated() as exchange:
        query: dict[str, Any] = {"datasets": dataset, "interval": "5m", "start": JUNE.start, "end": JUNE.end}
        report = run(
            world(exchange).pipeline(MemorySink(), symbols=["BTCUSD_260626", "BTCUSD_PERP"], **query)
        )
    dated, perpetual = report.series
    assert not dated.rows
    assert any("ask for BTCUSD_PERP" in gap.reason for gap in dated.missing)
    assert not perpetual.missing
    assert perpetual.rows == JUNE.length // (5 * MINUTE)


def test_parameters_of_requests() -> None:
    coinm = BinanceCoinm()

    def params(dataset: str, symbol: str, interval: str = "1h") -> dict[str, str | int]:
        part = Slice(Series.of(coinm.name, dataset, symbol, interval), Span(JUNE.start, JUNE.end), rows=432)
        return dict(coinm.endpoint(dataset).request(part).params)

    window = {"startTime": JUNE.start, "endTime": JUNE.end - 1, "limit": 432}
    assert params("ohlcv", "BTCUSD_260626") == {"symbol": "BTCUSD_260626", "interval": "1h"} | window
    assert params("index_price", "BTCUSD_260626") == {"pair": "BTCUSD", "interval": "1h"} | window
    assert params("long_short_ratio", "BTCUSD_260626") == {"pair": "BTCUSD", "period": "1h"} | window
    perpetual = {"pair": "BTCUSD", "contractType": "PERPETUAL", "period": "1h"}
    assert params("open_interest", "BTCUSD_PERP") == perpetual | window
    with pytest.raises(BadSymbol, match="that of BTCUSD_260626 changes; ask for BTCUSD_PERP"):
        params("taker_volume", "BTCUSD_260626")


def test_both_futures_hosts_count_together() -> None:
    coinm, usdm = BinanceCoinm(), BinanceUsdm()
    pools = {name: coinm.endpoint(name).cost(1).pool.name for name in (*KLINES, *STATISTICS, "funding_rate")}
    assert {pools[name] for name in (*KLINES, "funding_rate")} == {"binance-futures weight"}
    assert {pools[name] for name in STATISTICS} == {"binance-futures statistics"}
    for dataset in (*KLINES, "long_short_ratio", "open_interest"):
        pool = coinm.endpoint(dataset).cost(1).pool
        assert pool == usdm.endpoint(dataset).cost(1).pool
        assert pool.counted_hosts(coinm.base_url) == (usdm.base_url, coinm.base_url)
    assert coinm.endpoint("ohlcv").cost(1).pool.used_header == "x-mbx-used-weight-1m"
