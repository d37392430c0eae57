"""The built-in proxy pool: every address stays within its published limits, whatever the proxies do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from marketfetch.arithmetic.budget import NEVER
from marketfetch.arithmetic.roster import Roster, Seat
from marketfetch.errors import ConfigurationError, ProxyError
from marketfetch.proxies.leases import Member, RotatingLease
from marketfetch.proxies.parsing import parse_proxy, read_proxies
from marketfetch.values.http import Egress, LimitPool, Request
from marketfetch.values.redaction import Secret
from marketfetch.values.report import EgressReport
from marketfetch.values.spans import utc
from marketfetch.values.times import steady_clock

__all__ = ["Direct", "RotatingProxies"]


class RotatingProxies:
    """A ProxyPool over any number of proxies and, with `direct`, the direct connection.

    Each egress has a budget per limit pool, counted as the exchange counts it. Of those within budget the
    least busy and least used one serves; one that fails rests, and one that is banned waits for its time.

    `proxies` are addresses in the forms that `parse_proxy` knows; duplicates are dropped. `names` are shown
    instead of "Proxy 1", "Proxy 2", … `patience` is how many seconds `lease` waits at most for an egress
    that is resting or banned. `now` tells UTC milliseconds. A pool serves one event loop at a time.

    Raises ConfigurationError for a malformed address and for a pool without any egress.

    >>> pool = RotatingProxies(["http://anna:hunter2@10.0.0.1:3128", "10.0.0.2:3128"])
    >>> pool
    RotatingProxies(Proxy 1, Proxy 2, Direct)
    >>> pool.statistics()[0]
    EgressReport(name='Proxy 1', requests=0, weight=0, rows=0, failures=0, state='ready')
    """

    def __init__(
        self,
        proxies: Iterable[str | Secret],
        *,
        direct: bool = True,
        names: Sequence[str] | None = None,
        patience: float = 3600.0,
        now: Callable[[], int] | None = None,
    ) -> None:
        if isinstance(proxies, str | Secret):
            proxies = [proxies]
        if not isinstance(proxies, Iterable):
            raise ConfigurationError(
                f"proxies: {type(proxies).__name__} is no list of addresses; write [...]"
            )
        proxies = [Secret.of(text) for text in proxies]  # debuggers show the values of frames that raise
        numbered = enumerate(proxies, start=1)
        secrets = list(dict.fromkeys(parse_proxy(text, f"entry {number}") for number, text in numbered))
        if names is None:
            names = [f"Proxy {number}" for number in range(1, len(secrets) + 1)]
        if len(names) != len(secrets):
            raise ConfigurationError(f"names: there are {len(names)} for {len(secrets)} different proxies")
        egresses = [Egress(name, secret) for name, secret in zip(names, secrets, strict=True)]
        if direct:
            egresses.append(Egress("Direct"))
        if not egresses:
            raise ConfigurationError("proxies: there are none; name at least one, or allow direct=True")
        self._members = [Member(number, egress) for number, egress in enumerate(egresses)]
        self._rosters: dict[LimitPool, tuple[Roster, anyio.Lock]] = {}
        self._waiting: set[anyio.Event] = set()
        self._patience = patience
        self._now = now or steady_clock()

    @classmethod
    def from_file(cls, path: str | Path, *, direct: bool = True, patience: float = 3600.0) -> RotatingProxies:
        """Make a pool of the addresses in a file, one per line; blank lines and `# comments` are skipped.

        Raises ConfigurationError if the file cannot be read or a line is malformed, naming the line.
        """
        addresses = [parse_proxy(text, place) for text, place in read_proxies(Path(path))]
        return cls(addresses, direct=direct, patience=patience)

    @asynccontextmanager
    async def lease(self, request: Request) -> AsyncGenerator[RotatingLease]:
        """Wait for the egress that serves this request; first come, first served within a limit pool.

        Leaving the block without `answered` or `failed` counts the request as sent. Raises ProxyError when
        every egress has failed again and again, or when none is free within `patience`; ConfigurationError
        when the cost is above the capacity of its limit pool.
        """
        roster, queue = self._roster(request.cost.pool)
        async with queue:
            seat = await self._seat(roster, request)
        lease = RotatingLease(request, self._members[seat.number], seat, self._now, self._changed)
        try:
            yield lease
        finally:
            lease.close()

    def statistics(self) -> Sequence[EgressReport]:
        now = self._now()
        return [member.report(now) for member in self._members]

    def __repr__(self) -> str:
        shown = [member.egress.name for member in self._members[:5]]
        more = ["…"] if len(self._members) > len(shown) else []
        return f"{type(self).__name__}({', '.join(shown + more)})"

    def _roster(self, pool: LimitPool) -> tuple[Roster, anyio.Lock]:
        if pool not in self._rosters:
            roster = Roster(pool, [member.health for member in self._members])
            self._rosters[pool] = roster, anyio.Lock(fast_acquire=True)
        return self._rosters[pool]

    async def _seat(self, roster: Roster, request: Request) -> Seat:
        """Wait until an egress serves; only the head of a limit pool's queue is in here."""
        weight, host = request.cost.weight, request.base_url
        while True:
            seat = roster.take(weight, host, self._now())
            if seat is not None:
                return seat
            now = self._now()
            moment = roster.soonest(weight, host, now)
            if moment > now:
                self._give_up(moment, now, roster.pool)
                await self._wait(moment - now)

    async def _wait(self, milliseconds: int) -> None:
        """Sleep until the time is up or a lease has returned, whichever is first."""
        changed = anyio.Event()
        self._waiting.add(changed)
        try:
            with anyio.move_on_after(milliseconds / 1000):
                await changed.wait()
        finally:
            self._waiting.discard(changed)

    def _changed(self, member: Member) -> None:
        for roster, _ in self._rosters.values():
            roster.queue(member.number)
        for event in self._waiting:
            event.set()

    def _give_up(self, moment: int, now: int, pool: LimitPool) -> None:
        """Raise ProxyError if waiting is no use."""
        healths = [member.health for member in self._members]
        causes = "; ".join(list(dict.fromkeys(health.cause for health in healths if health.cause))[:3])
        if all(health.given_up and not health.in_flight for health in healths):
            has_proxies = any(member.egress.proxy for member in self._members)
            remedy = (
                "check that the proxies are up, paid and reachable" if has_proxies else "check the network"
            )
            raise ProxyError(
                f"no egress left: each of the {len(healths)} failed again and again; {remedy}. "
                f"Last causes: {causes}"
            )
        if moment != NEVER and moment - now > max(self._patience * 1000, pool.period):
            raise ProxyError(f"no egress is free before {utc(moment)}; last causes: {causes}")


class Direct(RotatingProxies):
    """A pool of one: the direct connection, within its limits.

    >>> Direct()
    Direct(Direct)
    """

    def __init__(self, *, patience: float = 3600.0, now: Callable[[], int] | None = None) -> None:
        super().__init__([], patience=patience, now=now)
