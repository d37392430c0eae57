"""Leases: the outcome of a request updates the budget, clock and circuit breaker of its egress."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from random import random

import attrs

from marketfetch.errors import Banned, LocalResourceError, RateLimitExceeded, RetryableError
from marketfetch.proxies.address_limits import Shared
from marketfetch.ratelimit.backoff import parse_http_date, used_weight
from marketfetch.ratelimit.circuit_breaker import CircuitBreaker
from marketfetch.ratelimit.egress_queue import EgressSlot
from marketfetch.reports import EgressReport
from marketfetch.values.http import Egress, Request, Response

__all__ = ["EgressState", "RotatingLease"]

_http_date = lru_cache(maxsize=16)(parse_http_date)  # all responses of one second have the same header
_LATE_ARRIVAL = 5_000
"""Milliseconds by which a request that was given up may reach the exchange late: it is counted that long."""


@attrs.define(eq=False)
class EgressState:
    """An egress of the pool: its circuit breaker and the counters of its report."""

    number: int
    egress: Egress
    address: str
    breaker: CircuitBreaker = attrs.field(factory=CircuitBreaker)
    requests: int = 0
    weight: int = 0
    failures: int = 0

    def report(self, now: int, waiting: str) -> EgressReport:
        """Return the report; `waiting`, if it is not empty, in place of the state of the circuit breaker."""
        return EgressReport(
            self.egress.name,
            requests=self.requests,
            weight=self.weight,
            failures=self.failures,
            state=waiting or self.breaker.state(now),
        )


@attrs.define(eq=False)
class RotatingLease:
    """One request through one egress; the first outcome moves its cost from "in flight" to "spent".

    Shared state is changed with the lock of the registry held. `changed` is called after each outcome, to
    wake the tasks that wait for the egress.
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
            cost = self._request.cost
            self._state.weight += cost.weight if cost.pool.published else 0

    @property
    def egress(self) -> Egress:
        return self._state.egress

    def answered(self, response: Response) -> None:
        # The steady clock of the registry: the times in the response jump when the system clock is set.
        now, headers = self._registry.now(), response.headers
        date = _http_date(headers.get("date", ""))
        used = used_weight(headers, self._request.cost.pool.used_header or "")
        with self._registry.lock:
            budget = self._slot.budget
            if date is not None and "age" not in headers:  # with an age it is from a cache, and old
                budget.clock.observe(self._leased_at, now, date)
                # A budget of hosts that count together reads the clock of the first of them.
                if (clock := self._registry.server_clock(self._request.base_url)) is not budget.clock:
                    clock.observe(self._leased_at, now, date)
            if not self._released:
                self._release(now, connection_kept=True)
                budget.sync_with_header(used, self._leased_at, now)
            self._state.breaker.succeeded(self._request.base_url)
            self._changed(self._state)

    def failed(self, error: Exception) -> None:
        now, state, host = self._registry.now(), self._state, self._request.base_url
        with self._registry.lock:
            if not self._released:
                self._release(now + _LATE_ARRIVAL, connection_kept=False)
            state.failures += isinstance(error, RetryableError) and not isinstance(error, LocalResourceError)
            if isinstance(error, Banned):
                for each in self._request.cost.pool.counted_hosts(host):
                    state.breaker.bans.add(error, each, now)
            elif isinstance(error, RateLimitExceeded):
                budget, wait = self._slot.budget, error.retry_after
                budget.block_until(
                    budget.expires_at(now) if wait is None else now + round(max(wait, 1.0) * 1000)
                )
            else:
                state.breaker.failed(error, host, self._leased_at, now, random())  # noqa: S311 - spreads pauses
            self._changed(state)

    def close(self) -> None:
        """Count the cost as spent if neither `answered` nor `failed` was called: the task was cancelled."""
        if not self._released:
            with self._registry.lock:
                self._release(self._registry.now() + _LATE_ARRIVAL, connection_kept=False)
                self._changed(self._state)

    def _release(self, received: int, *, connection_kept: bool) -> None:
        self._released = True
        weight, host = self._request.cost.weight, self._request.base_url
        self._slot.release(weight, host, received, connection_kept=connection_kept)
