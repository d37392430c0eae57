"""The time at the exchange, known only within bounds. Times are UTC milliseconds."""

from __future__ import annotations

from math import ceil, floor

import attrs

from marketfetch.values.spans import SECOND

__all__ = ["ServerClock"]

_RESOLUTION = SECOND  # a Date header has whole seconds; the rest is cut off
_DRIFT = 0.0005  # how fast two clocks may run apart: NTP corrects by no more


@attrs.define
class ServerClock:
    """Bounds of `server time − local time`, narrowed by each response with a Date header.

    The server wrote the date at some moment between sending and receiving. So one response bounds the offset
    to one second plus the round trip, and the intersection of many responses to a few milliseconds. A
    response that contradicts the bounds replaces them: a clock was set, or another server answered.

    Example: sent at 10.400 s, received at 10.500 s, Date 13 s. At local 11.000 s the server's clock shows
    13.498 s to 14.601 s.

    >>> clock = ServerClock()
    >>> clock.observe(sent=10_400, received=10_500, date=13_000)
    >>> clock.earliest(11_000), clock.latest(11_000)
    (13498, 14601)
    """

    known: bool = attrs.field(default=False, init=False)
    _at: int = attrs.field(default=0, init=False)
    _low: float = attrs.field(default=0.0, init=False)
    _high: float = attrs.field(default=0.0, init=False)

    def observe(self, sent: int, received: int, date: int) -> None:
        """Narrow the bounds by the Date header of a response; `sent` and `received` are local times."""
        at = received + 1  # both times were cut to milliseconds: the later one has to be rounded up
        low, high = float(date - at), float(date + _RESOLUTION - sent)
        if self.known:
            drift = self._drift(at)
            narrower = max(low, self._low - drift), min(high, self._high + drift)
            if narrower[0] <= narrower[1]:
                low, high = narrower
        self._at, self._low, self._high, self.known = at, low, high, True

    def earliest(self, local: int) -> int:
        """Return the earliest time that the server's clock may show at a local time."""
        return floor(local + self._low - self._drift(local))

    def latest(self, local: int) -> int:
        """Return the latest time that the server's clock may show at a local time."""
        return ceil(local + self._high + self._drift(local))

    def surely_at(self, server: int) -> int:
        """Return the local time from which on the server's clock surely shows `server` or more."""
        ahead = server - self._low - self._at
        return self._at + ceil(ahead / (1 - _DRIFT))

    def _drift(self, local: int) -> float:
        return abs(local - self._at) * _DRIFT
