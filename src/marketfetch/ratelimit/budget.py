"""What one address may still spend of a published limit. Times are UTC milliseconds by the local clock."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs

from marketfetch.errors import ConfigurationError
from marketfetch.ratelimit.server_clock import ServerClock
from marketfetch.values.http import LimitPool

__all__ = ["UNKNOWN_UNTIL_RESPONSE", "RateBudget"]

UNKNOWN_UNTIL_RESPONSE: Final = sys.maxsize
"""A moment that does not come by waiting, only by an answer to a request in flight."""


@attrs.define
class RateBudget:
    """One egress in one limit pool: what is in flight, and what is spent and not yet forgiven.

    The exchange counts a request at an unknown moment between sending and receiving. So a request weighs on
    the budget from being sent until the latest window that may have counted it is surely over: one that
    straddles a boundary counts in both windows. Whatever the latency and the skew of the clocks, the
    exchange never counts more than the capacity.

    Where the exchange tells what is used, an address that has spent nothing lately first asks one
    question: another process may have spent its budget.

    >>> budget = RateBudget(LimitPool("calls", capacity=10, period=60_000), ServerClock())
    >>> budget.spend(8)
    >>> budget.available_at(8, now=100) == UNKNOWN_UNTIL_RESPONSE
    True
    >>> budget.release(8, received=250)
    >>> budget.available_at(8, now=300)
    60251
    """

    pool: LimitPool
    clock: ServerClock
    in_flight: int = attrs.field(default=0, init=False)
    _held: deque[tuple[int, int]] = attrs.field(factory=deque, init=False)
    _spent: int = attrs.field(default=0, init=False)
    _closed_until: int = attrs.field(default=0, init=False)
    _confirmed: bool = attrs.field(default=False, init=False)

    def available_at(self, weight: int, now: int) -> int:
        """Return the earliest moment at which a cost fits: `now`, a later one, or UNKNOWN_UNTIL_RESPONSE.

        Raises ConfigurationError for a weight above the capacity, which fits at no time.
        """
        capacity = self.pool.capacity
        if weight > capacity:
            raise ConfigurationError(
                f"a request of weight {weight} never fits limit pool {self.pool.name!r} with its capacity of "
                f"{capacity}; ask for smaller pages"
            )
        self._expire(now)
        if self.in_flight and not self._confirmed:
            return UNKNOWN_UNTIL_RESPONSE
        moment = max(now, self._closed_until)
        # The reserve is for others on the same address; a single request may still be as large as allowed.
        room = max(capacity - capacity // 200, weight) - self.in_flight - self._spent
        for received, held in self._held:
            if weight <= room:
                break
            room += held
            moment = max(moment, self.expires_at(received))
        return moment if weight <= room else UNKNOWN_UNTIL_RESPONSE

    def spend(self, weight: int) -> None:
        """Take the cost of a request that is about to be sent."""
        self.in_flight += weight

    def release(self, weight: int, received: int) -> None:
        """Note that a request is no longer in flight: the exchange counted it at `received` or before."""
        self.in_flight -= weight
        self.charge(weight, received)

    def charge(self, weight: int, received: int) -> None:
        """Count what was spent without this budget: the exchange counted it at `received` or before."""
        self._held.append((received, weight))
        self._spent += weight

    def doubt(self) -> None:
        """Ask one question alone before anything else is spent, where the exchange tells what is used."""
        self._confirmed = self.pool.used_header is None

    def used(self, now: int) -> int:
        """Return how much of the capacity is taken: what is in flight, and what is not yet forgiven."""
        self._expire(now)
        return self.in_flight + self._spent

    def spent(self, now: int, parts: int = 16) -> Sequence[tuple[int, int]]:
        """Return what was spent and is not yet forgiven: at most so many pairs of a moment and a weight.

        Of entries that are put together the latest moment is told, so that none is forgiven too early.
        """
        self._expire(now)
        entries = list(self._held)
        size = max(1, -(-len(entries) // parts))
        groups = [entries[at : at + size] for at in range(0, len(entries), size)]
        return [(max(when for when, _ in group), sum(weight for _, weight in group)) for group in groups]

    def blocked_until(self, now: int) -> int:
        """Return until when nothing is spent because the exchange said so, or `now`."""
        return max(now, self._closed_until)

    def idle(self, now: int) -> bool:
        """Whether there is nothing left to remember."""
        return not self.used(now) and self._closed_until <= now

    def sync_with_header(self, used: int | None, sent: int, received: int) -> None:
        """Believe what an answer says is used of the current window, where that is more than we know of.

        Call it after `settle` for the same request. `used` is None where the answer says nothing. An answer
        that may belong to the window before is not believed; if somebody else has spent something, the budget
        is closed until that window is surely over.
        """
        if used is None:
            self._confirmed = True  # it does not tell: no use in waiting for it
        elif self._within_one_window(sent, received):
            self._confirmed = True
            self._expire(received)
            unknown = used - self._spent - self.in_flight
            if unknown > 0:
                self.charge(unknown, received)
        elif used > self._spent + self.in_flight:
            # Somebody else spent it, in a window that may be over or not: wait until it surely is.
            boundary = self.clock.latest(received) // self.pool.period * self.pool.period
            self.block_until(self.clock.surely_at(boundary))

    def block_until(self, moment: int) -> None:
        """Spend nothing before a moment, because the exchange said so."""
        self._closed_until = max(self._closed_until, moment)

    def expires_at(self, received: int) -> int:
        """Return when a request answered at `received` surely no longer counts.

        A window is over a period after anything it counted, which needs no clock; one that is aligned to a
        known clock is over at its boundary.
        """
        period = self.pool.period
        received += 1  # it was cut to milliseconds, and the exchange may have counted within the one it is in
        moment = received + period
        if self.pool.window == "clock" and self.clock.known:
            boundary = (self.clock.latest(received) // period + 1) * period
            moment = min(moment, self.clock.surely_at(boundary))
        return moment

    def _expire(self, now: int) -> None:
        while self._held and self.expires_at(self._held[0][0]) <= now:
            self._spent -= self._held.popleft()[1]
        if not self._held and not self.in_flight:
            self._confirmed = self.pool.used_header is None

    def _within_one_window(self, sent: int, received: int) -> bool:
        if self.pool.window == "sliding" or not self.clock.known:
            return True
        period = self.pool.period
        return self.clock.earliest(sent) // period == self.clock.latest(received) // period
