"""A plan against what its run did: requests and weight of six kinds of jobs, and what a plan may do."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

import marketfetch as mf
from marketfetch.api.pipeline import Pipeline
from marketfetch.engine import planner
from marketfetch.engine.archives import waves
from marketfetch.planning.batches import ProcessingCost
from marketfetch.planning.estimates import estimate_limit
from marketfetch.plans import LimitPlan, Plan, PlanComparison
from marketfetch.proxies.registry import Registry
from marketfetch.reports import Report
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import GeneratedMarket, LocalProxies, SimulatedExchange, SimulatorOptions
from marketfetch.values.settings import Settings
from marketfetch.values.times import SteadyClock, parse_time
from tests.support.sites import site
from tests.support.worlds import World, run, span_of

SYMBOLS = [f"C{number}USDT" for number in range(6)]


def planned(pipeline: Pipeline) -> tuple[Plan, Report]:
    """Plan, then run."""

    async def both() -> tuple[Plan, Report]:
        return await pipeline.plan(), await pipeline.run()

    return anyio.run(both)


def assert_right(report: Report, within: float = 0.02) -> None:
    comparison = report.plan
    assert isinstance(comparison, PlanComparison)
    total, actual = comparison.plan.total, comparison.actual
    assert report.complete, report
    assert total.requests == pytest.approx(actual.requests, rel=within), comparison
    assert total.weight == pytest.approx(actual.weight, rel=within), comparison
    assert total.rows == pytest.approx(report.rows_written, rel=within), comparison


@contextmanager
def world(venue: str = "binance-usdm", symbols: Sequence[str] = SYMBOLS, **market: object) -> Iterator[World]:
    options = SimulatorOptions(limits=None)
    with SimulatedExchange(GeneratedMarket(symbols, **market), options) as exchange:  # type: ignore[arg-type]
        yield World(exchange, venue)


def test_dense_candles() -> None:
    with world() as place:
        plan, report = planned(place.pipeline(MemorySink(), symbols=SYMBOLS, end="2026-06-20"))
    assert_right(report)
    assert plan.rest == plan.total
    assert plan.total.requests > 20


def test_several_datasets() -> None:
    datasets = ["ohlcv", "premium_index", "mark_price", "index_price"]
    with world() as place:
        pipeline = place.pipeline(
            MemorySink(), symbols=SYMBOLS, datasets=datasets, interval="5m", end="2026-06-12"
        )
        plan, report = planned(pipeline)
    assert_right(report)
    assert {line.series.dataset.name for line in plan.series} == {*datasets}


def test_events() -> None:
    with world() as place:
        pipeline = place.pipeline(
            MemorySink(), symbols=SYMBOLS, datasets="funding_rate", start="2024-06-01", end="2026-06-01"
        )
        _, report = planned(pipeline)
    comparison = report.plan
    assert comparison
    assert report.complete
    assert comparison.plan.total.requests == pytest.approx(comparison.actual.requests, rel=0.02), comparison
    assert comparison.plan.total.weight == pytest.approx(comparison.actual.weight, rel=0.02)


def test_a_store_with_gaps() -> None:
    with world() as place:
        store = MemorySink()
        for start, end in (("2026-06-03", "2026-06-04"), ("2026-06-07T05:17Z", "2026-06-09")):
            run(place.pipeline(store, symbols=SYMBOLS, start=start, end=end))
        plan, report = planned(place.pipeline(store, symbols=SYMBOLS, end="2026-06-15"))
    assert_right(report)
    assert all(len(line.missing) == 3 for line in plan.series)


def test_files_and_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "files_end_sooner", lambda *_: True)
    monkeypatch.setattr(waves, "_MIN_PAGES", 0)
    with site() as place:
        plan, report = planned(place.pipeline(MemorySink(), end="2026-02-20"))
    assert_right(report)
    assert plan.archive_seconds > 0
    assert plan.archive.rows == report.archive.rows
    assert plan.archive.requests == 2 * report.archive.files
    assert plan.archive.size == pytest.approx(report.archive.size, rel=0.02)


def test_several_egresses() -> None:
    with world() as place, LocalProxies(3) as proxies:
        pipeline = place.pipeline(
            MemorySink(), proxies=proxies.urls, symbols=SYMBOLS, start="2026-05-01", end="2026-06-20"
        )
        plan, report = planned(pipeline)
    assert_right(report)
    (limit,) = plan.limits
    assert [egress.name for egress in limit.egresses] == ["Proxy 1", "Proxy 2", "Proxy 3"]
    assert sum(egress.weight for egress in limit.egresses) == limit.weight == plan.total.weight


def test_a_listing_later_than_the_start_is_told_with_its_bound() -> None:
    with world(listed_at=span_of("2026-05-25", "2026-06-01").start) as place:
        plan, report = planned(place.pipeline(MemorySink(), symbols=SYMBOLS, start="2026-01-01"))
    assert_right(report)
    assert {line.first_row for line in plan.series} == {"listed"}
    assert plan.at_most.rows == 6 * 1440 * (151 + 1)
    assert plan.at_most.requests > plan.total.requests
    assert "6 of 6 series begin later by the listing; if they do not: at most" in str(plan)


@pytest.mark.parametrize(
    ("venue", "listed", "symbol"),
    [("okx", "BTCUSDT", "BTC-USDT-SWAP"), ("binance-coinm", "BTCUSD_PERP", "BTCUSD_PERP")],
)
def test_a_first_row_that_has_to_be_searched(venue: str, listed: str, symbol: str) -> None:
    market = GeneratedMarket([listed], listed_at=span_of("2026-05-25T03:00Z", "2026-06-01").start)
    options = SimulatorOptions(limits=None, okx_history_limit=300)
    with SimulatedExchange(market, options) as exchange:
        place = World(exchange, venue)
        pipeline = place.pipeline(MemorySink(), symbols=symbol, interval="5m", start="2026-04-01")
        plan, report = planned(pipeline)
    assert_right(report, within=0.1)
    assert plan.series[0].first_row == "listed"


def test_an_unknown_first_row_makes_the_plan_an_upper_bound() -> None:
    with world() as place:
        plan = anyio.run(place.pipeline(MemorySink(), symbols=SYMBOLS[:1]).plan)
        assert not plan.is_upper_bound
        line = attrs.evolve(plan.series[0], first_row="unknown")
    bound = attrs.evolve(plan, series=(line,))
    assert bound.is_upper_bound
    assert str(bound).startswith("at most 1,440 rows")
    assert bound.as_dict()["upper_bound"] is True


def test_a_plan_asks_for_the_clock_and_the_listing_alone_and_makes_no_file(tmp_path: Path) -> None:
    with world() as place:
        pipeline = place.pipeline(mf.SQLiteSink(f"{tmp_path}/new.sqlite"), symbols=[*SYMBOLS, "ABSENTUSDT"])
        plan = anyio.run(pipeline.plan)
        paths = {seen.path for seen in place.exchange.request_log.latest}
    assert paths == {"/fapi/v1/time", "/fapi/v1/exchangeInfo"}
    assert not [*tmp_path.iterdir()]
    assert plan.unknown == {"ABSENTUSDT": "unknown symbol; mf.instruments and `marketfetch symbols` list all"}
    assert plan.total.rows == 6 * 1440


def test_a_complete_store_needs_nothing() -> None:
    with world() as place:
        store = MemorySink()
        run(place.pipeline(store, symbols=SYMBOLS))
        plan, report = planned(place.pipeline(store, symbols=SYMBOLS))
    assert str(plan) == "Nothing to fetch"
    assert report.requests == 0
    assert report.as_dict()["plan"]["planned"] == report.as_dict()["plan"]["actual"] | {"seconds": 0.0}


def test_the_plan_belongs_to_the_next_run_alone() -> None:
    with world() as place:
        pipeline = place.pipeline(MemorySink(), symbols=SYMBOLS)

        async def twice() -> tuple[Report, Report]:
            await pipeline.plan()
            return await pipeline.run(), await pipeline.run()

        first, second = anyio.run(twice)
    assert first.plan is not None
    assert second.plan is None
    assert second.as_dict()["plan"] is None


def test_plan_of_the_package_takes_the_arguments_of_fetch() -> None:
    with world() as place:
        plan = mf.plan(
            "binance-usdm",
            "ohlcv, premium_index",
            SYMBOLS,
            start="2026-06-01",
            end="2026-06-03",
            base_url=place.exchange.base_url,
        )
    document = plan.as_dict()
    assert document["rows"] == 2 * 6 * 2880
    assert document["requests"] == sum(limit["requests"] for limit in document["limits"])
    assert document["series"][0]["missing"] == [
        {"start": "2026-06-01T00:00:00Z", "end": "2026-06-03T00:00:00Z"}
    ]
    assert str(plan).startswith("34,560 rows, ")


def test_the_seconds_are_computed_on_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service plans while it follows."""
    threads = list[int]()

    def watched(*given: Any) -> LimitPlan:
        threads.append(threading.get_ident())
        return estimate_limit(*given)

    monkeypatch.setattr(planner, "estimate_limit", watched)
    with world() as place:
        anyio.run(place.pipeline(None, symbols=SYMBOLS).plan)
    assert threads
    assert threading.get_ident() not in threads


def test_what_is_spent_already_makes_a_plan_longer() -> None:
    local = SteadyClock()
    began, minute = local(), parse_time("now", "2026-11-01T12:00:01Z", 0)

    def clock() -> int:
        """Begin with a minute, in which the weight is counted; by the real time it may be about to end."""
        return minute + local() - began

    options = SimulatorOptions(limits=None, now=clock)
    with SimulatedExchange(GeneratedMarket(SYMBOLS), options) as exchange:
        place = World(exchange, settings=Settings(concurrency=8, clock=clock), registry=Registry(clock))
        pipeline = place.pipeline(None, symbols=SYMBOLS, start="2026-01-01")

        async def plans() -> tuple[Plan, Plan]:
            before = await pipeline.plan()
            await place.pipeline(None, symbols=SYMBOLS, start="2026-05-01").run()
            return before, await pipeline.plan()

        before, after = anyio.run(plans)
    assert before.total.weight == after.total.weight
    (used,) = after.limits[0].egresses
    assert used.used >= 200


def test_the_seconds_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []
    for factor in (1, 1_000):
        monkeypatch.setattr(
            planner, "measure_processing_cost", partial(ProcessingCost, 1e-4 * factor, 1e-7 * factor)
        )
        with world() as place:
            plan, report = planned(place.pipeline(MemorySink(), symbols=SYMBOLS, end="2026-06-20"))
        assert_right(report)  # the run chooses the same pages on a slow machine
        plans.append(plan)
    fast, slow = plans
    assert slow.total == fast.total
    own = slow.total.requests * 0.1 + slow.total.rows * 1e-4
    assert own <= slow.seconds <= 1.5 * own, "the rest are a few round trips"
