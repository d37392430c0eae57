"""Whether an egress is fit for use: rests that grow, a probe after each, quarantine. Times in UTC ms."""

from __future__ import annotations

import attrs

from marketfetch.errors import Banned, LocalResourceError, ProxyError, RequestTimeout, TransportError
from marketfetch.ratelimit.budget import UNKNOWN_UNTIL_RESPONSE
from marketfetch.redaction import redact
from marketfetch.values.spans import format_utc

__all__ = ["Bans", "CircuitBreaker"]

_FAILURES_TO_OPEN = 2  # strikes after which an egress rests
_FAILURES_TO_EXHAUST = 8
_FIRST_REST, _LONGEST_REST = 1_000, 60_000
_FIRST_BAN, _LONGEST_BAN = 120_000, 3 * 86_400_000


@attrs.define(eq=False)
class Bans:
    """Which exchanges have shut an address out, and until when.

    >>> bans = Bans()
    >>> bans.add(Banned("418: banned", until=90_000), host="https://e.org", now=5)
    >>> bans.until("https://e.org"), bans.until("https://other.org"), bans.latest
    (90000, 0, 90000)
    """

    _by_host: dict[str, tuple[int, int, str]] = attrs.field(factory=dict, init=False)

    def __bool__(self) -> bool:
        return bool(self._by_host)

    def add(self, error: Banned, host: str, now: int) -> None:
        """Note a ban: until the moment the exchange named, else for a time that grows."""
        until, times, _ = self._by_host.get(host, (0, 0, ""))
        if now >= until:  # else it was sent before: the same ban, counted already
            times += 1
        default = now + min(_LONGEST_BAN, _FIRST_BAN << times - 1)
        self._by_host[host] = max(until, error.until or default), times, redact(str(error))

    def until(self, host: str) -> int:
        """Return when the ban by a host ends or has ended; 0 where there was none."""
        return self._by_host[host][0] if host in self._by_host else 0

    @property
    def latest(self) -> int:
        """When the last of the bans ends or has ended."""
        return max((until for until, _, _ in self._by_host.values()), default=0)

    @property
    def causes(self) -> list[str]:
        """What the exchanges said."""
        return [cause for _, _, cause in self._by_host.values()]


@attrs.define
class CircuitBreaker:
    """What is known of one egress.

    A ProxyError is two strikes; a TransportError or RequestTimeout, which may be the exchange's fault, is
    one. From two strikes on the egress rests, longer with each pair, and then has to prove itself with a
    single request. Any complete answer clears all strikes. Bans belong to the address: whatever else leaves
    from it in this process has the same ones.

    >>> breaker = CircuitBreaker()
    >>> breaker.failed(ProxyError("connection refused"), sent=0, now=5, jitter=1.0)
    >>> breaker.ready_at("https://e.org", now=5), breaker.state(now=5)
    (1005, 'resting 1 s')
    """

    bans: Bans = attrs.field(factory=Bans)
    in_flight: int = attrs.field(default=0, init=False)
    _cause: str = attrs.field(default="", init=False)
    _failures: int = attrs.field(default=0, init=False)
    _opened_at: int = attrs.field(default=0, init=False)
    _open_until: int = attrs.field(default=0, init=False)

    @property
    def causes(self) -> list[str]:
        """Why it failed or is banned, as far as that is known."""
        return [cause for cause in (self._cause, *self.bans.causes) if cause]

    @property
    def exhausted(self) -> bool:
        """Whether it failed so often in a row that waiting for it is no use."""
        return self._failures >= _FAILURES_TO_EXHAUST

    def ready_at(self, host: str, now: int) -> int:
        """Return when the egress may be used for a host: `now`, a later moment, or UNKNOWN_UNTIL_RESPONSE.

        It is unknown while the breaker is half-open and its one probe is in flight.
        """
        if self._failures < _FAILURES_TO_OPEN and not self.bans:
            return now
        if self._failures >= _FAILURES_TO_OPEN and self.in_flight:
            return UNKNOWN_UNTIL_RESPONSE
        return max(now, self._open_until, self.bans.until(host))

    def failed(self, error: Exception, sent: int, now: int, jitter: float) -> None:
        """Note a failure of a request; `jitter` in [0, 1] takes up to half of a rest away.

        Errors that say nothing about the egress, such as BadSymbol, RestrictedLocation or what this machine
        itself has run out of, change nothing.
        """
        if not isinstance(error, ProxyError | TransportError | RequestTimeout):
            return
        if isinstance(error, LocalResourceError):
            return
        if sent < self._opened_at:
            return  # sent before the rest began: the same trouble, counted already
        self._cause = redact(str(error))
        self._failures += 2 if isinstance(error, ProxyError) else 1
        if self._failures >= _FAILURES_TO_OPEN:
            rest = min(_LONGEST_REST, _FIRST_REST << self._failures // 2 - 1)
            self._opened_at = now
            self._open_until = now + round(rest * (0.5 + 0.5 * jitter))

    def succeeded(self) -> None:
        """Note a complete answer, whatever its status: the egress works."""
        self._failures = self._open_until = self._opened_at = 0

    def banned(self, error: Banned, host: str, now: int) -> None:
        """Quarantine the address for a host; see Bans."""
        self.bans.add(error, host, now)

    def state(self, now: int) -> str:
        """Say in words how it is.

        >>> CircuitBreaker().state(now=0)
        'ready'
        """
        if self.bans.latest > now:
            return f"banned until {format_utc(self.bans.latest // 1000 * 1000)}"
        if self._open_until > now:
            return f"resting {-((now - self._open_until) // 1000)} s"
        return "on probation" if self._failures >= _FAILURES_TO_OPEN else "ready"
