"""How long requests of one limit pool will take: the rate limiter, fed with requests that nobody sends.

Times are UTC milliseconds by the local clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from math import ceil, floor

import attrs

from marketfetch.ratelimit.budget import RateBudget, usable
from marketfetch.ratelimit.circuit_breaker import CircuitBreaker
from marketfetch.ratelimit.egress_queue import EgressQueue, EgressSlot

__all__ = ["Load", "estimate_seconds", "forecast"]

_MAX_STEPS = 5_000


@attrs.frozen
class Load:
    """Requests of one limit pool, as a run sends them.

    `weight` is that of all requests together. `seconds` is how long they take where no limit delays them,
    `latency` how long one of them takes, and `concurrency` the most that are in flight.
    """

    requests: int
    weight: int
    seconds: float
    latency: float
    concurrency: int

    def weight_of(self, first: int, count: int) -> int:
        """Return the weight of `count` requests from number `first` on, if light and heavy ones take turns.

        >>> mixed = Load(requests=4, weight=6, seconds=1.0, latency=0.1, concurrency=2)
        >>> [mixed.weight_of(number, 1) for number in range(4)]
        [1, 2, 1, 2]
        """
        before, after = (number * self.weight // self.requests for number in (first, first + count))
        return after - before


@attrs.define(order=True)
class _Group:
    """Requests that are sent at once through one egress, and answered by `received`."""

    received: float
    number: int
    slot: EgressSlot = attrs.field(order=False)
    weight: int
    sent: int


def estimate_seconds(budgets: Sequence[RateBudget], load: Load, now: int) -> float:
    """Return about how many seconds it is from now to the last answer, without following the requests.

    A run in progress asks for it again and again, and `forecast` takes tens of milliseconds. What has room is
    sent at once. The rest waits until what is spent has expired, and then takes so many full periods.

    Example: 300 of 1,000 are spent. 700 requests are sent now, and 300 when the minute has ended, in 30 s.

    >>> from marketfetch.ratelimit.server_clock import ServerClock
    >>> from marketfetch.values.http import LimitPool
    >>> budget = RateBudget(LimitPool("calls", 1000, 60_000), ServerClock())
    >>> budget.charge(295, received=0)
    >>> load = Load(requests=1000, weight=1000, seconds=10.0, latency=0.1, concurrency=10)
    >>> round(estimate_seconds([budget], load, now=30_000))
    33
    """
    if not budgets:
        return load.seconds
    pool, one = budgets[0].pool, max(1, -(-load.weight // load.requests))
    each = max(one, usable(pool) // one * one)
    ready = [budget for budget in budgets if budget.blocked_until(now) <= now]
    remaining = load.weight - sum(max(0, usable(pool) - budget.used(now)) // one * one for budget in ready)
    seconds = load.seconds
    if pool.burst is not None:
        most = pool.burst.capacity * len(budgets)
        seconds = max(seconds, load.weight * pool.burst.period / most / 1000)
    if remaining <= 0:
        return seconds
    ends = sorted(max(budget.spent_until(now), budget.blocked_until(now)) for budget in budgets)

    def waiting_for(count: int) -> float:
        """Return when the last answer comes if the egresses that have room first serve what remains."""
        periods, last = divmod(remaining - 1, each * count)
        waited = sum(ends[:count]) / count - now + periods * pool.period
        return waited / 1000 + load.seconds * (last + 1) / load.weight

    return max(seconds, min(map(waiting_for, range(1, len(ends) + 1))))


def forecast(budgets: Sequence[RateBudget], load: Load, now: int) -> float:
    """Return the seconds from now to the last answer, if each budget is that of one egress.

    Without budgets no limit is known, and the load takes its own seconds. After 5,000 steps, each a group of
    requests, the load goes on as it began.

    The budgets are spent by it, so pass copies. Requests are sent in groups of as many as may be in flight.
    They are acquired, answered and counted in an `EgressQueue` as in a run. So a full window is waited for, a
    group that a boundary of the window divides counts in both windows, and an address that has been silent
    first sends one request alone.

    Example: what is left of a minute, 30 s, is enough for 300 of 450 requests at 10 per second.

    >>> from marketfetch.ratelimit.server_clock import ServerClock
    >>> from marketfetch.values.http import LimitPool
    >>> clock = ServerClock()
    >>> clock.observe(30_000, 30_000, 30_000, exact=True)
    >>> def limited_to(capacity: int) -> RateBudget:
    ...     return RateBudget(LimitPool("calls", capacity, 60_000, "clock"), clock)
    >>> load = Load(requests=450, weight=450, seconds=45.0, latency=0.1, concurrency=1)
    >>> [round(forecast([limited_to(capacity)], load, now=30_000)) for capacity in (1000, 300, 200)]
    [45, 45, 95]
    """
    if not budgets:
        return load.seconds
    slots = [EgressSlot(number, CircuitBreaker(), budget) for number, budget in enumerate(budgets)]
    queue = EgressQueue(budgets[0].pool, slots)
    heaviest, most = max(1, -(-load.weight // load.requests)), min(load.concurrency, load.requests)
    pace, latency = 1000 * load.seconds / load.requests, 1000 * load.latency
    in_flight: list[_Group] = []
    sent, at, end = 0, float(now), float(now)
    for number in range(_MAX_STEPS):
        if sent == load.requests:
            return (end - now) / 1000
        while in_flight and in_flight[0].received <= at:
            _receive(heappop(in_flight), queue)
        moment, weight = floor(at), load.weight_of(sent, 1)
        slot = queue.acquire(weight, "", moment)
        if slot is None:
            soonest = queue.soonest(weight, "", moment)
            at = max(at, min([soonest, *(group.received for group in in_flight[:1])]))
            continue
        more = min(most - 1, load.requests - sent - 1, slot.budget.room // heaviest)
        more_weight = load.weight_of(sent + 1, max(0, more))
        if more > 0 and slot.budget.available_at(more_weight, moment) <= moment:
            slot.budget.spend(more_weight)
            slot.spent += more_weight
            weight += more_weight
            queue.queue(slot.number)
        else:
            more = 0
        group = _Group(at + max(latency, (1 + more) * pace), number, slot, weight, moment)
        heappush(in_flight, group)
        sent, at, end = sent + 1 + more, at + (1 + more) * pace, max(end, group.received)
    return (end - now) / 1000 * load.requests / max(1, sent)


def _receive(group: _Group, queue: EgressQueue) -> None:
    """Count a group as answered; a header tells that nothing else uses the address."""
    received, slot = ceil(group.received), group.slot
    slot.release(group.weight, "", received, connection_kept=True)
    slot.budget.sync_with_header(slot.budget.used(received), group.sent, received)
    queue.queue(slot.number)
