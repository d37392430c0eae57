"""Send one request with retries: lease an egress, fetch, check for errors, decode."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, TypeVar

import anyio
import attrs
from anyio.lowlevel import checkpoint

from marketfetch.decoding.layouts import decode_errors_as
from marketfetch.engine.state import RunState
from marketfetch.errors import (
    Banned,
    FetchError,
    NoSuchFile,
    RateLimitExceeded,
    RequestTimeout,
    RetryableError,
)
from marketfetch.events import Listener, RequestAnswered, RequestFailed
from marketfetch.exchange import Exchange
from marketfetch.protocols import Fetcher, ProxyPool
from marketfetch.ratelimit.backoff import retry_waits
from marketfetch.values.http import Cost, Egress, Request, Response
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings

__all__ = ["LoopYielder", "RequestExecutor", "RequestMeasures", "ResponsePolicy"]

_T = TypeVar("_T")
_MAX_SHORT_WAIT = 30.0
"""Seconds: a Retry-After up to this is honoured even where bans are not waited for."""


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
        if not isinstance(error, RetryableError):
            return False
        if self.waits_for_bans:
            return True
        asked_to_wait = isinstance(error, RateLimitExceeded) and (error.retry_after or 0) > _MAX_SHORT_WAIT
        return not asked_to_wait and not isinstance(error, Banned)


@attrs.define(eq=False)
class RequestMeasures:
    """The waiting time, the latency, the weight and the bytes of one request, for its event."""

    cost: Cost
    egress: str = ""
    wait: float = 0.0
    latency: float = 0.0
    size: int = 0
    _since: float = attrs.field(factory=perf_counter, init=False)
    """When the request began to wait, or was sent."""

    def leased(self, egress: str) -> None:
        """Note that the wait for an egress is over."""
        now = perf_counter()
        self.egress, self.wait, self._since = egress, now - self._since, now

    def answered(self, response: Response) -> None:
        """Note the answer."""
        self.size = len(response.body)
        self.ended()

    def ended(self) -> None:
        """Note that the answer or the failure has come, unless it is known."""
        self.latency = self.latency or perf_counter() - self._since

    def event(self, kind: Callable[..., _T], **fields: Any) -> _T:
        """Make an event of a kind with these measures."""
        return kind(
            **fields,
            limit=self.cost.pool.name,
            weight=self.cost.weight,
            wait=self.wait,
            latency=self.latency,
            size=self.size,
        )


@attrs.frozen(eq=False)
class RequestExecutor:
    """Sends requests through leased egresses, and retries those that failed with a RetryableError."""

    exchange: Exchange
    fetcher: Fetcher
    pool: ProxyPool
    settings: Settings
    state: RunState
    emit: Listener
    _yielder: LoopYielder = attrs.field(factory=LoopYielder, init=False)

    async def send(
        self,
        request: Request,
        read: Callable[[Response], _T],
        policy: ResponsePolicy | None = None,
        series: Series | None = None,
    ) -> tuple[_T, str]:
        """Send a request as `send_measured` does, emit RequestAnswered, and return the name of the egress."""
        result, measures = await self.send_measured(request, read, policy, series)
        self._report_answer(request, series, measures)
        return result, measures.egress

    async def send_measured(
        self,
        request: Request,
        read: Callable[[Response], _T],
        policy: ResponsePolicy | None = None,
        series: Series | None = None,
    ) -> tuple[_T, RequestMeasures]:
        """Return the result of `read(response)` for a good response, and what the request took.

        `policy` tells a good response from an error; without it, the exchange does. `series` is for events.

        Raises a FatalFetchError at once, and a RetryableError after the last attempt or when no egress is
        left.
        """
        request = self.exchange.with_base_url(request)
        policy = policy or ResponsePolicy(self.exchange.raise_for_error)
        waits = retry_waits(self.settings.retries)
        while True:
            measures = RequestMeasures(request.cost)
            try:
                return await self._send_once(request, read, policy.raise_for_error, measures), measures
            except FetchError as error:
                error.attempt, wait = next(waits)
                final = wait is None or error.egress is None or not policy.retries(error)
                if isinstance(error, NoSuchFile):  # that a file is not there is an answer, not a failure
                    self._report_answer(request, series, measures)
                else:
                    self._report(error, series, measures, final=final)
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
        measures: RequestMeasures,
    ) -> _T:
        async with self.pool.lease(request) as lease:
            measures.leased(lease.egress.name)
            self.state.spent[request.cost] += 1
            try:
                response = await self._fetch(request, lease.egress)
                lease.answered(response)
                measures.answered(response)
                self.state.bytes_received += measures.size
                with decode_errors_as(f"an answer as {request.path} gives it"):
                    raise_for_error(response)
                    await self._yielder.maybe_yield()
                    return read(response)
            except FetchError as error:
                measures.ended()
                error.egress = lease.egress.name
                lease.failed(error)
                raise

    async def _fetch(self, request: Request, egress: Egress) -> Response:
        with anyio.move_on_after(self.settings.deadline):
            return await self.fetcher.fetch(request, egress)
        raise RequestTimeout(f"no complete answer within {self.settings.deadline:g} s")

    def _report_answer(self, request: Request, series: Series | None, measures: RequestMeasures) -> None:
        event = measures.event(RequestAnswered, path=request.path, egress=measures.egress, series=series)
        self.emit(event)

    def _report(
        self, error: FetchError, series: Series | None, measures: RequestMeasures, *, final: bool
    ) -> None:
        event = measures.event(
            RequestFailed,
            cause=type(error).__name__,
            message=str(error),
            egress=error.egress or "no egress",
            attempt=error.attempt or 0,
            final=final,
            series=series,
            error=error,
            give_up_in=0.0 if final else self._give_up_in(error.attempt or 1, measures.latency),
        )
        self.emit(event)

    def _give_up_in(self, attempt: int, latency: float) -> float:
        """Return about how long the remaining attempts take, each as long as the last one."""
        policy = self.settings.retries
        return sum(policy.wait(each, 0.5) + latency for each in range(attempt, policy.attempts))
