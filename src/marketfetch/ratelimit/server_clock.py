"""The time at the exchange, known only within bounds. Times are UTC milliseconds."""

from __future__ import annotations

from math import ceil, floor

import attrs

from marketfetch.values.spans import SECOND
from marketfetch.values.times import Clock, SteadyClock

__all__ = ["ServerClock"]

_DRIFT = 0.0005  # how fast two clocks may run apart: NTP corrects by no more


@attrs.frozen
class _Bounds:
    """Bounds of `server time − local time`, as of one local time; they widen as the two clocks run apart."""

    at: int
    low: float
    high: float
    exact: bool = False
    """Whether the exchange's time route has confirmed them."""

    def _spread(self, at: int) -> _Bounds:
        drift = abs(at - self.at) * _DRIFT
        return _Bounds(at, self.low - drift, self.high + drift, self.exact)

    def __and__(self, later: _Bounds) -> _Bounds | None:
        """Return what agrees with both; None if nothing does."""
        now = self._spread(later.at)
        low, high = max(now.low, later.low), min(now.high, later.high)
        return _Bounds(later.at, low, high, self.exact or later.exact) if low <= high else None

    def __or__(self, later: _Bounds) -> _Bounds:
        """Return the bounds that hold if either of the two does."""
        now = self._spread(later.at)
        return _Bounds(later.at, min(now.low, later.low), max(now.high, later.high))

    def earliest(self, local: int) -> int:
        return floor(local + self._spread(local).low)

    def latest(self, local: int) -> int:
        return ceil(local + self._spread(local).high)


@attrs.define
class ServerClock:
    """Bounds of the time at one exchange, narrowed by each answer that tells it.

    The server read its clock at some moment between sending and receiving. So one `Date` header bounds the
    offset to one second plus the round trip, and the intersection of many headers to a few milliseconds; one
    answer of the time route bounds it to the round trip.

    An answer that contradicts the bounds conflicts with the answers before it. The next answer decides
    between the two; until then `earliest` and `latest` hold for both. A proxy may rewrite all headers: they
    never replace what the time route said, and its answer replaces what they said.

    Each change replaces one value, so a thread may read the clock while another one changes it.

    Example: sent at 10.400 s, received at 10.500 s, Date 13 s. At local 11.000 s the server's clock shows
    13.498 s to 14.601 s.

    >>> clock = ServerClock()
    >>> clock.observe(sent=10_400, received=10_500, time=13_000)
    >>> clock.earliest(11_000), clock.latest(11_000), clock.confirmed
    (13498, 14601, False)
    >>> clock.observe(sent=11_000, received=11_020, time=14_310, exact=True)
    >>> clock.earliest(11_020), clock.latest(11_020), clock.confirmed
    (14308, 14332, True)
    """

    local: Clock = attrs.field(factory=SteadyClock)
    """The clock with which answers are timed; it must not jump."""
    latency: float = attrs.field(default=0.1, init=False)
    """Seconds in which the time route last answered; a guess before that."""
    _bounds: tuple[_Bounds | None, _Bounds | None] = attrs.field(default=(None, None), init=False)
    """The accepted bounds, and those that conflict with them."""

    @property
    def known(self) -> bool:
        """Whether any answer has told the time."""
        return self._bounds[0] is not None

    @property
    def confirmed(self) -> bool:
        """Whether the time route has told the time, and no answer since contradicts it."""
        accepted, conflicting = self._bounds
        return accepted is not None and accepted.exact and conflicting is None

    def observe(self, sent: int, received: int, time: int, *, exact: bool = False) -> None:
        """Narrow the bounds by an answer; `sent` and `received` are local times.

        `time` is a Date header, whose rest of a second is cut off, or `exact`: of the time route.
        """
        at = received + 1  # both times were cut to milliseconds: the later one has to be rounded up
        answer = _Bounds(at, time - at, time + (1 if exact else SECOND) - sent, exact)
        accepted, conflicting = self._bounds
        if accepted is None:
            self._bounds = answer, None
        elif both := accepted & answer:
            self._bounds = both, None
        elif exact and not accepted.exact:
            self._bounds = answer, accepted
        elif conflicting and (both := conflicting & answer) and both.exact >= accepted.exact:
            self._bounds = both, None
        else:
            self._bounds = accepted, answer

    def earliest_accepted(self, local: int) -> int:
        """Return the earliest time of the server by the accepted bounds, without the conflicting ones."""
        accepted, _ = self._bounds
        return local if accepted is None else accepted.earliest(local)

    def earliest(self, local: int) -> int:
        """Return the earliest time that the server's clock may show at a local time."""
        return self._possible.earliest(local)

    def latest(self, local: int) -> int:
        """Return the latest time that the server's clock may show at a local time."""
        return self._possible.latest(local)

    def surely_at(self, server: int) -> int:
        """Return the local time from which on the server's clock surely shows `server` or more."""
        possible = self._possible
        return possible.at + ceil((server - possible.low - possible.at) / (1 - _DRIFT))

    @property
    def _possible(self) -> _Bounds:
        accepted, conflicting = self._bounds
        if accepted is None:
            return _Bounds(0, 0.0, 0.0)
        return accepted if conflicting is None else accepted | conflicting
