"""A listing that is wrong about where a series begins or ends hides no row; nor does a name used twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
import pytest

from marketfetch.adapters.binance_usdm import BinanceUsdm, Ohlcv
from marketfetch.api.pipeline import Pipeline
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
from marketfetch.values.intervals import Interval
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span
from marketfetch.values.times import parse_time
from tests.support.plain import PlainServer, filled
from tests.support.worlds import DAY, HOUR, World, assert_holds, run

NOW = parse_time("now", "2026-11-01T00:00:00Z", 0)
JUNE = parse_time("start", "2026-06-01", 0)


def instrument(listed: int | None, gone: int | None = None) -> MarketInstrument:
    return MarketInstrument.parse("LITUSDT", listed or 0, gone)


@attrs.define
class Misdescribed:
    """A market that is listed otherwise than it is."""

    market: GeneratedMarket
    listed: MarketInstrument

    @property
    def instruments(self) -> Mapping[str, MarketInstrument]:
        return {self.listed.symbol: self.listed}

    def rows(self, dataset: str, symbol: str, interval: Interval, window: Window) -> MarketRows:
        return self.market.rows(dataset, symbol, interval, window)


def world(market: Any, exchange: SimulatedExchange) -> World:
    return World(exchange, settings=Settings(clock=lambda: NOW, concurrency=4))


LISTINGS: dict[str, MarketInstrument] = {
    "it ends in the middle": instrument(0, JUNE + 2 * DAY),
    "it ended long before": instrument(0, JUNE - 300 * DAY),
    "it ended before it began": instrument(JUNE + 2 * DAY, JUNE - DAY),
    "it begins in the middle": instrument(JUNE + 3 * DAY),
    "it begins after all of it": instrument(NOW - DAY),
    "it began long before": instrument(1_500_000_000_000),
    "it ended yesterday": instrument(0, NOW - DAY),
}


@pytest.mark.parametrize("dataset", ["ohlcv", "premium_index", "funding_rate", "open_interest"])
@pytest.mark.parametrize("what", LISTINGS)
def test_a_wrong_listing_hides_no_row(what: str, dataset: str) -> None:
    start = NOW - 20 * DAY if dataset == "open_interest" else JUNE
    market = GeneratedMarket([instrument(0)], seed=4)
    shown = LISTINGS[what]
    if dataset == "open_interest":  # it reaches back a month only
        shift = start - JUNE
        shown = attrs.evolve(
            shown,
            listed_at=shown.listed_at and shown.listed_at + shift,
            delisted_at=shown.delisted_at and min(shown.delisted_at + shift, NOW - HOUR),
        )
    wrong = Misdescribed(market, shown)
    with SimulatedExchange(wrong, SimulatorOptions(now=lambda: NOW)) as exchange:
        store = MemorySink()
        query: dict[str, Any] = {
            "symbols": "LITUSDT",
            "datasets": dataset,
            "interval": "1h",
            "start": start,
            "end": start + 7 * DAY,
        }
        report = run(world(wrong, exchange).pipeline(store, **query))
        assert report.complete
        (line,) = report.series
        assert line.rows > 0
        assert not line.empty or dataset == "funding_rate"  # between two events there is nothing
        assert_holds(store, market, line.series, line.wanted)


FIRST_END, SECOND_START = JUNE + 3 * DAY, JUNE + 40 * DAY


@attrs.define
class UsedTwice:
    """One name, two contracts: only the one that trades now is listed, or only the one that has ended."""

    listed: MarketInstrument
    second_end: int | None = None

    @property
    def instruments(self) -> Mapping[str, MarketInstrument]:
        return {self.listed.symbol: self.listed}

    def rows(self, dataset: str, symbol: str, interval: Interval, window: Window) -> MarketRows:
        gap = Span(FIRST_END, SECOND_START)
        later = [Span(self.second_end, NOW + 999 * DAY)] if self.second_end else []
        market = GeneratedMarket([instrument(0)], seed=4, gaps=[gap, *later])
        return market.rows(dataset, symbol, interval, window)


@pytest.mark.parametrize("start", [JUNE, FIRST_END - 2 * HOUR, FIRST_END + 5 * DAY])
@pytest.mark.parametrize("second_end", [None, SECOND_START + 10 * DAY])
@pytest.mark.parametrize(
    "listed",
    [instrument(SECOND_START), instrument(0, FIRST_END), instrument(SECOND_START, SECOND_START + 10 * DAY)],
    ids=["the second is listed", "the first is listed", "the second is listed with its end"],
)
def test_a_name_that_is_used_twice_has_both_histories(
    listed: MarketInstrument, second_end: int | None, start: int
) -> None:
    market = UsedTwice(listed, second_end)
    with SimulatedExchange(market, SimulatorOptions(now=lambda: NOW)) as exchange:
        store, there = MemorySink(), world(market, exchange)
        query: dict[str, Any] = {"symbols": "LITUSDT", "interval": "1h", "start": start, "end": NOW - DAY}
        report = run(there.pipeline(store, **query))
        assert report.complete
        (line,) = report.series
        assert_holds(store, market, line.series, line.wanted)
        assert there.asked("/klines") < 30


@pytest.mark.parametrize("kind", [FaultKind.EMPTY_PAGE, FaultKind.SHORT_PAGE, FaultKind.WRONG_WINDOW])
def test_a_wrong_listing_and_one_wrong_answer_to_each_question_hide_no_row(kind: FaultKind) -> None:
    market = GeneratedMarket([instrument(0)], seed=4)
    wrong = Misdescribed(market, instrument(0, JUNE + 2 * DAY))
    with SimulatedExchange(wrong, SimulatorOptions(now=lambda: NOW)) as exchange:
        exchange.faults = Faults(rate=1, kinds=[kind], paths=["/fapi/v1/klines"])
        store = MemorySink()
        report = run(
            world(wrong, exchange).pipeline(
                store, symbols="LITUSDT", interval="1h", start=JUNE, end=JUNE + 9 * DAY
            )
        )
        assert report.complete
        assert_holds(store, market, report.series[0].series, report.series[0].wanted)


def test_an_end_that_is_right_costs_a_few_requests() -> None:
    market = GeneratedMarket([instrument(0, JUNE + 2 * DAY)], seed=4)
    with SimulatedExchange(market, SimulatorOptions(now=lambda: NOW)) as exchange:
        store, there = MemorySink(), world(market, exchange)
        query: dict[str, Any] = {"symbols": "LITUSDT", "interval": "1m", "start": JUNE, "end": NOW - DAY}
        report = run(there.pipeline(store, **query))
        assert report.complete
        assert there.asked("/klines") < 12
        assert_holds(store, market, report.series[0].series, report.series[0].wanted)


class WithoutFirst(Ohlcv):
    def first_row_request(self, series: object, start: int) -> None:
        """There is no such request."""


class PlainBinance(BinanceUsdm):
    sources: ClassVar = (WithoutFirst,)


@pytest.mark.parametrize("what", LISTINGS)
def test_an_adapter_without_a_request_for_the_first_row_finds_every_row(what: str) -> None:
    market = GeneratedMarket([instrument(0)], seed=4)
    wrong = Misdescribed(market, LISTINGS[what])
    with SimulatedExchange(wrong, SimulatorOptions(now=lambda: NOW)) as exchange:
        query: dict[str, Any] = {"symbols": "LITUSDT", "interval": "1m", "start": JUNE, "end": JUNE + 9 * DAY}
        asked = world(wrong, exchange).pipeline(None, **query)._config.query
        store = MemorySink()
        settings = Settings(clock=lambda: NOW)
        report = run(Pipeline(PlainBinance(exchange.base_url), asked, store, settings=settings))
        assert report.complete
        assert_holds(store, market, report.series[0].series, report.series[0].wanted)


@pytest.mark.parametrize("dataset", ["mark_price", "index_price", "funding_rate"])
@pytest.mark.parametrize("listed", [None, 0, JUNE + 40 * DAY])
@pytest.mark.parametrize("gone", [JUNE + 2 * DAY, JUNE - 100 * DAY, JUNE + 60 * DAY])
def test_the_plainest_exchange_with_a_name_that_is_used_twice(
    dataset: str, listed: int | None, gone: int
) -> None:
    step = 8 * HOUR if dataset == "funding_rate" else 900_000
    times = [*range(JUNE, FIRST_END, step), *range(SECOND_START, SECOND_START + 20 * DAY, step)]
    with PlainServer(times, listed_at=listed, delisted_at=gone).serving() as server:
        store = MemorySink()
        report, line, _ = filled(
            server, dataset, store, now=NOW, interval="15m", start=JUNE, end=JUNE + 90 * DAY
        )
    assert store.read(line.series, line.wanted).times.tolist() == times
    assert report.complete
