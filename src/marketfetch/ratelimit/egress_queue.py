"""Which egress serves the next request of a limit pool. Times are UTC milliseconds by the local clock."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

import attrs

from marketfetch.ratelimit.budget import UNKNOWN_UNTIL_RESPONSE, RateBudget
from marketfetch.ratelimit.circuit_breaker import CircuitBreaker
from marketfetch.values.http import LimitPool

__all__ = ["Claim", "EgressQueue", "EgressSlot"]

_SOON = 20  # ms; a wait this short is not worth a look at every seat


@attrs.define(eq=False)
class Claim:
    """Until when this process alone spends the budget of an address, as far as one board is concerned.

    `used` tells whether anything was spent since it was granted.
    """

    until: int = 0
    used: bool = False


@attrs.define(eq=False)
class EgressSlot:
    """One egress in one limit pool.

    Its health is shared with its seats in other limit pools, its budget with everything in this process that
    leaves from the same address. It serves while every one of its `claims` is valid.
    """

    number: int
    breaker: CircuitBreaker
    budget: RateBudget
    address: str = ""
    claims: Sequence[Claim] = ()
    in_flight: int = attrs.field(default=0, init=False)
    spent: int = attrs.field(default=0, init=False)
    idle_connections: int = attrs.field(default=0, init=False)
    version: int = attrs.field(
        default=0, init=False
    )  # counts up; tells its valid queue entry from older ones

    def available_at(self, weight: int, host: str, now: int) -> int:
        """Return when the egress can serve a cost: `now`, a later moment, or UNKNOWN_UNTIL_RESPONSE."""
        if not self.claimed(now):
            return UNKNOWN_UNTIL_RESPONSE
        return max(self.breaker.ready_at(host, now), self.budget.available_at(weight, now))

    def claimed(self, now: int) -> bool:
        """Whether no other process may spend its budget now."""
        return not self.claims or all(claim.until > now for claim in self.claims)

    def acquire(self, weight: int) -> None:
        """Note that a request is about to leave."""
        self.in_flight += 1
        self.breaker.in_flight += 1
        self.spent += weight
        self.idle_connections = max(0, self.idle_connections - 1)
        self.budget.spend(weight)
        for claim in self.claims:
            claim.used = True

    def release(self, weight: int, received: int, *, connection_kept: bool) -> None:
        """Note that a request is over; the exchange counted it at `received` at the latest."""
        self.in_flight -= 1
        self.breaker.in_flight -= 1
        self.idle_connections += connection_kept
        self.budget.release(weight, received)


class EgressQueue:
    """The seats of a limit pool in the order in which they serve.

    The rule: as many egresses as there are requests in flight, each with its connection kept alive, and the
    load spread evenly over time. Hence, in this order: the fewest requests in flight; the least spent, in
    steps of a quarter of the capacity; an idle connection; the least spent.

    Whenever something about a seat changes it is queued anew, and its older entry is dropped when met: so a
    turn costs O(log n), and thousands of idle proxies cost nothing.

    >>> from marketfetch.ratelimit.server_clock import ServerClock
    >>> calls = LimitPool("calls", capacity=10, period=60_000)
    >>> slots = [EgressSlot(n, CircuitBreaker(), RateBudget(calls, ServerClock())) for n in range(2)]
    >>> queue = EgressQueue(calls, slots)
    >>> acquired = [queue.acquire(weight=4, host="", now=0) for _ in range(5)]
    >>> [slot and slot.number for slot in acquired]
    [0, 1, 0, 1, None]
    """

    def __init__(self, pool: LimitPool, slots: Sequence[EgressSlot]) -> None:
        self.pool = pool
        self.slots = slots
        self._numbers = {slot.address: number for number, slot in enumerate(slots)}
        self._step = max(1, pool.capacity // 4)
        self._ready: list[tuple[tuple[int, int, bool, int], int, int]] = []
        self._later: list[tuple[int, int, int]] = []
        for number in range(len(self.slots)):
            self.queue(number)

    def acquire(self, weight: int, host: str, now: int) -> EgressSlot | None:
        """Lend the seat that serves now and return it; None if there is none.

        Raises ConfigurationError for a weight above the capacity of the pool.
        """
        while self._later and self._later[0][0] <= now:
            _, place, number = heappop(self._later)
            if place == self.slots[number].version:
                self.queue(number)
        while self._ready:
            _, place, number = self._ready[0]
            slot = self.slots[number]
            if place == slot.version:
                moment = slot.available_at(weight, host, now)
                if moment <= now:
                    slot.acquire(weight)
                    self.queue(number)
                    return slot
                if moment != UNKNOWN_UNTIL_RESPONSE:
                    heappush(self._later, (moment, place, number))
            heappop(self._ready)
        return None

    def soonest(self, weight: int, host: str, now: int) -> int:
        """Return when to call `acquire` again after it returned None: a moment, or UNKNOWN_UNTIL_RESPONSE.

        A seat set aside for a heavier cost may serve a lighter one, and the clock may be known better by now:
        before a longer wait all seats are looked at anew, and those that can serve are queued.
        """
        if self._later and self._later[0][0] <= now + _SOON:
            return self._later[0][0]
        soonest = UNKNOWN_UNTIL_RESPONSE
        for slot in self.slots:
            moment = slot.available_at(weight, host, now)
            if moment <= now:
                self.queue(slot.number)
            soonest = min(soonest, moment)
        return soonest

    def queue_address(self, address: str) -> None:
        """Put the egress of an address in its place, if there is one."""
        if address in self._numbers:
            self.queue(self._numbers[address])

    def queue(self, number: int) -> None:
        """Put an egress in its place, after anything about it has changed."""
        slot = self.slots[number]
        slot.version += 1
        order = (slot.in_flight, slot.spent // self._step, slot.idle_connections == 0, slot.spent)
        heappush(self._ready, (order, slot.version, number))
        if len(self._ready) > 4 * len(self.slots) + 100:  # old entries far down are never met
            self._ready = [entry for entry in self._ready if entry[1] == self.slots[entry[2]].version]
            heapify(self._ready)
