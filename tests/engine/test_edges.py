"""The edges of history: rows that are published late, partial candles, delisted symbols, legal refusals."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from marketfetch.adapters.binance_usdm import BinanceUsdm, FundingRate
from marketfetch.api.pipeline import Pipeline
from marketfetch.errors import ConfigurationError, RestrictedLocation
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import (
    FaultKind,
    Faults,
    GeneratedMarket,
    MarketInstrument,
    MarketRows,
    SimulatedExchange,
    SimulatorOptions,
    Window,
)
from marketfetch.values.coverage import Coverage
from marketfetch.values.instruments import Composite
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.query import AllSymbols, Query
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span, SpanSet
from marketfetch.values.times import parse_time
from tests.support.worlds import HOUR, World, assert_holds, assert_same, run, span_of, truth

NOON = parse_time("now", "2026-11-01T16:00:03Z", 0)


@attrs.define
class LateMarket:
    """A market whose newest rows appear only after a while."""

    market: GeneratedMarket
    hidden_from: int

    @property
    def instruments(self) -> Any:
        return self.market.instruments

    def rows(self, dataset: str, symbol: str, interval: Interval, window: Window) -> MarketRows:
        table = self.market.rows(dataset, symbol, interval, window)
        return table.take(np.flatnonzero(table.times < self.hidden_from))


@pytest.mark.parametrize("dataset", ["ohlcv", "funding_rate"])
def test_a_row_that_comes_late_is_awaited_not_called_absent(dataset: str) -> None:
    now = [NOON]
    market = LateMarket(GeneratedMarket(["BTCUSDT"], seed=4), hidden_from=NOON - 63_000)
    with SimulatedExchange(market, SimulatorOptions(now=lambda: now[0])) as exchange:
        world, store = World(exchange, settings=Settings(clock=lambda: now[0])), MemorySink()
        query: dict[str, Any] = {"datasets": dataset, "start": NOON - 24 * HOUR, "end": "now"}
        early = run(world.pipeline(store, **query))
        assert not any(span.end > NOON - 300_000 for span in early.series[0].empty)
        market.hidden_from, now[0] = NOON + HOUR, NOON + HOUR
        late = run(world.pipeline(store, **query))
    assert late.complete
    (line,) = late.series
    expected = truth(market.market, line.series, line.wanted)
    np.testing.assert_array_equal(store.read(line.series, line.wanted).times, expected.times)


class UndeclaredFundingRate(FundingRate):
    """Events of an adapter that does not say when they are published."""

    publish_delay = 0


class Undeclared(BinanceUsdm):
    sources = (UndeclaredFundingRate,)


def test_a_late_event_is_not_lost_where_no_delay_is_declared() -> None:
    now = [NOON]  # three seconds after an event, which is not published yet
    market = LateMarket(GeneratedMarket(["BTCUSDT"], seed=4), hidden_from=NOON - 3000)
    store = MemorySink()
    with SimulatedExchange(market, SimulatorOptions(now=lambda: now[0])) as exchange:
        query = Query(symbols="BTCUSDT", datasets="funding_rate", start=NOON - 24 * HOUR)
        for late in (0, HOUR):
            market.hidden_from, now[0] = market.hidden_from + 2 * late, NOON + late
            settings = Settings(clock=lambda: now[0])
            report = run(Pipeline(Undeclared(exchange.base_url), query, store, settings=settings))
            assert report.complete
    (line,) = report.series
    assert store.read(line.series, line.wanted).times[-1] >= NOON - 3000
    assert_same(store.read(line.series, line.wanted), truth(market.market, line.series, line.wanted))


@pytest.mark.parametrize(
    ("interval", "now"),
    [
        ("1h", "2026-11-01T16:02:00Z"),
        ("1d", "2026-11-01T00:02:00Z"),
        ("1w", "2026-11-02T00:03:00Z"),
        ("1M", "2026-11-01T00:02:30Z"),
    ],
)
def test_a_long_candle_that_comes_late_is_awaited_as_a_whole(interval: str, now: str) -> None:
    clock = [parse_time("now", now, 0)]
    last = Interval.parse(interval).floor(clock[0] - HOUR)
    market = LateMarket(GeneratedMarket(["BTCUSDT"], seed=4), hidden_from=last)
    with SimulatedExchange(market, SimulatorOptions(now=lambda: clock[0])) as exchange:
        world, store = World(exchange, settings=Settings(clock=lambda: clock[0])), MemorySink()
        query: dict[str, Any] = {"interval": interval, "start": "2026-06-01", "end": "now"}
        (early,) = run(world.pipeline(store, **query)).series
        assert [(task.spans.hull, task.reason) for task in early.missing] == [
            (
                Span(last, Interval.parse(interval).shift(last, 1)),
                "the exchange has not published it yet; run again in a few minutes",
            )
        ]
        assert not early.empty
        market.hidden_from, clock[0] = clock[0] + HOUR, clock[0] + HOUR // 2
        late = run(world.pipeline(store, **query))
    assert late.complete
    assert_holds(store, market.market, early.series, early.wanted)


def test_a_candle_that_a_store_calls_partly_empty_is_requested_as_a_whole() -> None:
    store = MemorySink()
    series = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1h")
    day = span_of("2026-06-01", "2026-06-02")
    cut = SpanSet.of(Span(day.start + 5 * HOUR, day.start + 6 * HOUR - 180_000))
    with store.writer() as write:
        write(Batch(series, Columns.empty(series.dataset), Coverage(cut, cut)))
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4)) as exchange:
        assert run(World(exchange).pipeline(store, interval="1h")).complete
    assert_holds(store, exchange.market, series, day)
    assert not store.coverage([series])[series].empty


def test_a_symbol_that_was_delisted_yesterday_does_not_stop_the_run() -> None:
    gone = MarketInstrument.parse("DEADUSDT", 0, parse_time("gone", "2026-06-01T09:00Z", 0))
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", gone], seed=4)) as exchange:
        symbols = ["BTCUSDT", "DEADUSDT"]
        report = run(World(exchange).pipeline(MemorySink(), symbols=symbols, interval="1d", end="2026-06-03"))
    assert report.series[0].rows == 2
    assert report.complete


def test_a_server_that_ignores_the_start_does_not_empty_the_history() -> None:
    market = GeneratedMarket(["BTCUSDT"], seed=4)
    with SimulatedExchange(market) as exchange:
        exchange.faults = Faults(rate=1, kinds=[FaultKind.SINCE_IGNORED], paths=["/api/v3/klines"], times=2)
        store = MemorySink()
        report = run(World(exchange, "binance-spot").pipeline(store))
    assert report.complete
    assert not report.series[0].empty
    assert_holds(store, market, report.series[0].series, report.series[0].wanted)


def test_a_legal_refusal_of_the_first_request_is_not_repeated_for_every_symbol() -> None:
    symbols = [f"C{number}USDT" for number in range(30)]
    with SimulatedExchange(GeneratedMarket(symbols, seed=4)) as exchange:
        exchange.faults = Faults(rate=1, kinds=[FaultKind.STATUS_451], paths=["/api/v3/klines"], times=99)
        world = World(exchange, "binance-spot")
        with pytest.raises(RestrictedLocation):
            run(world.pipeline(MemorySink(), symbols=symbols))
        assert world.asked("/klines") <= world.settings.concurrency


def test_wrong_names_that_only_the_listing_shows_are_refused() -> None:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT", "XRPUSDT"], seed=4)) as exchange:
        world = World(exchange)
        with pytest.raises(ConfigurationError, match="is a symbol of binance-usdm"):
            run(world.pipeline(MemorySink(), composites=[Composite("XRPUSDT", ("BTCUSDT", "ETHUSDT"))]))
        with pytest.raises(ConfigurationError, match="the same member twice"):
            run(world.pipeline(MemorySink(), composites=[Composite("MT", ("ETHUSDT", "ETH/USDT"))]))
        with pytest.raises(ConfigurationError, match="quote: 'usdt' is unknown; did you mean 'USDT'"):
            run(world.pipeline(MemorySink(), symbols=AllSymbols(quote="usdt")))
