"""While requests wait for a budget, heartbeats and the state of an egress name the reason."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
import attrs
import pytest

import marketfetch as mf
from marketfetch.adapter import Cost, LimitPool
from marketfetch.adapters.binance_usdm import BinanceUsdm, Ohlcv
from marketfetch.errors import Banned, RateLimitExceeded
from marketfetch.events import Event, Heartbeat
from marketfetch.protocols import Lease, Request, Response
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.testing import GeneratedMarket, LimitRules, SimulatedExchange, SimulatorOptions

PERIOD = 6_000
WEIGHT = LimitPool("binance-futures weight", 24, PERIOD, "clock", used_header="x-mbx-used-weight-1m")
CANDLES = LimitPool("okx history-candles", 20, 60_000)
CALLS = LimitPool("calls", 200, 60_000)


class SmallOhlcv(Ohlcv):
    def cost(self, rows: int) -> Cost:
        return Cost(WEIGHT, super().cost(rows).weight)


class SmallUsdm(BinanceUsdm):
    """Binance with a minute of six seconds and a hundredth of its budget."""

    name = "binance-usdm"
    weight = WEIGHT
    sources = (SmallOhlcv,)


def test_a_run_tells_at_once_that_it_waits_and_that_it_goes_on() -> None:
    rules = LimitRules(futures_weight=WEIGHT.capacity, period_scale=1 / 10)
    beats: list[Heartbeat] = []

    def listen(event: Event) -> None:
        if isinstance(event, Heartbeat):
            beats.append(event)

    with SimulatedExchange(GeneratedMarket(["BTCUSDT"]), SimulatorOptions(limits=rules)) as exchange:
        query = mf.Query(symbols="BTCUSDT", start="2026-06-01", end="2026-06-09")
        settings = mf.Settings(heartbeat=50.0)  # nothing comes by itself
        pipeline = mf.Pipeline(SmallUsdm(exchange.base_url), query, settings=settings, listeners=[listen])
        assert anyio.run(pipeline.run).complete
        assert set(exchange.request_log.statuses) == {200}
    waiting_beats = [beat for beat in beats if beat.waiting]
    assert waiting_beats
    assert len(beats) >= 2
    for beat in waiting_beats:
        assert re.fullmatch(
            r"waiting [1-7] s for the weight limit of binance-futures \(2\d of 24 used\)", beat.waiting
        )
        assert re.fullmatch(
            r"waiting [1-7] s for the weight limit of binance-futures", beat.egresses[0].state
        )
    assert beats[-1].waiting == ""


@attrs.define
class FakeClock:
    ms: int = 1_780_272_000_000

    def __call__(self) -> int:
        return self.ms


@asynccontextmanager
async def waiting_for(pool: RotatingProxies, limit: LimitPool) -> AsyncGenerator[None]:
    """Let a request wait as long as the block lasts; it begins when the pool has told so."""
    async with anyio.create_task_group() as group:

        async def wait() -> None:
            async with pool.lease(Request("/x", cost=Cost(limit))):
                raise AssertionError("it was served")

        group.start_soon(wait)
        await pool.waiting_changed()
        yield
        group.cancel_scope.cancel()


async def spend(pool: RotatingProxies, limit: LimitPool, outcome: Callable[[Lease], None]) -> None:
    async with pool.lease(Request("/x", cost=Cost(limit, limit.capacity))) as lease:
        outcome(lease)


def answered(lease: Lease) -> None:
    lease.answered(Response(200, {}, b"", 0, 0))


def failed(error: Exception) -> Callable[[Lease], None]:
    return lambda lease: lease.failed(error)


@pytest.mark.parametrize(
    ("limit", "outcome", "words", "state"),
    [
        (
            CANDLES,
            answered,
            "waiting 60 s for the history-candles limit of okx (40 of 40 used)",
            "waiting 60 s for the history-candles limit of okx",
        ),
        (
            CALLS,
            failed(RateLimitExceeded("slow down", retry_after=90)),
            "waiting 90 s for the limit calls (400 of 398 used)",
            "waiting 90 s for the limit calls",
        ),
        (
            CALLS,
            failed(Banned("418: banned", until=FakeClock().ms + 300_000)),
            "waiting 300 s for an egress: each of the 2 is paused or banned",
            "banned until 2026-06-01T00:05:00Z",
        ),
    ],
)
async def test_pool_says_what_it_waits_for(
    limit: LimitPool, outcome: Callable[[Lease], None], words: str, state: str
) -> None:
    clock = FakeClock()
    pool = RotatingProxies(["10.0.0.1:1", "10.0.0.2:1"], direct=False, now=clock)
    assert pool.waiting() == ""
    for _ in range(2):
        await spend(pool, limit, outcome)
    assert pool.waiting() == ""  # nobody waits yet
    async with waiting_for(pool, limit):
        assert pool.waiting() == words
        assert [line.state for line in pool.statistics()] == [state, state]
        clock.ms += 1_000
        if state.startswith("waiting"):
            assert pool.waiting() != words
    assert pool.waiting() == ""
    assert all(not line.state.startswith("waiting") for line in pool.statistics())


async def test_a_short_wait_is_not_worth_a_word() -> None:
    pool = RotatingProxies([], now=FakeClock())
    quick = LimitPool("quick", 1, 2_000)
    await spend(pool, quick, answered)
    with anyio.move_on_after(0.05) as scope:
        async with waiting_for(pool, quick):
            pass
    assert scope.cancelled_caught
