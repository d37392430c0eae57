"""The rate limiter of one address: what it may still spend of a published limit.

Times are UTC milliseconds by the local clock.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Sequence
from operator import itemgetter
from typing import Final

import attrs

from marketfetch.errors import ConfigurationError
from marketfetch.ratelimit.server_clock import ServerClock
from marketfetch.values.http import LimitPool

__all__ = ["UNKNOWN_UNTIL_RESPONSE", "RateBudget", "usable"]

UNKNOWN_UNTIL_RESPONSE: Final = sys.maxsize
"""Stands for a moment that no clock brings: only the response to a request in flight does."""
_MAX_PARTS = 16
"""Other processes are told what is spent in so many parts, at most."""


def usable(pool: LimitPool) -> int:
    """Return what is spent of a limit: other programs at the same address get a reserve of 0.5 %.

    >>> usable(LimitPool("weight", capacity=2400, period=60_000))
    2388
    """
    return pool.capacity - pool.capacity // 200


@attrs.define
class RateBudget:
    """The budget of one address in one limit pool: the weight in flight, and the weight spent.

    The exchange counts a request at an unknown moment between sending and receiving. So a request weighs on
    the budget from being sent until the latest window that may have counted it has surely ended. A request
    that straddles a window boundary counts in both windows. Whatever the latency and the clock skew, the
    exchange never counts more than the capacity.

    Another process may have spent the budget of the same address. Where the exchange reports the used weight
    in a header, an address that has spent nothing lately therefore sends one request alone first.

    Example: capacity 10, period 60 s. A request of weight 8 is answered at 0.250 s. The next one of weight 8
    fits at 60.251 s, when the first one has surely left the sliding window.

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
    weight_in_flight: int = attrs.field(default=0, init=False)
    _spent: deque[tuple[int, int, int]] = attrs.field(factory=deque, init=False)
    """The moment of each response, its weight and its `end`, while the exchange may still count it.

    `end` is what another process knows: from then on the exchange surely does not count the weight.
    """
    _spent_weight: int = attrs.field(default=0, init=False)
    """The sum of the weights in `_spent`."""
    _blocked_until: int = attrs.field(default=0, init=False)
    _confirmed: bool = attrs.field(
        default=attrs.Factory(lambda self: self.pool.used_header is None, takes_self=True), init=False
    )
    """Whether a response has told how much of the limit is used, or will never tell."""
    _burst: RateBudget | None = attrs.field(
        default=attrs.Factory(lambda self: self._of_burst(), takes_self=True), init=False
    )
    """Counts the same weight against the limit of the shorter period."""

    def _of_burst(self) -> RateBudget | None:
        pool, burst = self.pool, self.pool.burst
        if burst is None:
            return None
        return RateBudget(LimitPool(pool.name, burst.capacity, burst.period, pool.window), self.clock)

    @property
    def counted(self) -> int:
        """The weight in flight and the weight spent, as of the last look at the clock."""
        return self.weight_in_flight + self._spent_weight

    @property
    def room(self) -> int:
        """What may be spent at once, as of the last look at the clock; 0 or less for nothing."""
        room = usable(self.pool) - self.counted
        return room if self._burst is None else min(room, self._burst.room)

    def available_at(self, weight: int, now: int) -> int:
        """Return the earliest moment at which a request of this weight may be sent.

        1. The weight is above the capacity: it never fits. Raises ConfigurationError.
        2. Only the response to the first request tells what others have spent: unknown while it is in flight.
        3. The exchange asked for a pause: no moment before its end.
        4. The weight fits beside what is in flight and spent: now, or the end of the pause.
        5. It fits once enough of what is spent has expired: the moment of that, oldest request first.
        6. It does not fit beside what is in flight, even if everything spent has expired: unknown until a
           response comes.

        With a burst limit, the moment is the later one of both limits.
        """
        soonest = now if self._burst is None else self._burst.available_at(weight, now)
        capacity = self.pool.capacity
        if weight > capacity:
            raise ConfigurationError(
                f"a request of weight {weight} never fits limit pool {self.pool.name!r} with its capacity of "
                f"{capacity}; ask for smaller pages"
            )
        self._expire(now)
        if self.weight_in_flight and not self._confirmed:
            return UNKNOWN_UNTIL_RESPONSE
        moment = max(soonest, self._blocked_until)
        room = max(usable(self.pool), weight) - self.counted  # a single request may use the reserve, too
        for received, spent, end in self._spent:
            if weight <= room:
                break
            room += spent
            moment = max(moment, self.expires_at(received, end))
        return moment if weight <= room else UNKNOWN_UNTIL_RESPONSE

    def spend(self, weight: int) -> None:
        """Take the weight of a request that is about to be sent."""
        self.weight_in_flight += weight
        if self._burst is not None:
            self._burst.spend(weight)

    def release(self, weight: int, received: int) -> None:
        """Note that a request is no longer in flight: the exchange counted it at `received` or before."""
        self.weight_in_flight -= weight
        if self._burst is not None:
            self._burst.weight_in_flight -= weight
        self.charge(weight, received)

    def charge(self, weight: int, received: int, end: int = UNKNOWN_UNTIL_RESPONSE) -> None:
        """Count weight that was not spent through this object: the exchange counted it by `received`.

        `end` is when it surely no longer counts, if another process knows that from the exchange's clock.
        It is not passed on to a burst limit, whose window may end later.
        """
        self._spent.append((received, weight, end))
        self._spent_weight += weight
        if self._burst is not None:
            self._burst.charge(weight, received)

    def charge_all(self, spent: Collection[tuple[int, int, int]]) -> None:
        """Count what another object has counted: triples of `received`, a weight and `end`; see `charge`."""
        self._spent.extend(spent)
        self._spent_weight += sum(weight for _, weight, _ in spent)
        if self._burst is not None:
            self._burst.charge_all(spent)

    def copy(self, now: int) -> RateBudget:
        """Return a copy to plan with: what is in flight counts in it as answered at `now`."""
        copied = attrs.evolve(self)
        copied.block_until(self._blocked_until)
        copied.charge_all(self._spent)
        if self.weight_in_flight:
            copied.charge(self.weight_in_flight, now)
        if self._confirmed:
            copied.sync_with_header(None, sent=now, received=now)
        return copied

    def mark_unconfirmed(self) -> None:
        """Send the next request alone, if its response tells how much of the limit is used."""
        self._confirmed = self.pool.used_header is None

    def used(self, now: int) -> int:
        """Return how much of the capacity is taken: the weight in flight and the weight spent."""
        self._expire(now)
        return self.counted

    def spent(self, now: int) -> Sequence[tuple[int, int]]:
        """Return what is spent as at most `_MAX_PARTS` pairs of a moment and a weight.

        Neighbouring entries are put together under their latest moment, so that none expires too early.
        """
        self._expire(now)
        entries = list(self._spent)
        size = max(1, -(-len(entries) // _MAX_PARTS))
        groups = [entries[at : at + size] for at in range(0, len(entries), size)]
        return [(max(when for when, _, _ in group), sum(each[1] for each in group)) for group in groups]

    def spent_until(self, now: int) -> int:
        """Return when all that is spent has surely expired, or `now` if nothing is spent."""
        self._expire(now)
        if not self._spent:
            return now
        # What came later does not expire sooner.
        latest, end = max(map(itemgetter(0), self._spent)), max(map(itemgetter(2), self._spent))
        return self.expires_at(latest, end)

    def blocked_until(self, now: int) -> int:
        """Return the end of the pause that the exchange asked for, or `now` if there is none."""
        return max(now, self._blocked_until)

    def idle(self, now: int) -> bool:
        """Whether there is nothing left to remember."""
        return not self.used(now) and self._blocked_until <= now

    def sync_with_header(self, used: int | None, sent: int, received: int) -> None:
        """Compare with what a response says is used of the current window, and believe the larger figure.

        Call it after `release` for the same request.

        1. `used` is None: the exchange does not tell, and waiting for a response that tells is no use.
        2. The response surely belongs to one window: weight that this object does not know of is charged.
        3. The request may have straddled a window boundary: the figure may be of the window before. If it is
           larger than what is known, nothing is spent until that window has surely ended.
        """
        if used is None:
            self._confirmed = True
        elif self._within_one_window(sent, received):
            self._confirmed = True
            self._expire(received)
            unknown = used - self.counted
            if unknown > 0:
                self.charge(unknown, received)
        elif used > self.counted:
            boundary = self.clock.latest(received) // self.pool.period * self.pool.period
            self.block_until(min(received + 1 + self.pool.period, self.clock.surely_at(boundary)))

    def block_until(self, moment: int) -> None:
        """Spend nothing before a moment, because the exchange asked for a pause."""
        self._blocked_until = max(self._blocked_until, moment)

    def expires_at(self, received: int, end: int = UNKNOWN_UNTIL_RESPONSE) -> int:
        """Return when a request answered at `received` surely no longer counts.

        A window lasts one period. One period after the answer the request is in no window any more, whatever
        the clocks show. If the window follows the server's clock, and that clock is known here, the window
        ends at the next full period of it. If the clock is not known here, the window ends at `end`, which
        another process has computed from the clock.
        """
        period = self.pool.period
        received += 1  # the moment was cut to milliseconds: the exchange may have counted up to 1 ms later
        moment = received + period
        if not self.clock.known:
            return min(moment, end)
        if self.pool.window == "clock":
            boundary = (self.clock.latest(received) // period + 1) * period
            moment = min(moment, self.clock.surely_at(boundary))
        return moment

    def _expire(self, now: int) -> None:
        """Forget what has surely expired; after a silence the first request has to be alone again."""
        while self._spent and self.expires_at(self._spent[0][0], self._spent[0][2]) <= now:
            self._spent_weight -= self._spent.popleft()[1]
        if not self._spent and not self.weight_in_flight:
            self._confirmed = self.pool.used_header is None

    def _within_one_window(self, sent: int, received: int) -> bool:
        if self.pool.window == "sliding" or not self.clock.known:
            return True
        period = self.pool.period
        return self.clock.earliest(sent) // period == self.clock.latest(received) // period
