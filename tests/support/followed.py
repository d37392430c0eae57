"""A pipeline that is followed on an accelerated clock: a minute lasts 60 ms, or what `speed` says."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import anyio
import attrs

from chaos.harness.accelerated_time import SPEED, AcceleratedClock, AcceleratedFetcher, run_accelerated
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline, Session
from marketfetch.errors import TransportError
from marketfetch.events import Event
from marketfetch.exchange import Exchange
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.following import following_run
from marketfetch.following.following import Following
from marketfetch.protocols import Sink
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.proxies.registry import Registry
from marketfetch.testing import GeneratedMarket, Market, SimulatedExchange, SimulatorOptions
from marketfetch.values.http import Egress, Request, Response
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings
from marketfetch.values.spans import HOUR
from marketfetch.values.times import Clock, parse_time

__all__ = ["NOON", "FollowedWorld", "followed_world", "until"]

NOON = parse_time("now", "2026-11-01T12:00:20Z", 0)
_PATIENCE = 30.0 * SPEED
"""Seconds of accelerated time for which a test waits: half a minute of real time."""

_T = TypeVar("_T")


@attrs.define
class FollowedWorld:
    """A simulated exchange, a clock, and the pipelines that follow."""

    exchange: SimulatedExchange
    clock: AcceleratedClock
    wall_error: int = 0
    """Milliseconds that the wall clock of this machine is ahead."""
    events: deque[Event] = attrs.field(factory=lambda: deque(maxlen=2_000))
    cut_off: bool = False
    """Whether the network is away."""
    session: Session | None = None
    adapter: type[Exchange] = BinanceUsdm

    def wall(self) -> int:
        """Return the time of the machine's wall clock."""
        return self.clock() + self.wall_error

    def pipeline(self, sink: Sink, **query: Any) -> Pipeline:
        """Return a pipeline; by default of the 1m candles of one symbol in the last hour."""

        def record(event: Event) -> None:
            self.events.append(event)  # a test may replace them

        asked: dict[str, Any] = {"symbols": ["BTCUSDT"], "start": self.clock.start - HOUR} | query
        return Pipeline(
            self.adapter(self.exchange.base_url),
            Query(**asked),
            sink,
            proxies=None if self.session else self.pool(),
            fetcher=None if self.session else self.fetcher(),
            session=self.session,
            settings=Settings(concurrency=8, heartbeat=10 * SPEED, deadline=60.0 * SPEED, clock=self.wall),
            listeners=[record],
        )

    def pool(self) -> RotatingProxies:
        """Return a pool with the direct connection; its clock is steady."""
        return RotatingProxies((), registry=Registry(self.clock))

    def fetcher(self) -> _Network:
        """Return a fetcher that fails while the network is away."""
        return _Network(self, AcceleratedFetcher(self.clock, CurlFetcher(timeout=20.0 * SPEED)))

    def run(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Run a coroutine function on an accelerated event loop, from the start of the clock."""
        self.clock.restart()
        return run_accelerated(work)

    @asynccontextmanager
    async def following(self, sink: Sink, **query: Any) -> AsyncIterator[Following]:
        """Follow until the block is left."""
        async with self.pipeline(sink, **query).follow() as following:
            yield following


@attrs.frozen
class _Network:
    world: FollowedWorld
    inner: AcceleratedFetcher

    def session(self) -> AbstractAsyncContextManager[object]:
        return self.inner.session()

    async def fetch(self, request: Request, egress: Egress) -> Response:
        if self.world.cut_off:
            raise TransportError("the network is unreachable")
        return await self.inner.fetch(request, egress)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; TimeoutError after half a minute of real time."""
    with anyio.fail_after(_PATIENCE):
        while not condition():  # noqa: ASYNC110  # conditions on stores and counters have no event
            await anyio.sleep(SPEED * 0.002)


@contextmanager
def followed_world(
    make_market: Callable[[Clock], Market] | None = None, *, start: int = NOON, **options: Any
) -> Iterator[FollowedWorld]:
    """Start an exchange whose clock is accelerated; `make_market` gets the clock."""
    clock = AcceleratedClock(start)
    market = make_market(clock) if make_market else GeneratedMarket(["BTCUSDT", "ETHUSDT"], seed=4)
    # Input and output are not accelerated: 10 s would be 10 ms for an answer.
    patient = patch.object(following_run, "ROUND_DEADLINE", 60.0 * SPEED)
    with patient, SimulatedExchange(market, SimulatorOptions(now=clock, **options)) as exchange:
        yield FollowedWorld(exchange, clock)
