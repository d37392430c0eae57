"""Which egress serves the next request of a limit pool. Times are UTC milliseconds by the local clock.

`Registry.lock` protects everything here: the heaps, the slots, their circuit breakers, budgets and claims. A
caller holds it for each call; nothing here waits or takes a lock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from heapq import heapify, heappop, heappush

import attrs

from marketfetch.ratelimit.budget import UNKNOWN_UNTIL_RESPONSE, RateBudget
from marketfetch.ratelimit.circuit_breaker import CircuitBreaker
from marketfetch.values.http import LimitPool

__all__ = ["Claim", "EgressQueue", "EgressSlot"]

_MAX_UNCHECKED_WAIT = 20
"""Milliseconds: `soonest` checks every slot only before a longer wait than this."""


@attrs.define(eq=False)
class Claim:
    """Until when this process alone may spend the budget of an address, according to one board.

    `used` tells whether anything was spent since the claim was granted.
    """

    until: int = 0
    used: bool = False


@attrs.define(eq=False)
class EgressSlot:
    """One egress in one limit pool.

    Each count has one owner. The circuit breaker counts the requests in flight, of all slots of the egress.
    The budget has the weight in flight, of all slots of the address in this process. The slot has the weight
    that was spent through it since it was made, and its idle connections. A slot serves while each of its
    `claims` is valid.
    """

    number: int
    breaker: CircuitBreaker
    budget: RateBudget
    address: str = ""
    claims: Sequence[Claim] = ()
    spent: int = attrs.field(default=0, init=False)
    idle_connections: int = attrs.field(default=0, init=False)
    version: int = attrs.field(default=0, init=False)
    """Counts up with each change; an entry of the queue with an older version is out of date."""

    def available_at(self, weight: int, host: str, now: int) -> int:
        """Return when the egress can serve a weight: `now`, a later moment, or UNKNOWN_UNTIL_RESPONSE."""
        if not self.claimed(now):
            return UNKNOWN_UNTIL_RESPONSE
        return max(self.breaker.ready_at(host, now), self.budget.available_at(weight, now))

    def claimed(self, now: int) -> bool:
        """Whether no other process may spend the budget now."""
        return not self.claims or all(claim.until > now for claim in self.claims)

    def acquire(self, weight: int, host: str) -> None:
        """Note that a request is about to be sent."""
        self.breaker.in_flight[host] += 1
        self.budget.spend(weight)
        self.spent += weight
        self.idle_connections = max(0, self.idle_connections - 1)
        for claim in self.claims:
            claim.used = True

    def release(self, weight: int, host: str, received: int, *, connection_kept: bool) -> None:
        """Note that a request is over; the exchange counted it at `received` at the latest."""
        self.breaker.in_flight[host] -= 1
        self.budget.release(weight, received)
        self.idle_connections += connection_kept


class EgressQueue:
    """The slots of a limit pool in the order in which they serve.

    The aim: as many egresses as requests in flight, each with a connection that is kept alive, and the load
    spread evenly over time. Hence the order: the fewest requests in flight; the least weight spent, in steps
    of a quarter of the capacity; an idle connection; the least weight spent.

    State: two heaps. `_ready` has entries by that order, `_later` has entries by the moment at which the slot
    can serve. A slot that changes is queued anew with a higher version, and older entries are dropped when
    they reach the top. So `acquire` costs O(log n), however many proxies are idle. Only `soonest` may visit
    every slot.

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
        self._numbers = defaultdict[str, list[int]](list)
        for number, slot in enumerate(slots):  # a proxy by HTTP and by SOCKS has one address, and two slots
            self._numbers[slot.address].append(number)
        self._step = max(1, pool.capacity // 4)
        self._ready: list[tuple[tuple[int, int, bool, int], int, int]] = []
        self._later: list[tuple[int, int, int]] = []
        for number in range(len(self.slots)):
            self.queue(number)

    def acquire(self, weight: int, host: str, now: int) -> EgressSlot | None:
        """Return the slot that serves now, with the weight taken from its budget; None if there is none.

        Entries of `_later` whose moment has come go back to `_ready`. Then for the first entry of `_ready`:

        1. Its version is old: the slot is queued elsewhere. Drop the entry.
        2. The slot can serve now: take it, and queue it anew.
        3. It can serve at a known moment: move the entry to `_later`.
        4. Only a response or another process can free it: drop the entry. That event queues the slot anew.

        Raises ConfigurationError for a weight above the capacity of the pool; the queue stays as it is.
        """
        while self._later and self._later[0][0] <= now:
            _, version, number = heappop(self._later)
            if version == self.slots[number].version:
                self.queue(number)
        while self._ready:
            _, version, number = self._ready[0]
            slot = self.slots[number]
            if version == slot.version:
                moment = slot.available_at(weight, host, now)
                if moment <= now:
                    slot.acquire(weight, host)
                    self.queue(number)
                    return slot
                if moment != UNKNOWN_UNTIL_RESPONSE:
                    heappush(self._later, (moment, version, number))
            heappop(self._ready)
        return None

    def soonest(self, weight: int, host: str, now: int) -> int:
        """Return when to call `acquire` again after it returned None: a moment, or UNKNOWN_UNTIL_RESPONSE.

        A slot that `acquire` put into `_later` for a heavy request may serve a lighter one, and the server's
        clock may be known better by now. So before a longer wait every slot is looked at, and each that can
        serve is queued.
        """
        if self._later and self._later[0][0] <= now + _MAX_UNCHECKED_WAIT:
            return self._later[0][0]
        soonest = UNKNOWN_UNTIL_RESPONSE
        for slot in self.slots:
            moment = slot.available_at(weight, host, now)
            if moment <= now:
                self.queue(slot.number)
            soonest = min(soonest, moment)
        return soonest

    def queue_address(self, address: str) -> None:
        """Queue the slots of an address anew, if there are any."""
        for number in self._numbers.get(address, ()):
            self.queue(number)

    def queue(self, number: int) -> None:
        """Queue a slot anew, after anything about it has changed."""
        slot = self.slots[number]
        slot.version += 1
        in_flight = slot.breaker.in_flight.total()
        order = (in_flight, slot.spent // self._step, slot.idle_connections == 0, slot.spent)
        heappush(self._ready, (order, slot.version, number))
        if len(self._ready) > 4 * len(self.slots) + 100:  # entries far down are old ones that are never met
            self._ready = [entry for entry in self._ready if entry[1] == self.slots[entry[2]].version]
            heapify(self._ready)
