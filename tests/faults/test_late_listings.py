"""A series that begins long after what is wanted costs a handful of requests more."""

from __future__ import annotations

from typing import Any

import pytest

from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import GeneratedMarket, MarketInstrument, SimulatedExchange, SimulatorOptions
from marketfetch.values.intervals import Interval
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span, SpanSet
from marketfetch.values.times import parse_time
from tests.support.plain import PlainServer, filled
from tests.support.worlds import DAY, HOUR, World, assert_holds, run

NOW = parse_time("now", "2026-11-01T00:00:00Z", 0)
START = parse_time("start", "2025-01-01", 0)
LISTED = NOW - 30 * DAY


@pytest.mark.parametrize("limit", [100, 300])
@pytest.mark.parametrize("interval", ["15m", "1h"])
def test_okx_with_a_symbol_of_thirty_days(interval: str, limit: int) -> None:
    market = GeneratedMarket([MarketInstrument.parse("NEWUSDT", LISTED + 7 * 60_000)], seed=4)
    options = SimulatorOptions(now=lambda: NOW, okx_history_limit=limit, limits=None)
    with SimulatedExchange(market, options) as exchange:
        world = World(exchange, "okx", settings=Settings(clock=lambda: NOW))
        store = MemorySink()
        query: dict[str, Any] = {
            "symbols": "NEW-USDT-SWAP",
            "interval": interval,
            "start": START,
            "end": NOW - HOUR,
        }
        report = run(world.pipeline(store, **query))
        asked = world.asked("/history-candles")
        again = run(world.pipeline(store, **query))
        assert world.asked("/history-candles") == asked, "what is confirmed is not asked again"
    assert report.complete
    assert again.complete
    (line,) = report.series
    step = Interval.parse(interval)
    first = step.floor(LISTED + 7 * 60_000)
    assert line.empty == SpanSet.of(Span(START, first))
    assert line.rows == step.count(Span(first, NOW - HOUR))
    pages = -(-line.rows // limit) + -(-line.rows // 300)
    assert asked <= pages + 12


@pytest.mark.parametrize("dataset", ["mark_price", "index_price"])
@pytest.mark.parametrize(
    "listed", [LISTED, LISTED - 40 * 60_000, LISTED - 100 * DAY, LISTED + 10 * DAY, None, START + 1, NOW]
)
def test_an_exchange_without_a_request_for_the_first_row(dataset: str, listed: int | None) -> None:
    """Whatever the listing says, all rows are found; where it agrees with them, the rest is empty."""
    times = range(LISTED, NOW, 15 * 60_000)
    with PlainServer(times, listed_at=listed).serving() as server:
        store = MemorySink()
        report, line, asked = filled(
            server,
            dataset,
            store,
            now=NOW,
            interval="15m",
            start=START,
            end=NOW - HOUR,
        )
    assert store.read(line.series, line.wanted).times.tolist() == list(times)[:-4]
    assert asked <= 29 + 30
    agrees = listed is not None and LISTED - HOUR <= listed <= LISTED
    assert report.complete is agrees
    assert line.empty == (SpanSet.of(Span(START, LISTED)) if agrees else SpanSet())


def test_a_page_that_is_cut_shorter_than_documented_hides_nothing() -> None:
    times = range(LISTED, NOW, 15 * 60_000)
    with PlainServer(times, listed_at=LISTED, cap=7).serving() as server:
        store = MemorySink()
        report, line, _ = filled(
            server, "index_price", store, now=NOW, interval="15m", start=NOW - 400 * DAY, end=NOW - HOUR
        )
    assert report.complete
    assert store.read(line.series, line.wanted).times.tolist() == list(times)[:-4]


def test_binance_funding_of_a_new_symbol() -> None:
    """Events: a chain finds its first one by itself, and the request for the first row confirms the rest."""
    market = GeneratedMarket([MarketInstrument.parse("NEWUSDT", LISTED)], seed=4)
    with SimulatedExchange(market, SimulatorOptions(now=lambda: NOW)) as exchange:
        world = World(exchange, settings=Settings(clock=lambda: NOW))
        store = MemorySink()
        report = run(
            world.pipeline(store, symbols="NEWUSDT", datasets="funding_rate", start=START, end=NOW - HOUR)
        )
        assert report.complete
        assert world.asked("/fundingRate") <= 6
        assert_holds(store, market, report.series[0].series, report.series[0].wanted)
