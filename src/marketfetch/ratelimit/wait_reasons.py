"""Says in words what a request waits for. Times are UTC milliseconds by the local clock."""

from __future__ import annotations

import attrs

from marketfetch.ratelimit.budget import UNKNOWN_UNTIL_RESPONSE, usable
from marketfetch.ratelimit.egress_queue import EgressQueue, EgressSlot
from marketfetch.values.http import LimitPool
from marketfetch.values.spans import SECOND

__all__ = ["Wait", "title"]

_MIN_SHOWN_WAIT = 3 * SECOND
"""Milliseconds: a shorter wait is not shown."""
_MIN_UNKNOWN_WAIT = SECOND
"""Milliseconds after which a wait is shown whose end is not known."""


def title(pool: LimitPool) -> str:
    """Return the name of a limit pool as people read it.

    >>> title(LimitPool("binance-futures weight", 2400, 60_000)), title(LimitPool("calls", 10, 1_000))
    ('the weight limit of binance-futures', 'the limit calls')
    """
    exchange, space, limit = pool.name.partition(" ")
    return f"the {limit} limit of {exchange}" if space else f"the limit {pool.name}"


@attrs.define(eq=False)
class Wait:
    """A request at the head of the queue that no egress can serve yet; it waits since `since`.

    >>> from marketfetch.ratelimit.budget import RateBudget
    >>> from marketfetch.ratelimit.server_clock import ServerClock
    >>> from marketfetch.ratelimit.circuit_breaker import CircuitBreaker
    >>> pool = LimitPool("binance-futures weight", 2400, 60_000)
    >>> slot = EgressSlot(0, CircuitBreaker(), RateBudget(pool, ServerClock()))
    >>> slot.budget.charge(2_388, received=0)
    >>> wait = Wait(EgressQueue(pool, [slot]), weight=2, host="", since=39_001)
    >>> wait.reason(now=39_001)
    'waiting 21 s for the weight limit of binance-futures (2,388 of 2,388 used)'
    """

    queue: EgressQueue
    weight: int
    host: str
    since: int
    reported: bool = attrs.field(default=False, init=False)
    """Whether the listeners have been told of this wait."""

    def is_long(self, now: int) -> bool:
        """Whether the wait is so long that the listeners should be told of it."""
        moment = self._moment(now)
        if moment == UNKNOWN_UNTIL_RESPONSE:  # a response or another process ends the wait, mostly at once
            return now - self.since >= _MIN_UNKNOWN_WAIT
        return moment - self.since >= _MIN_SHOWN_WAIT

    def reason(self, now: int, away: str = "") -> str:
        """Say what the request waits for, and how long if that is known.

        `away` says why a board cannot be reached, if so.
        """
        pool, slots = self.queue.pool, self.queue.slots
        claimed = [slot for slot in slots if slot.claimed(now)]
        if not claimed and away:
            return f"waiting for the board of {title(pool)}: {away}"
        if not claimed:
            return f"waiting for another process's share of {title(pool)}"
        fit = [slot for slot in claimed if slot.breaker.ready_at(self.host, now) <= now]
        moment = self._moment(now)
        span = "" if moment == UNKNOWN_UNTIL_RESPONSE else f" {max(1, round((moment - now) / 1000))} s"
        if not fit:
            return f"waiting{span} for an egress: each of the {len(claimed)} is paused or banned"
        used = sum(slot.budget.used(now) for slot in fit)
        return f"waiting{span} for {title(pool)} ({used:,} of {len(fit) * usable(pool):,} used)"

    def state(self, slot: EgressSlot, now: int, *, away: bool = False) -> str:
        """Say what the request waits for at one egress; empty if it can serve, or its breaker is open.

        `away` tells whether a board cannot be reached.
        """
        if slot.breaker.ready_at(self.host, now) > now:
            return ""
        if not slot.claimed(now) and away:
            return "waiting for the board"
        if not slot.claimed(now):
            return f"waiting for another process's share of {title(self.queue.pool)}"
        moment = slot.budget.available_at(self.weight, now)
        if moment <= now:
            return ""
        span = "" if moment == UNKNOWN_UNTIL_RESPONSE else f" {max(1, round((moment - now) / 1000))} s"
        return f"waiting{span} for {title(self.queue.pool)}"

    def _moment(self, now: int) -> int:
        slots = self.queue.slots
        return min(
            (slot.available_at(self.weight, self.host, now) for slot in slots), default=UNKNOWN_UNTIL_RESPONSE
        )
