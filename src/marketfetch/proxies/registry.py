"""Budgets of the whole process: whatever leaves from the same address spends from the same budget.

Pools, pipelines, `fetch` calls, threads and event loops of a process share one registry. A forked child has
one of its own: it neither spends for its parent nor holds a lock that its parent held.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from threading import Lock
from weakref import WeakSet, WeakValueDictionary

import anyio
import attrs

from marketfetch.arithmetic.budget import Budget
from marketfetch.arithmetic.clock import ServerClock
from marketfetch.arithmetic.health import Bans
from marketfetch.arithmetic.roster import Roster
from marketfetch.values.http import Egress, LimitPool
from marketfetch.values.times import Clock, steady_clock

__all__ = ["Limits", "Registry", "Waiter", "address_of", "process_registry", "separate_registry"]


def address_of(egress: Egress) -> str:
    """Name the address that an egress leaves from, so that nothing of it can be read.

    It is the same for the same host, port and user, however the proxy is spoken to: behind them is one exit.

    >>> from marketfetch.values.redaction import Secret
    >>> one, other = (Egress("", Secret(f"{way}://ann:hunter2@10.0.0.1:1080")) for way in ("http", "socks5h"))
    >>> address_of(one) == address_of(other), address_of(Egress("Direct"))
    (True, 'direct')
    """
    if egress.proxy is None:
        return "direct"
    parts = egress.proxy.split()
    return sha256(f"{parts.hostname} {parts.port} {parts.username or ''}".encode()).hexdigest()


@attrs.define(eq=False)
class Limits:
    """One published limit of one exchange: a clock, and a budget for every address that is in use.

    `rosters` are those of the pools that use it; what none of them uses and has nothing spent is forgotten.
    """

    pool: LimitPool
    host: str
    clock: ServerClock = attrs.field(factory=ServerClock, init=False)
    rosters: WeakSet[Roster] = attrs.field(factory=WeakSet, init=False)
    _budgets: dict[str, Budget] = attrs.field(factory=dict, init=False)

    def budget(self, address: str) -> Budget:
        """Return the budget of an address, the same for everybody."""
        found = self._budgets.get(address)
        if found is None:
            found = self._budgets[address] = Budget(self.pool, self.clock)
        return found

    def forget_idle(self, now: int) -> None:
        """Drop the budgets that have nothing to remember and are in no roster."""
        used = {id(seat.budget) for roster in self.rosters for seat in roster.seats}
        self._budgets = {
            address: budget
            for address, budget in self._budgets.items()
            if id(budget) in used or not budget.idle(now)
        }

    @property
    def in_use(self) -> bool:
        """Whether anything of it is in use or has to be remembered."""
        return bool(self._budgets)


@attrs.define(eq=False)
class Waiter:
    """A task that waits until something about one of its addresses changes, on whatever loop it runs."""

    addresses: Collection[str]
    _loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop, init=False)
    _changed: anyio.Event = attrs.field(factory=anyio.Event, init=False)

    async def wait(self, milliseconds: int) -> None:
        """Sleep until the time is up or `wake` is called, whichever is first."""
        with anyio.move_on_after(milliseconds / 1000):
            await self._changed.wait()

    def wake(self) -> None:
        """End the wait; may be called from any thread."""
        with suppress(RuntimeError):  # its loop is closed by now: nobody waits there any more
            self._loop.call_soon_threadsafe(self._changed.set)


class Registry:
    """Limits and bans of every address, for all pools that are made with this registry.

    By default a pool uses that of the process. One of its own keeps a pool apart: it knows nothing of what
    others spend, which is right for a test and wrong for a real exchange. `now` tells UTC milliseconds.

    >>> registry = Registry()
    >>> calls = LimitPool("calls", capacity=10, period=60_000)
    >>> registry.limits(calls, "https://e.org") is registry.limits(calls, "https://e.org")
    True
    """

    def __init__(self, now: Clock | None = None) -> None:
        self.now = now or steady_clock()
        self.owner = os.getpid()
        self.lock = Lock()
        """Guards everything below and everything reached from it: budgets, clocks, bans, health, rosters.

        It is held for microseconds, never while anything is waited for.
        """
        self.waiters: set[Waiter] = set()
        self._limits: dict[tuple[LimitPool, str], Limits] = {}
        self._bans: WeakValueDictionary[str, Bans] = WeakValueDictionary()
        self._banned: dict[str, Bans] = {}

    def limits(self, pool: LimitPool, host: str) -> Limits:
        """Return the limits of a host in a limit pool; to be called with the lock held."""
        found = self._limits.get((pool, host))
        if found is None:
            self._forget_idle()
            found = self._limits[pool, host] = Limits(pool, host)
        return found

    def bans(self, address: str) -> Bans:
        """Return the bans of an address, the same for everybody; to be called with the lock held."""
        found = self._bans.get(address)
        if found is None:
            found = self._bans[address] = Bans()
        return found

    def changed(self, address: str) -> None:
        """Wake whoever waits for an address, and remember its bans; to be called with the lock held."""
        bans = self._bans.get(address)
        if bans:
            self._banned[address] = bans
        for waiter in self.waiters:
            if address in waiter.addresses:
                waiter.wake()

    def heir(self) -> Registry:
        """Return this registry, or in a forked child a new one in its place."""
        return self if self.owner == os.getpid() else type(self)(self.now)

    def _forget_idle(self) -> None:
        now = self.now()
        for limits in self._limits.values():
            limits.forget_idle(now)
        self._limits = {key: limits for key, limits in self._limits.items() if limits.in_use}
        self._banned = {address: bans for address, bans in self._banned.items() if bans.latest > now}


class _Process:
    """The registry of the process that runs: it belongs to the whole of it, as the addresses do."""

    def __init__(self) -> None:
        self.registry = Registry()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Begin anew, knowing nothing."""
        self.registry = Registry()


_process = _Process()


def process_registry() -> Registry:
    """Return the registry of this process."""
    return _process.registry


@contextmanager
def separate_registry() -> Iterator[Registry]:
    """Give the process another registry for as long as the block lasts, as if nothing had been spent yet.

    It is for tests, whose simulated exchanges know nothing of each other but may have the same port.
    """
    before = _process.registry
    _process.renew()
    try:
        yield _process.registry
    finally:
        _process.registry = before
