"""The circuit breaker of an egress. Failures open the breaker, for one host or for all; a probe closes it.

Times are UTC milliseconds by the local clock.
"""

from __future__ import annotations

from collections import Counter

import attrs

from marketfetch.errors import Banned, LocalResourceError, ProxyError, RequestTimeout, TransportError
from marketfetch.ratelimit.budget import UNKNOWN_UNTIL_RESPONSE
from marketfetch.redaction import redact
from marketfetch.values.spans import DAY, MINUTE, SECOND, format_utc

__all__ = ["Bans", "CircuitBreaker"]

_FAILURES_TO_OPEN = 2
_FAILURES_TO_EXHAUST = 8
_FIRST_PAUSE, _MAX_PAUSE = SECOND, MINUTE
_FIRST_BAN, _MAX_BAN = 2 * MINUTE, 3 * DAY


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
        default = now + min(_MAX_BAN, _FIRST_BAN << bans - 1)
        self._by_host[host] = max(until, error.until or default), bans, redact(str(error))

    def until(self, host: str) -> int:
        """Return when the ban by a host ends or has ended; 0 where there was none."""
        return self._by_host[host][0] if host in self._by_host else 0

    @property
    def latest(self) -> int:
        """When the last of the bans ends or has ended."""
        return max((until for until, _, _ in self._by_host.values()), default=0)

    @property
    def latest_host(self) -> str:
        """The host of the ban that ends last; empty where there is none."""
        return max(self._by_host, key=self.until, default="")

    def cause(self, host: str) -> str:
        """Return the message of the last ban by a host; empty where there was none."""
        return self._by_host[host][2] if host in self._by_host else ""


@attrs.frozen
class _Failures:
    """Failures since the last complete response, and the pause after them."""

    count: int = 0
    cause: str = ""
    opened_at: int = 0
    open_until: int = 0

    @property
    def closed(self) -> bool:
        return self.count < _FAILURES_TO_OPEN

    @property
    def exhausted(self) -> bool:
        return self.count >= _FAILURES_TO_EXHAUST

    def add(self, count: int, cause: str, now: int, jitter: float) -> _Failures:
        total = self.count + count
        if total < _FAILURES_TO_OPEN:
            return _Failures(total, cause)
        pause = min(_MAX_PAUSE, _FIRST_PAUSE << total // 2 - 1)
        return _Failures(total, cause, now, now + round(pause * (0.5 + 0.5 * jitter)))


@attrs.define
class CircuitBreaker:
    """The circuit breaker of one egress, which judges each host apart.

    | error | what may be at fault | failures | opens for |
    |---|---|---|---|
    | ProxyError | the egress | 2 | all hosts |
    | TransportError, RequestTimeout | the host, or the way to it | 1 | the host |

    | state | when | `state()` | requests to a host |
    |---|---|---|---|
    | closed | fewer than 2 failures | `ready` | any number |
    | open | from the 2nd failure on, 1 s to 60 s | `circuit open 8 s`, `circuit open 8 s for e.org` | none |
    | half-open | the pause is over | `circuit half-open`, `circuit half-open for e.org` | one, the probe |

    Each further pair of failures doubles the pause. A complete response closes the breaker for its host, and
    for all hosts if a ProxyError had opened it; what other hosts broke stays counted. Bans belong to the
    address: all egresses with this address in this process share them.

    >>> breaker = CircuitBreaker()
    >>> for _ in range(2):
    ...     breaker.failed(TransportError("connection cut"), "https://files.e.org", sent=5, now=5, jitter=1.0)
    >>> breaker.ready_at("https://files.e.org", now=5), breaker.ready_at("https://api.e.org", now=5)
    (1005, 5)
    >>> breaker.state(now=5)
    'circuit open 1 s for files.e.org'
    """

    bans: Bans = attrs.field(factory=Bans)
    in_flight: Counter[str] = attrs.field(factory=Counter, init=False)
    """Requests in flight through this egress to each host, in all limit pools."""
    _failures: dict[str | None, _Failures] = attrs.field(factory=dict, init=False)
    """By the host for which they count; under None, those that count for all hosts."""

    def causes(self, host: str) -> list[str]:
        """Return the messages of the last failures and of the last ban that concern a host."""
        causes = *(failures.cause for failures in self._concerning(host)), self.bans.cause(host)
        return [cause for cause in causes if cause]

    def exhausted(self, host: str) -> bool:
        """Whether waiting for the egress is no use to a host.

        It has failed very often in a row, and no request is in flight that could show the contrary: to this
        host, or to any host if the egress itself has failed.
        """
        in_flight = {None: self.in_flight.total(), host: self.in_flight[host]}
        return any(
            failures.exhausted and not in_flight[key]
            for key, failures in self._failures.items()
            if key in in_flight
        )

    def ready_at(self, host: str, now: int) -> int:
        """Return when the egress may be used for a host: `now`, a later moment, or UNKNOWN_UNTIL_RESPONSE.

        It is unknown while the breaker is half-open and the one probe to this host is in flight. A long
        download from one host therefore delays no probe to another.
        """
        if not self._failures and not self.bans:
            return now
        concerning = self._concerning(host)
        if self.in_flight[host] and not all(failures.closed for failures in concerning):
            return UNKNOWN_UNTIL_RESPONSE
        return max(now, self.bans.until(host), *(failures.open_until for failures in concerning))

    def failed(self, error: Exception, host: str, sent: int, now: int, jitter: float) -> None:
        """Note that a request to a host failed; `jitter` 1 gives the whole pause, 0 gives half of it.

        Errors that say nothing about the egress change nothing: BadSymbol, RestrictedLocation, and
        LocalResourceError, which says that this machine has run out of something.
        """
        if not isinstance(error, ProxyError | TransportError | RequestTimeout):
            return
        if isinstance(error, LocalResourceError):
            return
        key, count = (None, 2) if isinstance(error, ProxyError) else (host, 1)
        # Sent before the breaker opened: the same incident, counted already. When a proxy dies, for example,
        # some connections are refused and others break.
        known = [self._failures[each] for each in {None, key} if each in self._failures]
        if any(sent < failures.opened_at for failures in known):
            return
        before = self._failures.get(key, _Failures())
        self._failures[key] = before.add(count, redact(str(error)), now, jitter)

    def succeeded(self, host: str) -> None:
        """Note a complete response of a host, whatever its HTTP status: the egress works, and reaches it."""
        for key in (None, host):
            self._failures.pop(key, None)

    def state(self, now: int) -> str:
        """Return the state in words, for reports.

        >>> CircuitBreaker().state(now=0)
        'ready'
        """
        if self.bans.latest > now:
            banning = redact(self.bans.latest_host.partition("://")[2])
            banned = f"banned until {format_utc(self.bans.latest // 1000 * 1000)}"
            return f"{banned} by {banning}" if banning else banned
        opened = {host: each.open_until for host, each in self._failures.items() if not each.closed}
        if not opened:
            return "ready"
        # What concerns all hosts comes first, then the longest pause.
        host = max(opened, key=lambda host: (host is None, opened[host]))
        left = opened[host] - now
        state = f"circuit open {-(-left // 1000)} s" if left > 0 else "circuit half-open"
        return state if host is None else f"{state} for {redact(host.partition('://')[2])}"

    def _concerning(self, host: str) -> list[_Failures]:
        return [self._failures[key] for key in (None, host) if key in self._failures]
