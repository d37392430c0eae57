"""The built-in proxy pool: a rate limiter and a circuit breaker for each address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import anyio
from anyio import to_thread

from marketfetch.common.type_checks import is_number
from marketfetch.errors import ConfigurationError, ProxyError
from marketfetch.protocols import Sharing
from marketfetch.proxies.address_claims import Claims, LimitQueue
from marketfetch.proxies.address_limits import Waiter, address_of
from marketfetch.proxies.leases import EgressState, RotatingLease
from marketfetch.proxies.parsing import parse_proxy, read_proxies
from marketfetch.proxies.registry import Registry, process_registry
from marketfetch.ratelimit.budget import UNKNOWN_UNTIL_RESPONSE, RateBudget
from marketfetch.ratelimit.circuit_breaker import CircuitBreaker
from marketfetch.ratelimit.egress_queue import EgressQueue, EgressSlot
from marketfetch.ratelimit.server_clock import ServerClock
from marketfetch.ratelimit.wait_reasons import Wait
from marketfetch.redaction import Secret, redact
from marketfetch.reports import EgressReport
from marketfetch.sharing import ProcessRank
from marketfetch.values.http import Egress, LimitPool, Request
from marketfetch.values.spans import format_utc

__all__ = ["RotatingProxies"]

_RELEASE_TIMEOUT = 2.0
"""Seconds at the end of a session in which claims are given back."""
_STATES = ("ready", "circuit half-open", "circuit open", "banned")
"""The beginnings of the states that a circuit breaker has."""


class RotatingProxies:
    """A ProxyPool over any number of proxies and, with `direct`, the direct connection.

    - Rate limiter: each egress has a budget for each limit pool, counted as the exchange counts it. A request
      is served by the egress that is least busy and least used among the egresses within their budget.
    - Circuit breaker: an egress that fails is paused, and a banned egress waits until the ban ends. A host
      that cuts connections or bans the address delays no request to another host.
    - Connection reuse: an egress whose connection is still open is preferred.

    Budgets and bans belong to the address, in the whole process: two pools with the same proxy, or with the
    direct connection, spend from one budget, on any thread and event loop.

    `proxies` are addresses in the forms of `parse_proxy`; duplicates are dropped. `names` are shown instead
    of "Proxy 1", "Proxy 2", … `max_wait` is the maximum number of seconds that `lease` waits for an egress
    that is paused or banned. A separate `registry`, or a clock `now` that returns UTC milliseconds, keeps a
    pool apart from all other pools; this is for tests.

    Raises ConfigurationError for a malformed address and for a pool without any egress.

    >>> pool = RotatingProxies(["http://anna:hunter2@10.0.0.1:3128", "10.0.0.2:3128"])
    >>> pool
    <RotatingProxies: 3 egresses, 3 ready>
    >>> pool.statistics()[0]
    EgressReport(name='Proxy 1', requests=0, weight=0, rows=0, failures=0, state='ready')
    """

    def __init__(  # noqa: PLR0913  # independent options
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
                f"proxies: {type(proxies).__name__} is not a list of addresses; write [...]"
            )
        # Replaces the plain texts: debuggers show the local variables of an error.
        proxies = [Secret.of(text) for text in proxies]
        numbered = enumerate(proxies, start=1)
        secrets = list(dict.fromkeys(parse_proxy(text, f"entry {number}") for number, text in numbered))
        if names is None:
            names = [f"Proxy {number}" for number in range(1, len(secrets) + 1)]
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise ConfigurationError(f"names: {type(names).__name__} is not a list; write ['one', 'another']")
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
        self._egresses = [
            EgressState(number, egress, address_of(egress)) for number, egress in enumerate(egresses)
        ]
        self._addresses = frozenset(state.address for state in self._egresses)
        self._max_wait = max_wait
        self._own = registry if now is None else Registry(now)
        self._sessions: list[Sharing] = []
        registry = self._own or process_registry()
        with registry.lock:
            self._bind(registry)

    @classmethod
    def from_file(cls, path: str | Path, *, direct: bool = True, max_wait: float = 3600.0) -> RotatingProxies:
        """Make a pool of the addresses in a file, one per line; blank lines and `# comments` are skipped.

        Raises ConfigurationError if the file cannot be read, or with its number if a line is malformed.
        """
        if not isinstance(path, str | Path):
            raise ConfigurationError(
                f"path: {type(path).__name__} is not a path; write text such as 'proxies.txt'"
            )
        addresses = [parse_proxy(text, label) for text, label in read_proxies(Path(path))]
        return cls(addresses, direct=direct, max_wait=max_wait)

    @asynccontextmanager
    async def lease(self, request: Request) -> AsyncGenerator[RotatingLease]:
        """Wait for the egress that serves this request; first come, first served within a limit pool.

        A block that is left without `answered` or `failed` counts the request as sent. Raises ProxyError if
        every egress has failed again and again, or if none is free within `max_wait`; ConfigurationError if
        the cost is above the capacity of its limit pool.
        """
        registry = self._shared()
        with registry.lock:
            lock = self._lock_of(request)
        async with lock:
            slot = await self._slot(registry, request)
        lease = RotatingLease(request, self._egresses[slot.number], slot, registry, self._changed)
        try:
            yield lease
        finally:
            lease.close()

    @asynccontextmanager
    async def session(self, sharing: Sharing) -> AsyncGenerator[None]:
        """Share budgets with other processes until the block is left; see SupportsSession.

        A pool with a separate registry uses the boards of that registry, and `sharing` is ignored.
        """
        self._sessions.append(sharing)
        self._choose_boards()
        try:
            yield
        finally:
            self._sessions.remove(sharing)
            unused = self._choose_boards()
            # Other processes then need not wait until the claims end. A board that is away is not waited for.
            with anyio.move_on_after(_RELEASE_TIMEOUT, shield=True):
                async with anyio.create_task_group() as group:
                    for claims in unused:
                        group.start_soon(partial(to_thread.run_sync, claims.leave, abandon_on_cancel=True))

    def share(self) -> float:
        with self._shared().lock:
            shares = [claims.share for entry in self._limit_queues.values() for claims in entry.claims]
        return min([float(len(self._egresses)), *(share for share in shares if share)])

    def process_rank(self) -> ProcessRank:
        with self._shared().lock:
            ranks = [claims.process_rank for entry in self._limit_queues.values() for claims in entry.claims]
        return max(ranks, key=lambda rank: rank.others, default=ProcessRank())

    def server_clock(self, base_url: str) -> ServerClock:
        registry = self._shared()
        with registry.lock:
            return registry.server_clock(base_url)

    def statistics(self) -> Sequence[EgressReport]:
        registry = self._shared()
        with registry.lock:
            now = registry.now()
            return [state.report(now, self._waiting_for(state, now)) for state in self._egresses]

    def budgets(self, pool: LimitPool, host: str) -> Mapping[str, RateBudget]:
        registry = self._shared()
        with registry.lock:
            now, limits = registry.now(), registry.limits(pool, host)
            return {state.egress.name: limits.budget(state.address).copy(now) for state in self._egresses}

    def waiting(self) -> str:
        registry = self._shared()
        with registry.lock:
            now = registry.now()
            waits = [wait for wait in self._waits.values() if wait.is_long(now)]
            if not waits:
                return ""
            first = min(waits, key=lambda wait: wait.since)
            return first.reason(now, self._board_away().removeprefix("board: "))

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

    def _waiting_for(self, state: EgressState, now: int) -> str:
        """Return what requests wait for at one egress; empty if no request waits."""
        waits = [wait for wait in self._waits.values() if wait.is_long(now)]
        away = bool(self._board_away())
        states = [wait.state(wait.queue.slots[state.number], now, away=away) for wait in waits]
        return next(filter(None, states), "")

    def _board_away(self) -> str:
        """Return why a board cannot be reached; empty if each of them can."""
        claims = (each for entry in self._limit_queues.values() for each in entry.claims)
        return next((each.away for each in claims if each.away), "")

    def __repr__(self) -> str:
        if not hasattr(self, "_registry"):  # a debugger shows the pool whose construction has failed
            return f"<{type(self).__name__}>"
        # Without the lock: a debugger may have stopped a thread that holds it.
        now = self._registry.now()
        states = [state.breaker.state(now) for state in self._egresses]
        counts = [
            f", {count} {kind}" for kind in _STATES if (count := sum(s.startswith(kind) for s in states))
        ]
        egresses = "1 egress" if len(states) == 1 else f"{len(states)} egresses"
        return f"<{type(self).__name__}: {egresses}{''.join(counts)}>"

    def _shared(self) -> Registry:
        """Return the registry to use; a forked child gets a new one."""
        if self._own is not None:
            self._own = self._own.in_this_process()
        registry = self._own or process_registry()
        if registry is not self._registry:
            with registry.lock:
                if registry is not self._registry:  # no other thread has done it meanwhile
                    self._bind(registry)
        return registry

    def _bind(self, registry: Registry) -> None:
        """Begin with the budgets of a registry. The caller holds the lock."""
        self._registry = registry
        self._limit_queues: dict[tuple[LimitPool, str], LimitQueue] = {}
        self._waits: dict[object, Wait] = {}
        self._watchers: set[Waiter] = set()
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[LimitPool, str], anyio.Lock]] = (
            WeakKeyDictionary()
        )
        for state in self._egresses:
            state.breaker = CircuitBreaker(registry.bans(state.address))

    def _sharing(self, registry: Registry) -> Sharing:
        """Return the boards of the process or of the sessions; with several boards all have to grant."""
        if self._own is not None or not self._sessions:
            return registry.sharing
        boards = dict.fromkeys(board for sharing in self._sessions for board in sharing.boards)
        return Sharing(tuple(boards), any(sharing.required for sharing in self._sessions))

    def _choose_boards(self) -> Sequence[Claims]:
        """Switch to the boards of the present sessions; return the claims that are no longer needed."""
        registry = self._shared()
        with registry.lock:
            before, self._limit_queues = self._limit_queues, {}
            sharing = self._sharing(registry)
            for key, entry in before.items():
                if self._sessions and tuple(claims.board for claims in entry.claims) == sharing.boards:
                    self._limit_queues[key] = entry
                    continue
                for claims in entry.claims:
                    claims.queues.pop(entry.queue, None)
                if self._sessions:  # made now, so that claims which running requests need are not given back
                    self._limit_queue(registry, *key)
            needed = {claims for entry in self._limit_queues.values() for claims in entry.claims}
            replaced = [claims for entry in before.values() for claims in reversed(entry.claims)]
        return [claims for claims in dict.fromkeys(replaced) if claims not in needed]

    def _limit_queue(self, registry: Registry, pool: LimitPool, host: str) -> LimitQueue:
        entry = self._limit_queues.get((pool, host))
        if entry is None:
            limits, sharing = registry.limits(pool, host), self._sharing(registry)
            claims = tuple(registry.claims(limits, board) for board in sharing.boards)
            slots = [
                EgressSlot(
                    state.number,
                    state.breaker,
                    limits.budget(state.address),
                    state.address,
                    tuple(each.claim(state.address) for each in claims),
                )
                for state in self._egresses
            ]
            entry = self._limit_queues[pool, host] = LimitQueue(limits, EgressQueue(pool, slots), claims)
            limits.queues.add(entry.queue)
            for number, each in enumerate(claims):
                each.join(entry.queue, number, required=sharing.required)
        return entry

    def _lock_of(self, request: Request) -> anyio.Lock:
        """Return the lock for which the tasks of this event loop queue."""
        locks = self._locks.setdefault(asyncio.get_running_loop(), {})
        return locks.setdefault((request.cost.pool, request.base_url), anyio.Lock(fast_acquire=True))

    async def _slot(self, registry: Registry, request: Request) -> EgressSlot:
        """Wait until an egress serves; only the first task of each event loop's queue is in here.

        1. Invariant: taking a slot is one step under the lock, because another thread may spend the budget
           between the check and the spending.
        2. Invariant: registering a waiter is in the same step, because a change between the check and the
           wait would not wake the task.
        3. The lock is released while the task waits.
        """
        weight, host, key = request.cost.weight, request.base_url, object()
        try:
            while True:
                with registry.lock:
                    entry, now = self._limit_queue(registry, request.cost.pool, host), registry.now()
                    entry.renew(now)
                    slot = entry.queue.acquire(weight, host, now)
                    if slot is not None:
                        # The other queues of this pool order the egress by its requests in flight, too.
                        for other in self._limit_queues.values():
                            if other is not entry:
                                other.queue.queue(slot.number)
                        return slot
                    now = registry.now()
                    moment = entry.queue.soonest(weight, host, now)
                    if moment <= now:
                        continue
                    self._give_up(request, moment, now)
                    moment = min(moment, entry.hasten_turn(weight, now))
                    waiter = Waiter(self._addresses)
                    registry.waiters.add(waiter)
                    self._wait_begins(key, Wait(entry.queue, weight, host, now))
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
        """Note that the first task of a queue waits; `waiting_changed` returns once, if the wait is long."""
        first = self._waits.setdefault(key, wait)
        if not first.reported and first.is_long(wait.since):
            first.reported = True
            self._wake_watchers()

    def _wait_ends(self, key: object) -> None:
        if self._waits.pop(key).reported:
            self._wake_watchers()

    def _wake_watchers(self) -> None:
        for watcher in self._watchers:
            watcher.wake()

    def _changed(self, state: EgressState) -> None:
        for entry in self._limit_queues.values():
            entry.queue.queue(state.number)
            # Other pools spend from the same budget, which may have room for them again.
            for queue in entry.limits.queues:
                if queue is not entry.queue:
                    queue.queue_address(state.address)
        self._registry.changed(state.address)

    def _give_up(self, request: Request, moment: int, now: int) -> None:
        """Raise ProxyError if no egress is left for the host, or none is free within `max_wait`."""
        host, breakers = request.base_url, [state.breaker for state in self._egresses]
        causes = "; ".join([*dict.fromkeys(cause for each in breakers for cause in each.causes(host))][:3])
        if all(breaker.exhausted(host) for breaker in breakers):
            has_proxies = any(state.egress.proxy for state in self._egresses)
            remedy = "that the proxies are up, paid and reachable" if has_proxies else "the network"
            raise ProxyError(
                f"no egress left for {redact(host)}: each of the {len(breakers)} failed again and again; "
                f"check {remedy}. Last causes: {causes}"
            )
        longest = max(min(self._max_wait, request.max_wait) * 1000, request.cost.pool.period)
        if moment != UNKNOWN_UNTIL_RESPONSE and moment - now > longest:
            raise ProxyError(f"no egress is free before {format_utc(moment)}; last causes: {causes}")
