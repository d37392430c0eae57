"""Asking the exchange one thing until it is answered, or until asking on is pointless."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from time import perf_counter
from typing import TypeVar

import anyio
import attrs
from anyio.lowlevel import checkpoint

from marketfetch.decoding.layouts import decode_errors_as
from marketfetch.engine.state import RunState
from marketfetch.errors import Banned, FetchError, RateLimitExceeded, RequestTimeout, RetryableError
from marketfetch.events import Listener, RequestFailed
from marketfetch.exchange import Exchange
from marketfetch.protocols import Fetcher, ProxyPool
from marketfetch.values.http import Egress, Request, Response
from marketfetch.values.settings import Settings

__all__ = ["LoopYielder", "RequestExecutor"]

_T = TypeVar("_T")


@attrs.define(eq=False)
class LoopYielder:
    """Spreads the work of many tasks that become ready at once over several rounds of the loop.

    Twenty answers may arrive in one round, and to read one takes a millisecond. Who asks for a breath when
    the last one is `seconds` ago lets the loop go round once, and whoever asks meanwhile waits behind.
    """

    seconds: float = 0.002
    _last: float = attrs.field(default=0.0, init=False)
    _turn: anyio.Lock = attrs.field(factory=lambda: anyio.Lock(fast_acquire=True), init=False)

    async def maybe_yield(self) -> None:
        """Return at once or, if it is time, after others on the loop had their turn."""
        if perf_counter() - self._last < self.seconds and not self._turn.locked():
            return
        async with self._turn:
            if perf_counter() - self._last >= self.seconds:
                await checkpoint()
                self._last = perf_counter()


@attrs.frozen(eq=False)
class RequestExecutor:
    """Leases an egress, fetches, checks and reads; repeats what a repetition can cure."""

    exchange: Exchange
    fetcher: Fetcher
    pool: ProxyPool
    settings: Settings
    state: RunState
    emit: Listener
    rng: random.Random = attrs.field(factory=random.Random)
    _yielder: LoopYielder = attrs.field(factory=LoopYielder, init=False)

    async def send(self, request: Request, read: Callable[[Response], _T]) -> tuple[_T, str]:
        """Return what `read` makes of a good answer, and the name of the egress it came through.

        Raises the FetchError that ended it: a FatalFetchError at once, a RetryableError after the last
        attempt.
        """
        request = self.exchange.with_base_url(request)
        for attempt in count(1):
            try:
                return await self._send_once(request, read)
            except RetryableError as error:
                error.attempt = attempt
                final = attempt >= self.settings.retries.attempts or error.egress is None
                self._report(error, final=final)
                if final:
                    raise
                self.state.retries[type(error).__name__] += 1
                # A limit or a ban belongs to one egress: the pool knows when it may serve again.
                if not isinstance(error, RateLimitExceeded | Banned):
                    await anyio.sleep(self.settings.retries.wait(attempt, self.rng.random()))
            except FetchError as error:
                error.attempt = attempt
                self._report(error, final=True)
                raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _send_once(self, request: Request, read: Callable[[Response], _T]) -> tuple[_T, str]:
        async with self.pool.lease(request) as lease:
            self.state.requests += 1
            try:
                response = await self._fetch(request, lease.egress)
                lease.answered(response)
                with decode_errors_as(f"an answer as {request.path} gives it"):
                    self.exchange.raise_for_error(response)
                    await self._yielder.maybe_yield()
                    return read(response), lease.egress.name
            except FetchError as error:
                error.egress = lease.egress.name
                lease.failed(error)
                raise

    async def _fetch(self, request: Request, egress: Egress) -> Response:
        try:
            with anyio.fail_after(self.settings.deadline):
                return await self.fetcher.fetch(request, egress)
        except TimeoutError:
            raise RequestTimeout(f"no complete answer within {self.settings.deadline:g} s") from None

    def _report(self, error: FetchError, *, final: bool) -> None:
        cause = type(error).__name__
        self.emit(RequestFailed(cause, str(error), error.egress or "no egress", error.attempt or 0, final))
