"""Following: each candle is stored once it has closed, and covered once it is final, with one request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import anyio
import attrs
import numpy as np
import pytest
from anyio import to_thread

from marketfetch.adapters.binance_usdm import BinanceUsdm, Ohlcv
from marketfetch.errors import SinkUnavailable
from marketfetch.protocols import ProcessRank, Store
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.reports import Report, SeriesHealth
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.urls import sink_from
from marketfetch.testing import (
    FaultKind,
    GeneratedMarket,
    LoggedRequest,
    Market,
    MarketInstrument,
    MarketRows,
    RevisingMarket,
    Window,
)
from marketfetch.values.intervals import Interval
from marketfetch.values.series import Series
from marketfetch.values.spans import MINUTE, SECOND, Span, SpanSet
from marketfetch.values.times import Clock
from tests.support.followed import NOON, FollowedWorld, followed_world, until
from tests.support.worlds import HOUR, assert_holds

BTC = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")
KLINES = "/fapi/v1/klines"


def covered_until(store: MemorySink, series: Series = BTC) -> int:
    hull = store.coverage([series])[series].covered.hull
    return 0 if hull is None else hull.end


def assert_true(store: MemorySink, market: Market, series: Series = BTC, start: int = NOON - HOUR) -> None:
    """The store has the true rows, all of them, up to the end of its coverage."""
    assert_holds(store, market, series, Span(series.interval.ceil(start), covered_until(store, series)))


async def minutes_pass(store: MemorySink, count: int, series: Series = BTC) -> None:
    """Wait until so many more minutes are covered."""
    end = covered_until(store, series) + count * MINUTE
    await until(lambda: covered_until(store, series) >= end)


def followed_requests(world: FollowedWorld) -> list[LoggedRequest[FaultKind]]:
    """Return the requests of the first hour: after it there is a run, which requests more.

    By the accelerated clock the hour is over after 3.6 s: on a busy machine before the test is.
    """
    return [seen for seen in world.exchange.request_log.latest if seen.time < NOON + HOUR - MINUTE]


def test_each_candle_costs_one_request_and_no_connection() -> None:
    store = MemorySink()
    with followed_world() as world:

        async def work() -> None:
            async with world.following(store, symbols=["BTCUSDT", "ETHUSDT"]):
                await until(lambda: covered_until(store) > NOON)
                world.exchange.request_log.clear()
                await minutes_pass(store, 20)

        world.run(work)
        record = followed_requests(world)
        asked = Counter((seen.params["symbol"], seen.params["endTime"]) for seen in record)
        assert {seen.path for seen in record} == {KLINES}
        assert set(asked.values()) == {1}, "each end is requested once of each symbol"
        assert {seen.weight for seen in record} == {1}
        assert not world.exchange.request_log.connections
        for symbol in ("BTCUSDT", "ETHUSDT"):
            assert_true(store, world.exchange.market, attrs.evolve(BTC, symbol=symbol))


def test_a_provisional_candle_is_stored_uncovered_and_revised_once_it_is_final() -> None:
    final, store = GeneratedMarket(["BTCUSDT"], seed=4), MemorySink()
    seen: list[tuple[int, int]] = []

    def revising(clock: Clock) -> Market:
        return RevisingMarket(final, clock, settling=45 * SECOND)

    with followed_world(revising) as world:

        async def work() -> tuple[SeriesHealth, ...]:
            async with world.following(store) as following:
                async for batch in following:
                    covered = batch.coverage.covered.hull
                    ahead = batch.columns.times[batch.columns.times >= (covered.end if covered else 0)]
                    seen.extend((int(time), world.clock()) for time in ahead)
                    if len(seen) > 10:
                        break
                return following.health()

        (health,) = world.run(work)
    assert all(now >= time + MINUTE for time, now in seen), "no candle that is still forming"
    assert health.provisional >= 1
    assert 1 <= health.revisions <= len(seen)
    assert health.last_error is None
    assert_true(store, final)
    newest = store.read(BTC, Span(0, NOON + HOUR)).times[-1]
    assert newest >= covered_until(store), "a provisional row is in the store, and not covered"


def test_a_run_after_the_end_requests_the_provisional_candle_once_more() -> None:
    final, store = GeneratedMarket(["BTCUSDT"], seed=4), MemorySink()

    def revising(clock: Clock) -> Market:
        return RevisingMarket(final, clock, settling=45 * SECOND)

    with followed_world(revising) as world:

        async def work() -> int:
            async with world.following(store) as following:
                await until(lambda: any(line.provisional for line in following.health()))
            await anyio.sleep(120)
            await world.pipeline(store)
            return covered_until(store)

        end = world.run(work)
    assert end > NOON
    assert_true(store, final)


@attrs.frozen
class LateMarket:
    """Publishes each row half a minute after its close."""

    market: Market
    now: Clock

    @property
    def instruments(self) -> Mapping[str, MarketInstrument]:
        return self.market.instruments

    def rows(self, dataset: str, symbol: str, interval: Interval, window: Window) -> MarketRows:
        published = interval.floor(self.now() - 30 * SECOND)
        return self.market.rows(
            dataset, symbol, interval, attrs.evolve(window, end=min(window.end, published))
        )


def test_a_candle_that_is_published_late_is_requested_a_few_times() -> None:
    store = MemorySink()
    with followed_world(lambda clock: LateMarket(GeneratedMarket(["BTCUSDT"], seed=4), clock)) as world:

        async def work() -> None:
            async with world.following(store):
                await until(lambda: covered_until(store) > NOON)
                world.exchange.request_log.clear()
                await minutes_pass(store, 10)

        world.run(work)
        # On a slow machine a candle has come by the time it is requested first.
        asked = Counter(seen.params["endTime"] for seen in followed_requests(world))
        assert asked
        assert max(asked.values()) <= 5
        assert_true(store, world.exchange.market)


class SlowOhlcv(Ohlcv):
    """Candles that are final after three minutes."""

    publish_delay = 3 * MINUTE


class SlowUsdm(BinanceUsdm):
    name = "binance-usdm"
    sources = (SlowOhlcv,)


def test_a_delay_of_several_candles_costs_one_request_for_each_all_the_same() -> None:
    store = MemorySink()
    with followed_world() as world:
        world.adapter = SlowUsdm

        async def work() -> int:
            async with world.following(store) as following:
                await until(lambda: covered_until(store) > NOON)
                world.exchange.request_log.clear()
                await minutes_pass(store, 20)
                (health,) = following.health()
                return health.provisional

        assert world.run(work) >= 2
        ends = Counter(seen.params["endTime"] for seen in followed_requests(world))
        assert set(ends.values()) == {1}
        assert_true(store, world.exchange.market)


def test_an_interval_longer_than_the_delay_costs_two_requests() -> None:
    store, series = MemorySink(), Series.of("binance-usdm", "ohlcv", "BTCUSDT", "5m")
    with followed_world() as world:

        async def work() -> int:
            async with world.following(store, interval="5m"):
                await until(lambda: covered_until(store, series) > NOON)
                world.exchange.request_log.clear()
                before = covered_until(store, series)
                await minutes_pass(store, 30, series)
            return (covered_until(store, series) - before) // (5 * MINUTE)

        candles = world.run(work)
        assert_true(store, world.exchange.market, series)
        requests = followed_requests(world)
        assert requests
        assert len(requests) <= 2 * candles + 2, "those of the next candle may be under way"


@attrs.frozen
class WithdrawingMarket:
    """Publishes every fifth candle, and withdraws it before it is final."""

    market: Market
    now: Clock

    @property
    def instruments(self) -> Mapping[str, MarketInstrument]:
        return self.market.instruments

    def rows(self, dataset: str, symbol: str, interval: Interval, window: Window) -> MarketRows:
        rows = self.market.rows(dataset, symbol, interval, window)
        kept = (rows.times % (5 * MINUTE) != 0) | (rows.times + MINUTE + 30 * SECOND > self.now())
        return rows.take(np.flatnonzero(kept))


class SlowToForget(MemorySink):
    """A store that is away when it should forget for the first time, for longer than a call is repeated."""

    refusals = 10

    def forget(self, series: Series, spans: SpanSet, *, rows: bool = False) -> None:
        if self.refusals:
            self.refusals -= 1
            raise SinkUnavailable("the store is away")
        super().forget(series, spans, rows=rows)


@pytest.mark.parametrize("kind", ["memory:", "sqlite:{}", "duckdb:{}", "parquet:{}", "away"])
def test_a_provisional_candle_that_the_exchange_withdraws_is_removed(tmp_path: Path, kind: str) -> None:
    store = SlowToForget() if kind == "away" else sink_from(kind.format(tmp_path / "market"))
    assert isinstance(store, Store)
    withdrawn: set[int] = set()

    def removed() -> list[int]:
        empty, rows = store.coverage([BTC])[BTC].empty, store.read(BTC, Span(0, NOON + 24 * HOUR))
        return [time for time in withdrawn if time in empty and time not in rows.times]

    with followed_world(
        lambda clock: WithdrawingMarket(GeneratedMarket(["BTCUSDT"], seed=4), clock)
    ) as world:

        async def work() -> None:
            async with world.following(store) as following:
                async for batch in following:
                    known = batch.coverage.covered.hull
                    ahead = batch.columns.times[batch.columns.times >= (known.end if known else 0)]
                    withdrawn.update(int(time) for time in ahead if time % (5 * MINUTE) == 0)
                    if len(await to_thread.run_sync(removed)) >= 2:
                        break

        world.run(work)
    assert min(withdrawn) in removed()


def test_a_run_of_another_process_shares_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run fetches two days up to now while a follow goes on; each knows that there is another process."""
    monkeypatch.setattr(RotatingProxies, "process_rank", lambda _self: ProcessRank(before=0, others=1))
    store = MemorySink()
    with followed_world() as world:

        async def work() -> Report:
            async with world.following(store):
                await until(lambda: covered_until(store) > NOON)
                run = world.pipeline(store, start=NOON - 48 * HOUR)
                report = await run.run()
                await minutes_pass(store, 3)
            return report

        report = world.run(work)
        assert report.complete, report
        assert_true(store, world.exchange.market, start=NOON - 48 * HOUR)
        (spans,) = store.coverage([BTC])[BTC].covered.spans
        assert spans.start == NOON // MINUTE * MINUTE - 48 * HOUR + MINUTE
