"""Exchanges with a wrong clock, revised candles, incomplete listings, or pages without progress."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

import attrs
import pytest

from marketfetch.adapters.binance_usdm import BinanceUsdm, Ohlcv
from marketfetch.api.pipeline import Pipeline
from marketfetch.errors import ConfigurationError
from marketfetch.events import ClockSkewDetected
from marketfetch.protocols import Lease, PageOutcome
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.reports import EgressReport, Report
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import (
    FaultKind,
    Faults,
    GeneratedMarket,
    RevisingMarket,
    SimulatedExchange,
    SimulatorOptions,
    Window,
)
from marketfetch.values.http import Request
from marketfetch.values.pages import Page
from marketfetch.values.query import AllSymbols, Query
from marketfetch.values.settings import Settings
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet
from marketfetch.values.times import SteadyClock, parse_time
from tests.support.worlds import HOUR, MINUTE, World, assert_holds, run

NOON = parse_time("now", "2026-11-01T12:00:00Z", 0)
TIME = "/fapi/v1/time"
YEAR = 365 * 24 * HOUR


def reported(
    store: MemorySink, now: int, *, skew: int = 0, faults: Faults | None = None
) -> tuple[World, Report]:
    """A run up to now, with a local clock that is right."""
    local = SteadyClock()
    began = local()

    def clock() -> int:
        """Go on from `now`: of a clock that stands, two answers contradict each other on a busy machine."""
        return now + local() - began

    options = SimulatorOptions(now=clock, clock_skew=skew, faults=faults)
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4), options) as exchange:
        world = World(exchange, settings=Settings(clock=clock))
        return world, run(world.pipeline(store, start=NOON - HOUR, end="now"))


@pytest.mark.parametrize("skew", [2 * HOUR, YEAR])
def test_a_clock_that_runs_ahead_closes_no_candle_too_soon(skew: int) -> None:
    """The simulated exchange serves rows up to its own time, which is in the future."""
    store = MemorySink()
    world, report = reported(store, NOON + 30_000, skew=skew)
    (line,) = report.series
    assert report.complete
    assert store.read(line.series, Span(0, 2 * NOON)).times[-1] == NOON - 2 * MINUTE
    assert [event.ahead for event in world.events_of(ClockSkewDetected)] == [pytest.approx(skew, abs=MINUTE)]


@pytest.mark.parametrize("skew", [-2 * HOUR, -YEAR])
def test_the_time_between_two_clocks_is_reported_missing(skew: int) -> None:
    store = MemorySink()
    world, report = reported(store, NOON, skew=skew)
    (line,) = report.series
    assert not report.complete
    assert (line.rows, line.wanted) == (0, Span(NOON - HOUR, NOON))
    assert SpanSet.of(line.wanted) == line.missing[0].spans
    assert "clock" in line.missing[0].reason
    assert len(world.events_of(ClockSkewDetected)) == 1


@pytest.mark.parametrize("kind", [kind for kind in FaultKind if kind.startswith("clock_")])
def test_a_clock_that_is_wrong_once_is_requested_again(kind: FaultKind) -> None:
    faults = Faults(rate=1, kinds=[kind], paths=[TIME])
    world, report = reported(MemorySink(), NOON + 1000, faults=faults)
    assert report.complete
    assert report.series[0].wanted == Span(NOON - HOUR, NOON - MINUTE)
    assert world.exchange.request_log.faults == {kind: 1}
    assert not world.events_of(ClockSkewDetected)


def test_a_small_clock_skew_is_not_reported() -> None:
    world, report = reported(MemorySink(), NOON + 1000, skew=-2 * MINUTE)
    assert report.complete
    assert report.series[0].wanted.end == NOON - 3 * MINUTE
    assert world.asked(TIME) == 1
    assert not world.events_of(ClockSkewDetected)


@pytest.mark.parametrize("kind", [FaultKind.DATE_AHEAD, FaultKind.DATE_BEHIND])
def test_a_proxy_that_writes_its_own_date_into_every_answer_decides_nothing(kind: FaultKind) -> None:
    store, faults = MemorySink(), Faults(rate=1, kinds=[kind], times=1000)
    world, report = reported(store, NOON + 1000, skew=-2 * MINUTE, faults=faults)
    assert report.complete
    assert report.series[0].wanted.end == NOON - 3 * MINUTE
    assert world.asked(TIME) == 2  # the answer contradicts the header, and says the same again
    assert not world.events_of(ClockSkewDetected)


def test_the_time_is_requested_once_while_the_clocks_agree() -> None:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4)) as exchange:
        world, store = World(exchange), MemorySink()
        for hours in (3, 2, 1):
            assert run(world.pipeline(store, start=f"{5 - hours}h", end="now")).complete
            assert world.asked(TIME) == 1
        exchange.options = attrs.evolve(exchange.options, clock_skew=-2 * MINUTE)
        assert run(world.pipeline(MemorySink(), start="1h", end="now")).complete
        assert run(world.pipeline(MemorySink(), start="1h", end="now")).complete
        assert world.asked(TIME) > 1


class OwnPool:
    """A pool of the caller's that knows no clock."""

    def __init__(self) -> None:
        self._pool = RotatingProxies([])

    def lease(self, request: Request) -> AbstractAsyncContextManager[Lease]:
        return self._pool.lease(request)

    def statistics(self) -> Sequence[EgressReport]:
        return ()


@pytest.mark.parametrize("skew", [0, -2 * MINUTE])
def test_a_pool_without_a_clock_still_closes_no_candle_too_soon(skew: int) -> None:
    options = SimulatorOptions(now=lambda: NOON + 1000, clock_skew=skew)
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4), options) as exchange:
        query = Query(symbols="BTCUSDT", start=NOON - HOUR, end="now")
        settings = Settings(clock=lambda: NOON + 1000)
        exchange_of = BinanceUsdm(exchange.base_url)
        report = run(Pipeline(exchange_of, query, MemorySink(), proxies=OwnPool(), settings=settings))
    assert report.complete
    assert report.series[0].wanted.end == NOON - MINUTE + skew


@pytest.mark.parametrize("venue", ["binance-usdm", "binance-spot", "okx"])
def test_a_candle_that_is_revised_after_its_close_is_not_stored_before_it_is_final(venue: str) -> None:
    now = [NOON + 10_000]
    final = GeneratedMarket(["BTCUSDT"], seed=4)
    market = RevisingMarket(final, now=lambda: now[0], settling=45_000)
    query: dict[str, Any] = {"start": NOON - HOUR, "end": "now"}
    if venue == "okx":
        query["symbols"] = "BTC-USDT"
    with SimulatedExchange(market, SimulatorOptions(now=lambda: now[0])) as exchange:
        world, store = World(exchange, venue, settings=Settings(clock=lambda: now[0])), MemorySink()
        for _ in range(8):  # the candle of 11:59 closed ten seconds ago, and is final in another 35
            report = run(world.pipeline(store, **query))
            assert report.complete
            (line,) = report.series
            rows = store.read(line.series, line.wanted)
            window = Window(line.wanted.start, line.wanted.end)
            expected = final.rows("ohlcv", "BTCUSDT", line.series.interval, window).floats()
            assert rows.values[3].tolist() == expected["close"].tolist()
            now[0] += 10_000
    assert line.wanted.end == NOON


@pytest.mark.parametrize("kind", [FaultKind.EMPTY_PAGE, FaultKind.SHORT_PAGE])
@pytest.mark.parametrize("everything", [False, True])
def test_a_listing_that_lacks_a_symbol_is_requested_again(kind: FaultKind, everything: bool) -> None:
    market = GeneratedMarket(["BTCUSDT", "ETHUSDT", "XRPUSDT"], seed=4)
    with SimulatedExchange(market) as exchange:
        exchange.faults = Faults(rate=1, kinds=[kind], paths=["/api/v5/public/instruments"])
        symbols = AllSymbols() if everything else ["XRP-USDT", "XRP-USDT-SWAP"]
        report = run(World(exchange, "okx").pipeline(MemorySink(), symbols=symbols, interval="1h"))
    assert report.complete
    assert len(report.series) == (6 if everything else 2)


@attrs.frozen
class Circles:
    """A paginator that leaves over another slice each time, and never decides anything."""

    sequential = True

    def split(self, whole: Slice) -> Iterable[Slice]:
        yield whole

    def outcome(self, part: Slice, page: Page) -> PageOutcome:
        cursor = "one" if part.cursor == "two" else "two"
        return PageOutcome(SpanSet(), remaining=(attrs.evolve(part, cursor=cursor),))


class CircularOhlcv(Ohlcv):
    paginator = Circles()


class Circular(BinanceUsdm):
    sources = (CircularOhlcv,)


def test_a_paginator_that_makes_no_headway_is_stopped() -> None:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4)) as exchange:
        query = World(exchange).pipeline(None)._config.query  # the same small job
        report = run(Pipeline(Circular(exchange.base_url), query, MemorySink()))
        asked = exchange.request_log.total
    assert not report.complete
    assert "PaginationError: 20 answers in a row decided nothing new" in report.series[0].missing[0].reason
    assert asked < 30


class WrongOhlcv(Ohlcv):
    """Requests an interval that does not exist."""

    page_sizes = (10,)  # type: ignore[assignment]  # the base class has four
    intervals: ClassVar[Mapping[str, str]] = {"1m": "61s"}


class Wrong(BinanceUsdm):
    sources = (WrongOhlcv,)


def test_a_series_is_stopped_after_three_rejected_requests() -> None:
    """A day in pages of ten minutes would be rejected 144 times; exchanges ban such clients."""
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4)) as exchange:
        query = World(exchange).pipeline(None)._config.query  # the same small job
        settings = Settings(concurrency=4)
        report = run(Pipeline(Wrong(exchange.base_url), query, MemorySink(), settings=settings))
        asked = exchange.request_log.statuses[400]
    (line,) = report.series
    assert SpanSet(tuple(each for task in line.missing for each in task.spans)) == SpanSet.of(line.wanted)
    assert any("3 requests in a row were rejected" in task.reason for task in line.missing)
    assert asked <= 3 + settings.concurrency + 1  # requests in flight, and the search for the first row


@pytest.mark.parametrize("argument", ["concurrency", "batch_rows", "deadline", "heartbeat", "max_rounds"])
def test_settings_that_are_too_small_are_named(argument: str) -> None:
    arguments: dict[str, Any] = {argument: 0}
    with pytest.raises(ConfigurationError, match=f"^{argument}: must be .*, not 0"):
        Settings(**arguments)


def test_a_redirect_is_retried_as_exchange_not_available() -> None:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4)) as exchange:
        exchange.faults = Faults(rate=1, kinds=[FaultKind.REDIRECT_AWAY], paths=["/fapi/v1/klines"], times=2)
        store = MemorySink()
        world = World(exchange)
        report = run(world.pipeline(store))
        assert report.retries["ExchangeNotAvailable"] > 0
        assert_holds(store, exchange.market, report.series[0].series, report.series[0].wanted)
