"""The built-in proxy pool: every address stays within its published limits, whatever the proxies do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import anyio
import attrs
from anyio import to_thread

from marketfetch.common.type_checks import is_number
from marketfetch.errors import ConfigurationError, ProxyError
from marketfetch.protocols import Sharing
from marketfetch.proxies.address_claims import Claims
from marketfetch.proxies.address_limits import Limits, Waiter, address_of
from marketfetch.proxies.leases import EgressState, RotatingLease
from marketfetch.proxies.parsing import parse_proxy, read_proxies
from marketfetch.proxies.registry import Registry, process_registry
from marketfetch.ratelimit.budget import UNKNOWN_UNTIL_RESPONSE
from marketfetch.ratelimit.circuit_breaker import CircuitBreaker
from marketfetch.ratelimit.egress_queue import EgressQueue, EgressSlot
from marketfetch.ratelimit.wait_reasons import Wait
from marketfetch.redaction import Secret
from marketfetch.reports import EgressReport
from marketfetch.values.http import Egress, LimitPool, Request
from marketfetch.values.spans import format_utc

__all__ = ["Direct", "RotatingProxies"]

_RELEASE_TIMEOUT = 2.0
"""Seconds at the end of a session in which claims are given back."""
_STATES = ("ready", "on probation", "resting", "banned")
"""The beginnings of the states that a circuit breaker has."""


@attrs.frozen(eq=False)
class _LimitQueue:
    """What serves the requests of one limit pool: the egresses, and the claims on them, board by board."""

    limits: Limits
    queue: EgressQueue
    claims: tuple[Claims, ...]

    def renew(self, now: int) -> None:
        """Begin the turns that are due; raises what a board that is required has failed with."""
        for claims in self.claims:
            claims.start_if_due(now)

    def hurry(self, weight: int, now: int) -> int:
        """Have turns soon, since a request waits; return when to look again."""
        return min((claims.hurry(weight, now) for claims in self.claims), default=UNKNOWN_UNTIL_RESPONSE)


class RotatingProxies:
    """A ProxyPool over any number of proxies and, with `direct`, the direct connection.

    Each egress has a budget per limit pool, counted as the exchange counts it. Of those within budget the
    least busy and least used one serves; one that fails rests, and one that is banned waits for its time.
    Budgets and bans belong to the address, in the whole process: another pool with the same proxy, or with
    the direct connection, spends from the same budget, on whatever thread and event loop it is used.

    `proxies` are addresses in the forms that `parse_proxy` knows; duplicates are dropped. `names` are shown
    instead of "Proxy 1", "Proxy 2", … `max_wait` is how many seconds `lease` waits at most for an egress
    that is resting or banned. A `registry` of its own, or a clock `now` that tells UTC milliseconds, keeps a
    pool apart from all others: that is for tests.

    Raises ConfigurationError for a malformed address and for a pool without any egress.

    >>> pool = RotatingProxies(["http://anna:hunter2@10.0.0.1:3128", "10.0.0.2:3128"])
    >>> pool
    <RotatingProxies: 3 egresses, 3 ready>
    >>> pool.statistics()[0]
    EgressReport(name='Proxy 1', requests=0, weight=0, rows=0, failures=0, state='ready')
    """

    def __init__(  # noqa: PLR0913  # what each does is independent of the others
        self,
        proxies: Iterable[str | Secret],
        *,
        direct: bool = True,
        names: Sequence[str] | None = None,
        max_wait: float = 3600.0,
        now: Callable[[], int] | None = None,
        registry: Registry | None = None,
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
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise ConfigurationError(f"names: {type(names).__name__} is no list; write ['one', 'another']")
        if len(names) != len(secrets):
            raise ConfigurationError(f"names: there are {len(names)} for {len(secrets)} different proxies")
        egresses = [Egress(name, secret) for name, secret in zip(names, secrets, strict=True)]
        if direct:
            egresses.append(Egress("Direct"))
        if not egresses:
            raise ConfigurationError("proxies: there are none; name at least one, or allow direct=True")
        if not is_number(max_wait) or max_wait < 0:
            raise ConfigurationError("max_wait: must be a number of seconds; write one such as 3600")
        if now is not None and registry is not None:
            raise ConfigurationError("now: a registry has a clock already; write registry=Registry(now)")
        self._members = [
            EgressState(number, egress, address_of(egress)) for number, egress in enumerate(egresses)
        ]
        self._addresses = frozenset(member.address for member in self._members)
        self._max_wait = max_wait
        self._own = registry if now is None else Registry(now)
        self._sessions: list[Sharing] = []
        self._bind(self._own or process_registry())

    @classmethod
    def from_file(cls, path: str | Path, *, direct: bool = True, max_wait: float = 3600.0) -> RotatingProxies:
        """Make a pool of the addresses in a file, one per line; blank lines and `# comments` are skipped.

        Raises ConfigurationError if the file cannot be read or a line is malformed, naming the line.
        """
        if not isinstance(path, str | Path):
            raise ConfigurationError(f"path: {type(path).__name__} is none; write text such as 'proxies.txt'")
        addresses = [parse_proxy(text, place) for text, place in read_proxies(Path(path))]
        return cls(addresses, direct=direct, max_wait=max_wait)

    @asynccontextmanager
    async def lease(self, request: Request) -> AsyncGenerator[RotatingLease]:
        """Wait for the egress that serves this request; first come, first served within a limit pool.

        Leaving the block without `answered` or `failed` counts the request as sent. Raises ProxyError when
        every egress has failed again and again, or when none is free within `max_wait`; ConfigurationError
        when the cost is above the capacity of its limit pool.
        """
        registry = self._shared()
        with registry.lock:
            queue = self._queue(request)
        async with queue:
            slot = await self._slot(registry, request)
        lease = RotatingLease(request, self._members[slot.number], slot, registry, self._changed)
        try:
            yield lease
        finally:
            lease.close()

    @asynccontextmanager
    async def session(self, sharing: Sharing) -> AsyncGenerator[None]:
        """Share budgets with other processes until the block is left; see SupportsSession.

        A pool with a registry of its own has that one's boards, whatever is said here.
        """
        self._sessions.append(sharing)
        self._choose_boards()
        try:
            yield
        finally:
            self._sessions.remove(sharing)
            parted = self._choose_boards()
            # So who comes next need not wait until the claims end. A board that is away is not waited for.
            with anyio.move_on_after(_RELEASE_TIMEOUT, shield=True):
                async with anyio.create_task_group() as group:
                    for claims in parted:
                        group.start_soon(partial(to_thread.run_sync, claims.leave, abandon_on_cancel=True))

    def share(self) -> float:
        registry = self._shared()
        with registry.lock:
            known = [claims.share for line in self._lines.values() for claims in line.claims]
        return min([float(len(self._members)), *(share for share in known if share)])

    def statistics(self) -> Sequence[EgressReport]:
        registry = self._shared()
        with registry.lock:
            now = registry.now()
            return [member.report(now, self._waiting_for(member, now)) for member in self._members]

    def waiting(self) -> str:
        registry = self._shared()
        with registry.lock:
            now = registry.now()
            told = [wait for wait in self._waits.values() if wait.is_long(now)]
            if not told:
                return ""
            away = [claims.away for line in self._lines.values() for claims in line.claims if claims.away]
            first = min(told, key=lambda wait: wait.since)
            return first.reason(now, away[0].removeprefix("board: ") if away else "")

    async def waiting_changed(self) -> None:
        registry = self._shared()
        watcher = Waiter(frozenset())
        with registry.lock:
            self._watchers.add(watcher)
        try:
            await watcher.wait(UNKNOWN_UNTIL_RESPONSE)
        finally:
            with registry.lock:
                self._watchers.discard(watcher)

    def _waiting_for(self, member: EgressState, now: int) -> str:
        """Say what requests wait for at one egress; nothing if they do not."""
        waits = [wait for wait in self._waits.values() if wait.is_long(now)]
        states = [wait.state(wait.queue.slots[member.number], now) for wait in waits]
        return next(filter(None, states), "")

    def __repr__(self) -> str:
        if not hasattr(self, "_registry"):  # a debugger shows the pool whose construction has failed
            return f"<{type(self).__name__}>"
        # Without the lock: a debugger may have stopped a thread that holds it.
        now = self._registry.now()
        states = [member.breaker.state(now) for member in self._members]
        counts = [f", {count} {kind}" for kind in _STATES if (count := _count(states, kind))]
        egresses = "1 egress" if len(states) == 1 else f"{len(states)} egresses"
        return f"<{type(self).__name__}: {egresses}{''.join(counts)}>"

    def _shared(self) -> Registry:
        """Return the registry to use; in a forked child it is another one than in the parent."""
        if self._own is not None:
            self._own = self._own.heir()
        registry = self._own or process_registry()
        if registry is not self._registry:
            self._bind(registry)
        return registry

    def _bind(self, registry: Registry) -> None:
        self._registry = registry
        self._lines: dict[tuple[LimitPool, str], _LimitQueue] = {}
        self._waits: dict[object, Wait] = {}
        self._watchers: set[Waiter] = set()
        self._queues: WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[tuple[LimitPool, str], anyio.Lock]
        ] = WeakKeyDictionary()
        with registry.lock:
            for member in self._members:
                member.breaker = CircuitBreaker(registry.bans(member.address))

    def _sharing(self, registry: Registry) -> Sharing:
        """Return the boards of the process or of the sessions: those of several all have to agree."""
        if self._own is not None or not self._sessions:
            return registry.sharing
        boards = dict.fromkeys(board for sharing in self._sessions for board in sharing.boards)
        return Sharing(tuple(boards), any(sharing.required for sharing in self._sessions))

    def _choose_boards(self) -> Sequence[Claims]:
        """Ask the boards that are right by now; return the claims that are not needed here any more."""
        registry = self._shared()
        with registry.lock:
            before, self._lines = self._lines, {}
            sharing = self._sharing(registry)
            for key, line in before.items():
                if self._sessions and tuple(claims.board for claims in line.claims) == sharing.boards:
                    self._lines[key] = line
                    continue
                for claims in line.claims:
                    claims.queues.pop(line.queue, None)
                if self._sessions:  # requests are under way: what they need is not given back meanwhile
                    self._limit_queue(registry, *key)
            needed = {claims for line in self._lines.values() for claims in line.claims}
            parted = [claims for line in before.values() for claims in reversed(line.claims)]
        return [claims for claims in parted if claims not in needed]

    def _limit_queue(self, registry: Registry, pool: LimitPool, host: str) -> _LimitQueue:
        line = self._lines.get((pool, host))
        if line is None:
            limits, sharing = registry.limits(pool, host), self._sharing(registry)
            claims = tuple(registry.claims(limits, board) for board in sharing.boards)
            slots = [
                EgressSlot(
                    member.number,
                    member.breaker,
                    limits.budget(member.address),
                    member.address,
                    tuple(each.claim(member.address) for each in claims),
                )
                for member in self._members
            ]
            line = self._lines[pool, host] = _LimitQueue(limits, EgressQueue(pool, slots), claims)
            limits.queues.add(line.queue)
            for number, each in enumerate(claims):
                each.join(line.queue, number, required=sharing.required)
        return line

    def _queue(self, request: Request) -> anyio.Lock:
        """Return what the tasks of this event loop stand in line for."""
        queues = self._queues.setdefault(asyncio.get_running_loop(), {})
        key = request.cost.pool, request.base_url
        queue = queues.get(key)
        if queue is None:
            queue = queues[key] = anyio.Lock(fast_acquire=True)
        return queue

    async def _slot(self, registry: Registry, request: Request) -> EgressSlot:
        """Wait until an egress serves; of each event loop only the head of the queue is in here."""
        weight, host, key = request.cost.weight, request.base_url, object()
        try:
            while True:
                # Between looking and spending nobody else may spend, and between looking and waiting nothing
                # may change unnoticed: both are one step for every thread.
                with registry.lock:
                    line, now = self._limit_queue(registry, request.cost.pool, host), registry.now()
                    line.renew(now)
                    slot = line.queue.acquire(weight, host, now)
                    if slot is not None:
                        return slot
                    now = registry.now()
                    moment = line.queue.soonest(weight, host, now)
                    if moment <= now:
                        continue
                    self._give_up(moment, now, line.queue.pool)
                    moment = min(moment, line.hurry(weight, now))
                    waiter = Waiter(self._addresses)
                    registry.waiters.add(waiter)
                    self._wait_begins(key, Wait(line.queue, weight, host, now))
                try:
                    await waiter.wait(moment - now)
                finally:
                    with registry.lock:
                        registry.waiters.discard(waiter)
        finally:
            if key in self._waits:
                with registry.lock:
                    self._wait_ends(key)

    def _wait_begins(self, key: object, wait: Wait) -> None:
        """Note that the head of a queue waits; whoever watches is told once, if it takes long."""
        known = self._waits.setdefault(key, wait)
        if not known.told and known.is_long(wait.since):
            known.told = True
            self._tell_watchers()

    def _wait_ends(self, key: object) -> None:
        if self._waits.pop(key).told:
            self._tell_watchers()

    def _tell_watchers(self) -> None:
        for watcher in self._watchers:
            watcher.wake()

    def _changed(self, member: EgressState) -> None:
        for line in self._lines.values():
            line.queue.queue(member.number)
            # Other pools spend from the same budget: what was full for them, too, may have room again.
            for queue in line.limits.queues:
                if queue is not line.queue:
                    queue.queue_address(member.address)
        self._registry.changed(member.address)

    def _give_up(self, moment: int, now: int, pool: LimitPool) -> None:
        """Raise ProxyError if waiting is no use."""
        healths = [member.breaker for member in self._members]
        told = dict.fromkeys(cause for breaker in healths for cause in breaker.causes)
        causes = "; ".join(list(told)[:3])
        if all(breaker.exhausted and not breaker.in_flight for breaker in healths):
            has_proxies = any(member.egress.proxy for member in self._members)
            remedy = (
                "check that the proxies are up, paid and reachable" if has_proxies else "check the network"
            )
            raise ProxyError(
                f"no egress left: each of the {len(healths)} failed again and again; {remedy}. "
                f"Last causes: {causes}"
            )
        if moment != UNKNOWN_UNTIL_RESPONSE and moment - now > max(self._max_wait * 1000, pool.period):
            raise ProxyError(f"no egress is free before {format_utc(moment)}; last causes: {causes}")


def _count(states: Iterable[str], kind: str) -> int:
    return sum(state.startswith(kind) for state in states)


class Direct(RotatingProxies):
    """A pool of one: the direct connection, within its limits.

    >>> Direct()
    <Direct: 1 egress, 1 ready>
    """

    def __init__(self, *, max_wait: float = 3600.0, now: Callable[[], int] | None = None) -> None:
        super().__init__([], max_wait=max_wait, now=now)
