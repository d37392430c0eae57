"""Send one request with retries: lease an egress, fetch, check for errors, decode."""

from __future__ import annotations

import random
from collections.abc import Callable
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
from marketfetch.ratelimit.backoff import retry_waits
from marketfetch.values.http import Egress, Request, Response
from marketfetch.values.settings import Settings

__all__ = ["LoopYielder", "RequestExecutor", "ResponsePolicy"]

_T = TypeVar("_T")


@attrs.define(eq=False)
class LoopYielder:
    """Cooperative yield: lets other tasks of the event loop run between two tasks that keep it busy.

    Example: twenty responses arrive at once, and each takes 1 ms to decode. The first task that
    calls `maybe_yield` later than `seconds` after the last yield yields once to the loop. Tasks that call it
    during this yield wait for its end.
    """

    seconds: float = 0.002
    _last: float = attrs.field(default=0.0, init=False)
    _lock: anyio.Lock = attrs.field(factory=lambda: anyio.Lock(fast_acquire=True), init=False)

    async def maybe_yield(self) -> None:
        """Return at once or, if the last yield is too long ago, after the other tasks have run."""
        if perf_counter() - self._last < self.seconds and not self._lock.locked():
            return
        async with self._lock:
            if perf_counter() - self._last >= self.seconds:
                await checkpoint()
                self._last = perf_counter()


@attrs.frozen(eq=False)
class ResponsePolicy:
    """How the responses of a host are judged, and whether a request waits for the end of a ban.

    Example: without files a run goes on by the API, so nothing waits for a file host that blocks.
    """

    raise_for_error: Callable[[Response], None]
    waits_for_bans: bool = True

    def retries(self, error: FetchError) -> bool:
        """Whether a request that failed is sent once more."""
        return isinstance(error, RetryableError) and (self.waits_for_bans or not isinstance(error, Banned))


@attrs.frozen(eq=False)
class RequestExecutor:
    """Sends requests through leased egresses, and retries those that failed with a RetryableError."""

    exchange: Exchange
    fetcher: Fetcher
    pool: ProxyPool
    settings: Settings
    state: RunState
    emit: Listener
    rng: random.Random = attrs.field(factory=random.Random)
    _yielder: LoopYielder = attrs.field(factory=LoopYielder, init=False)

    async def send(
        self,
        request: Request,
        read: Callable[[Response], _T],
        policy: ResponsePolicy | None = None,
    ) -> tuple[_T, str]:
        """Return the result of `read(response)` for a good response, and the name of the egress.

        `policy` tells a good response from an error; without it, the exchange does.

        Raises a FatalFetchError at once, and a RetryableError after the last attempt or when no egress is
        left.
        """
        request = self.exchange.with_base_url(request)
        policy = policy or ResponsePolicy(self.exchange.raise_for_error)
        waits = retry_waits(self.settings.retries, self.rng)
        while True:
            try:
                return await self._send_once(request, read, policy.raise_for_error)
            except FetchError as error:
                error.attempt, wait = next(waits)
                final = wait is None or error.egress is None or not policy.retries(error)
                self._report(error, final=final)
                if final:
                    raise
                self.state.retries[type(error).__name__] += 1
                # A limit or a ban belongs to one egress: the pool knows when that egress may serve again.
                if wait is not None and not isinstance(error, RateLimitExceeded | Banned):
                    await anyio.sleep(wait)

    async def _send_once(
        self,
        request: Request,
        read: Callable[[Response], _T],
        raise_for_error: Callable[[Response], None],
    ) -> tuple[_T, str]:
        async with self.pool.lease(request) as lease:
            self.state.requests += 1
            try:
                response = await self._fetch(request, lease.egress)
                lease.answered(response)
                with decode_errors_as(f"an answer as {request.path} gives it"):
                    raise_for_error(response)
                    await self._yielder.maybe_yield()
                    return read(response), lease.egress.name
            except FetchError as error:
                error.egress = lease.egress.name
                lease.failed(error)
                raise

    async def _fetch(self, request: Request, egress: Egress) -> Response:
        with anyio.move_on_after(self.settings.deadline):
            return await self.fetcher.fetch(request, egress)
        raise RequestTimeout(f"no complete answer within {self.settings.deadline:g} s")

    def _report(self, error: FetchError, *, final: bool) -> None:
        cause = type(error).__name__
        self.emit(RequestFailed(cause, str(error), error.egress or "no egress", error.attempt or 0, final))
