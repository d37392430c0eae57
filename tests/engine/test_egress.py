"""Many egresses: each makes its share of the requests, and no request is refused by a rate limit."""

from __future__ import annotations

from typing import Literal

import pytest

from marketfetch.adapters.binance_usdm import BinanceUsdm, Ohlcv
from marketfetch.api.pipeline import Pipeline
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import (
    FaultKind,
    Faults,
    GeneratedMarket,
    LimitRules,
    LocalProxies,
    SimulatedExchange,
    SimulatorOptions,
)
from marketfetch.values.http import Cost, LimitPool
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings
from tests.support.worlds import World, run

SYMBOLS = [f"C{number}USDT" for number in range(10)]


@pytest.mark.parametrize("tiers", ["documented", "measured"])
def test_four_equal_egresses_share_the_weight_and_no_request_is_refused(
    tiers: Literal["documented", "measured"],
) -> None:
    options = SimulatorOptions(limits=LimitRules(tiers=tiers), latency=0.005)
    with (
        SimulatedExchange(GeneratedMarket(SYMBOLS, seed=2), options) as exchange,
        LocalProxies(4) as proxies,
    ):
        world = World(exchange, settings=Settings(concurrency=16))
        datasets = ["ohlcv", "premium_index"]
        report = run(
            world.pipeline(
                MemorySink(), proxies=proxies.urls, symbols=SYMBOLS, datasets=datasets, end="2026-06-15"
            )
        )
        weights, statuses = exchange.request_log.weights, exchange.request_log.statuses
    assert report.complete
    assert set(statuses) == {200}
    assert len(weights) == 4
    assert max(weights.values()) <= 0.35 * weights.total()
    # The pool counts the same weight as the exchange.
    assert report.weight == weights.total()
    assert report.retries == {}


SECOND = LimitPool("small weight", 40, 1000, "clock", used_header="x-mbx-used-weight-1m")


class SmallOhlcv(Ohlcv):
    """The klines route with a rate limit of 40 per second."""

    def cost(self, rows: int) -> Cost:
        return Cost(SECOND, super().cost(rows).weight)


class SmallUsdm(BinanceUsdm):
    name = "binance-usdm"
    weight = SECOND
    sources = (SmallOhlcv,)


@pytest.mark.parametrize("skew", [-3000, 0, 3000])
@pytest.mark.parametrize("egresses", [1, 3])
def test_a_job_beyond_the_budget_waits_for_the_next_window_and_is_never_refused(
    skew: int, egresses: int
) -> None:
    options = SimulatorOptions(
        limits=LimitRules(futures_weight=SECOND.capacity, period_scale=1 / 60), clock_skew=skew, latency=0.01
    )
    with (
        SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=2), options) as exchange,
        LocalProxies(egresses) as proxies,
    ):
        query = Query(symbols="BTCUSDT", start="2026-05-01", end="2026-06-15")
        pool = RotatingProxies(proxies.urls, direct=False)
        report = run(Pipeline(SmallUsdm(exchange.base_url), query, MemorySink(), proxies=pool))
        statuses, weights = exchange.request_log.statuses, exchange.request_log.weights
    assert report.complete
    assert set(statuses) == {200}
    assert weights.total() > SECOND.capacity * egresses


@pytest.mark.parametrize("rate", [0.3, 1.0])
@pytest.mark.parametrize("kind", [FaultKind.DATE_AHEAD, FaultKind.DATE_BEHIND])
def test_dates_that_are_a_year_wrong_lead_to_no_refusal(kind: FaultKind, rate: float) -> None:
    limits = LimitRules(futures_weight=SECOND.capacity, period_scale=1 / 60)
    options = SimulatorOptions(limits=limits, faults=Faults(rate=rate, kinds=[kind]))
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=2), options) as exchange:
        query = Query(symbols="BTCUSDT", start="2026-05-01", end="2026-06-15")
        report = run(Pipeline(SmallUsdm(exchange.base_url), query, MemorySink()))
        statuses, weights = exchange.request_log.statuses, exchange.request_log.weights
    assert report.complete
    assert set(statuses) == {200}
    assert weights.total() > SECOND.capacity


class Crowded(RotatingProxies):
    """A pool whose only address is shared with a hundred other processes."""

    def share(self) -> float:
        return 0.01


@pytest.mark.parametrize(("kind", "rows"), [(RotatingProxies, 1500), (Crowded, 499)])
def test_pages_are_as_large_as_the_share_of_the_budget_allows(kind: type[RotatingProxies], rows: int) -> None:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=2)) as exchange:
        query = Query(symbols="BTCUSDT", start="2026-06-01", end="2026-06-15")
        report = run(Pipeline(BinanceUsdm(exchange.base_url), query, MemorySink(), proxies=kind([])))
        asked = [seen.params["limit"] for seen in exchange.request_log.latest if seen.path.endswith("klines")]
    assert report.complete
    assert str(rows) in asked
