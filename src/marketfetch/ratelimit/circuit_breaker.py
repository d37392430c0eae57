"""The circuit breaker of an egress: failures open it, a probe closes it, and bans block single hosts.

Times are UTC milliseconds by the local clock.
"""

from __future__ import annotations

import attrs

from marketfetch.errors import Banned, LocalResourceError, ProxyError, RequestTimeout, TransportError
from marketfetch.ratelimit.budget import UNKNOWN_UNTIL_RESPONSE
from marketfetch.redaction import redact
from marketfetch.values.spans import DAY, MINUTE, SECOND, format_utc

__all__ = ["Bans", "CircuitBreaker"]

_FAILURES_TO_OPEN = 2
_FAILURES_TO_EXHAUST = 8
_FIRST_REST, _LONGEST_REST = SECOND, MINUTE
_FIRST_BAN, _LONGEST_BAN = 2 * MINUTE, 3 * DAY


@attrs.define(eq=False)
class Bans:
    """Which hosts have banned an address, and until when.

    >>> bans = Bans()
    >>> bans.add(Banned("418: banned", until=90_000), host="https://e.org", now=5)
    >>> bans.until("https://e.org"), bans.until("https://other.org"), bans.latest
    (90000, 0, 90000)
    """

    _by_host: dict[str, tuple[int, int, str]] = attrs.field(factory=dict, init=False)

    def __bool__(self) -> bool:
        return bool(self._by_host)

    def add(self, error: Banned, host: str, now: int) -> None:
        """Note a ban until the moment that the exchange named.

        Where it named none, the first ban lasts 2 minutes, and each further one twice as long as the one
        before. A request that was sent before the ban and is refused for it is no further ban.
        """
        until, bans, _ = self._by_host.get(host, (0, 0, ""))
        if now >= until:
            bans += 1
        default = now + min(_LONGEST_BAN, _FIRST_BAN << bans - 1)
        self._by_host[host] = max(until, error.until or default), bans, redact(str(error))

    def until(self, host: str) -> int:
        """Return when the ban by a host ends or has ended; 0 where there was none."""
        return self._by_host[host][0] if host in self._by_host else 0

    @property
    def latest(self) -> int:
        """When the last of the bans ends or has ended."""
        return max((until for until, _, _ in self._by_host.values()), default=0)

    @property
    def causes(self) -> list[str]:
        """The message of each ban."""
        return [cause for _, _, cause in self._by_host.values()]


@attrs.define
class CircuitBreaker:
    """The circuit breaker of one egress.

    | state | when | `state()` | requests |
    |---|---|---|---|
    | closed | fewer than 2 failures | `ready` | any number |
    | open | from the 2nd failure on, for 1 s to 60 s | `resting 8 s` | none |
    | half-open | the pause is over | `on probation` | one, the probe |

    A ProxyError counts as two failures, a TransportError or RequestTimeout, which may be the exchange's
    fault, as one. Each further pair of failures doubles the pause. Any complete response closes the breaker.
    Bans belong to the address: all egresses with this address in this process share them.

    >>> breaker = CircuitBreaker()
    >>> breaker.failed(ProxyError("connection refused"), sent=0, now=5, jitter=1.0)
    >>> breaker.ready_at("https://e.org", now=5), breaker.state(now=5)
    (1005, 'resting 1 s')
    """

    bans: Bans = attrs.field(factory=Bans)
    in_flight: int = attrs.field(default=0, init=False)
    """Requests in flight through this egress, in all limit pools."""
    _cause: str = attrs.field(default="", init=False)
    _failures: int = attrs.field(default=0, init=False)
    _opened_at: int = attrs.field(default=0, init=False)
    _open_until: int = attrs.field(default=0, init=False)

    @property
    def causes(self) -> list[str]:
        """The messages of the last failure and of the bans."""
        return [cause for cause in (self._cause, *self.bans.causes) if cause]

    @property
    def closed(self) -> bool:
        """Whether the breaker is closed: neither open nor half-open."""
        return self._failures < _FAILURES_TO_OPEN

    @property
    def exhausted(self) -> bool:
        """Whether the egress failed so often in a row that waiting for it is no use."""
        return self._failures >= _FAILURES_TO_EXHAUST

    def ready_at(self, host: str, now: int) -> int:
        """Return when the egress may be used for a host: `now`, a later moment, or UNKNOWN_UNTIL_RESPONSE.

        It is unknown while the breaker is half-open and its one probe is in flight.
        """
        if self.closed and not self.bans:
            return now
        if not self.closed and self.in_flight:
            return UNKNOWN_UNTIL_RESPONSE
        return max(now, self._open_until, self.bans.until(host))

    def failed(self, error: Exception, sent: int, now: int, jitter: float) -> None:
        """Note that a request failed; `jitter` 1 gives the whole pause, 0 gives half of it.

        Errors that say nothing about the egress change nothing: BadSymbol, RestrictedLocation, and
        LocalResourceError, which says that this machine has run out of something.
        """
        if not isinstance(error, ProxyError | TransportError | RequestTimeout):
            return
        if isinstance(error, LocalResourceError):
            return
        if sent < self._opened_at:
            return  # sent before the breaker opened: the same incident, counted already
        self._cause = redact(str(error))
        self._failures += 2 if isinstance(error, ProxyError) else 1
        if not self.closed:
            rest = min(_LONGEST_REST, _FIRST_REST << self._failures // 2 - 1)
            self._opened_at = now
            self._open_until = now + round(rest * (0.5 + 0.5 * jitter))

    def succeeded(self) -> None:
        """Note a complete response, whatever its HTTP status: the egress works."""
        self._failures = self._open_until = self._opened_at = 0

    def banned(self, error: Banned, host: str, now: int) -> None:
        """Block the egress for a host; see Bans."""
        self.bans.add(error, host, now)

    def state(self, now: int) -> str:
        """Return the state in words, for reports.

        >>> CircuitBreaker().state(now=0)
        'ready'
        """
        if self.bans.latest > now:
            return f"banned until {format_utc(self.bans.latest // 1000 * 1000)}"
        if self._open_until > now:
            return f"resting {-((now - self._open_until) // 1000)} s"
        return "ready" if self.closed else "on probation"
