"""What outlives a run: connections, the clock of each exchange, instruments, budgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

import anyio
import attrs

from marketfetch.errors import ConfigurationError
from marketfetch.exchange import Exchange
from marketfetch.planning.instrument_index import InstrumentIndex
from marketfetch.protocols import (
    Fetcher,
    ProxyPool,
    Sharing,
    SupportsServerClock,
    SupportsSession,
)
from marketfetch.ratelimit.server_clock import ServerClock
from marketfetch.values.query import AllSymbols, Query

__all__ = ["CachedInstruments", "SessionState"]


@attrs.define
class CachedInstruments:
    """The instruments of an exchange, None if unknown or old, and when they were requested (UTC ms)."""

    instruments: InstrumentIndex | None = None
    requested: int = 0
    lock: anyio.Lock = attrs.field(factory=anyio.Lock, repr=False)
    """Held while they are requested: other runs of this exchange wait for the answer."""


@attrs.define(eq=False)
class SessionState:
    """The parts that several runs share.

    A `persistent` session is opened before the first run and closed after the last one. Its runs share the
    connections, the clocks and the instruments. If a session is not persistent, each run opens its own
    connections and requests the instruments itself.
    """

    pool: ProxyPool
    fetcher: Fetcher
    max_age: int = 3_600_000
    """Milliseconds after which the instruments are requested again."""
    persistent: bool = attrs.field(default=False, kw_only=True)
    _loop: asyncio.AbstractEventLoop | None = attrs.field(default=None, init=False)
    """The event loop on which the session is open."""
    _opened_on: asyncio.AbstractEventLoop | None = attrs.field(default=None, init=False)
    """The event loop on which the session is being opened, is open, or is being closed."""
    _runs: set[anyio.CancelScope] = attrs.field(factory=set, init=False)
    """The scopes of the runs that are connected."""
    _runs_ended: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    """Set when the last run has ended; made anew when the session closes."""
    _instruments: dict[tuple[object, ...], CachedInstruments] = attrs.field(factory=dict, init=False)
    _clocks: dict[str, ServerClock] = attrs.field(factory=dict, init=False)
    """The clocks of exchanges, where the pool keeps none."""

    @asynccontextmanager
    async def open(self, sharing: Sharing) -> AsyncIterator[None]:
        """Keep connections and claims on addresses until the block is left; leaving it ends all runs."""
        if self._opened_on is not None and not self._opened_on.is_closed():
            raise ConfigurationError("session: it is open already; open it once, around all pipelines")
        # Set before the connections are open: a second `open` meanwhile has to be refused.
        self._opened_on = loop = asyncio.get_running_loop()
        try:
            async with _sharing_addresses(self.pool, sharing), self.fetcher.session():
                self._loop = loop
                try:
                    yield
                finally:
                    self._loop = None
                    await self._end_runs()
        finally:
            self._opened_on = None

    async def _end_runs(self) -> None:
        self._runs_ended = anyio.Event()
        for scope in self._runs:
            scope.cancel()
        if self._runs:
            with anyio.CancelScope(shield=True):
                await self._runs_ended.wait()

    @property
    def is_closed(self) -> bool:
        """Whether a persistent session is closed, or is not open yet."""
        return self.persistent and self._loop is None

    @asynccontextmanager
    async def connected(self, sharing: Sharing) -> AsyncIterator[None]:
        """Connect one run: through the connections of an open session, or else through new ones of the run.

        Raises ConfigurationError if the session is not open on this event loop, and if it is closed before
        the run has ended.
        """
        if self.persistent and self._loop is not asyncio.get_running_loop():
            raise ConfigurationError(
                "session: it is not open on this event loop; run the pipeline inside `async with session:`"
            )
        connections = nullcontext() if self._loop is not None else self.fetcher.session()
        scope = anyio.CancelScope()
        self._runs.add(scope)
        try:
            with scope:
                async with _sharing_addresses(self.pool, sharing), connections:
                    yield
        finally:
            self._runs.discard(scope)
            if not self._runs:
                self._runs_ended.set()
        if scope.cancelled_caught:
            raise ConfigurationError(
                "session: it was closed before this run had ended; leave `async with session:` after its runs"
            )

    def server_clock(self, base_url: str) -> ServerClock:
        """Return the clock of the exchange at a base URL: of the pool, a persistent session, or a new one."""
        if isinstance(self.pool, SupportsServerClock):
            return self.pool.server_clock(base_url)
        return self._clocks.setdefault(base_url, ServerClock()) if self.persistent else ServerClock()

    @asynccontextmanager
    async def cached_instruments(
        self, exchange: Exchange, query: Query, now: int
    ) -> AsyncIterator[CachedInstruments]:
        """Yield the instruments that are known; if there are none, the caller requests and sets them.

        Other runs of a persistent session wait until the caller leaves the block.
        """
        if not self.persistent:
            yield CachedInstruments()
            return
        everything = query.symbols if isinstance(query.symbols, AllSymbols) else None
        # With an archive the listing has delisted symbols, too, which a run with sources="rest" cannot fetch.
        key = (type(exchange), exchange.base_url, everything, query.sources == "rest")
        cached = self._instruments.setdefault(key, CachedInstruments())
        async with cached.lock:
            if not 0 <= now - cached.requested < self.max_age:
                cached.instruments = None
            yield cached


def _sharing_addresses(pool: ProxyPool, sharing: Sharing) -> AbstractAsyncContextManager[object]:
    """Share the pool's addresses with other processes while requests are made, if the pool supports that."""
    return pool.session(sharing) if isinstance(pool, SupportsSession) else nullcontext()
