"""What a request tells about its egress, passed on to budget, clock and health."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from random import random

import attrs

from marketfetch.errors import Banned, LocalResourceError, RateLimitExceeded, RetryableError
from marketfetch.proxies.address_limits import Shared
from marketfetch.ratelimit.backoff import parse_http_date
from marketfetch.ratelimit.circuit_breaker import CircuitBreaker
from marketfetch.ratelimit.egress_queue import EgressSlot
from marketfetch.reports import EgressReport
from marketfetch.values.http import Egress, Request, Response

__all__ = ["EgressState", "RotatingLease"]

_http_date = lru_cache(maxsize=16)(parse_http_date)  # a header of seconds is the same for many answers
_LINGER = 5_000  # an abandoned request may still reach the exchange and be counted, ms


@attrs.define(eq=False)
class EgressState:
    """An egress of the pool: its health and what it has done so far."""

    number: int
    egress: Egress
    address: str
    breaker: CircuitBreaker = attrs.field(factory=CircuitBreaker)
    requests: int = 0
    weight: int = 0
    failures: int = 0

    def report(self, now: int, waiting: str) -> EgressReport:
        """Return what it has done so far; `waiting` is its state if nothing is wrong with it."""
        state = self.breaker.state(now)
        return EgressReport(
            self.egress.name,
            requests=self.requests,
            weight=self.weight,
            failures=self.failures,
            state=waiting if waiting and state == "ready" else state,
        )


@attrs.define(eq=False)
class RotatingLease:
    """One request through one egress; the first outcome told takes the cost off what is in flight.

    Whatever it does to what is shared, it does with the lock of the registry held. `changed` is called after
    each outcome: who waits for the egress may look again.
    """

    _request: Request
    _state: EgressState
    _slot: EgressSlot
    _registry: Shared
    _changed: Callable[[EgressState], None]
    _leased_at: int = attrs.field(init=False)
    _released: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._leased_at = self._registry.now()
        with self._registry.lock:
            self._state.requests += 1
            self._state.weight += self._request.cost.weight

    @property
    def egress(self) -> Egress:
        return self._state.egress

    def answered(self, response: Response) -> None:
        # Our own clock is used, not the times in the response: theirs may jump when the machine's is set.
        now, headers = self._registry.now(), response.headers
        date = _http_date(headers.get("date", ""))
        used = headers.get((self._request.cost.pool.used_header or "").lower(), "")
        with self._registry.lock:
            budget = self._slot.budget
            if date is not None and "age" not in headers:  # with an age it comes from a cache
                budget.clock.observe(self._leased_at, now, date)
            if not self._released:
                self._release(now, connection_kept=True)
                budget.sync_with_header(int(used) if used.isdecimal() else None, self._leased_at, now)
            self._state.breaker.succeeded()
            self._changed(self._state)

    def failed(self, error: Exception) -> None:
        now, member = self._registry.now(), self._state
        with self._registry.lock:
            if not self._released:
                self._release(now + _LINGER, connection_kept=False)
            member.failures += isinstance(error, RetryableError) and not isinstance(error, LocalResourceError)
            if isinstance(error, Banned):
                member.breaker.banned(error, self._request.base_url, now)
            elif isinstance(error, RateLimitExceeded):
                budget, wait = self._slot.budget, error.retry_after
                budget.block_until(
                    budget.expires_at(now) if wait is None else now + round(max(wait, 1.0) * 1000)
                )
            else:
                member.breaker.failed(error, self._leased_at, now, random())  # noqa: S311 - spreads rests
            self._changed(member)

    def close(self) -> None:
        """Return the lease if nobody told what became of it: the request was cancelled."""
        if not self._released:
            with self._registry.lock:
                self._release(self._registry.now() + _LINGER, connection_kept=False)
                self._changed(self._state)

    def _release(self, received: int, *, connection_kept: bool) -> None:
        self._released = True
        self._slot.release(self._request.cost.weight, received, connection_kept=connection_kept)
