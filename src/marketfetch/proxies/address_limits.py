"""Rate-limit state of an address, shared by the whole process: budgets, clocks, bans."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from contextlib import suppress
from hashlib import sha256
from secrets import token_hex
from threading import Lock
from weakref import WeakSet, WeakValueDictionary

import anyio
import attrs

from marketfetch.common.processes import ProcessIdentity
from marketfetch.protocols import Board
from marketfetch.ratelimit.budget import RateBudget
from marketfetch.ratelimit.circuit_breaker import Bans
from marketfetch.ratelimit.egress_queue import EgressQueue
from marketfetch.ratelimit.server_clock import ServerClock
from marketfetch.values.http import Egress, LimitPool
from marketfetch.values.times import Clock, SteadyClock

__all__ = ["Limits", "Shared", "Waiter", "address_of"]


def address_of(egress: Egress) -> str:
    """Return a name of the address from which the requests of an egress leave: a hash, so it can be logged.

    Host, port and user decide it. The scheme does not: HTTP and SOCKS of one proxy leave from one address.

    >>> from marketfetch.redaction import Secret
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
    """One published limit: the clock of its host, and a budget for each address in use.

    `queues` are the egress queues of the pools that use it. A budget that is in no queue and has nothing
    spent is dropped.
    """

    pool: LimitPool
    host: str
    clock: ServerClock
    queues: WeakSet[EgressQueue] = attrs.field(factory=WeakSet, init=False)
    _budgets: dict[str, RateBudget] = attrs.field(factory=dict, init=False)

    def budget(self, address: str) -> RateBudget:
        """Return the budget of an address, the same for all pools."""
        found = self._budgets.get(address)
        if found is None:
            found = self._budgets[address] = RateBudget(self.pool, self.clock)
        return found

    def forget_idle(self, now: int) -> None:
        """Drop the budgets that have nothing spent and are in no egress queue."""
        used = {id(slot.budget) for queue in self.queues for slot in queue.slots}
        self._budgets = {
            address: budget
            for address, budget in self._budgets.items()
            if id(budget) in used or not budget.idle(now)
        }

    @property
    def in_use(self) -> bool:
        """Whether a budget of it is in use or has something spent."""
        return bool(self._budgets)


@attrs.define(eq=False)
class Waiter:
    """A task, on any event loop, that waits for a change of one of its addresses."""

    addresses: frozenset[str]
    _loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop, init=False)
    _changed: anyio.Event = attrs.field(factory=anyio.Event, init=False)

    async def wait(self, milliseconds: int) -> None:
        """Sleep until the time is up or `wake` is called."""
        with anyio.move_on_after(milliseconds / 1000):
            await self._changed.wait()

    def wake(self) -> None:
        """End the wait; may be called from any thread."""
        with suppress(RuntimeError):  # its event loop is closed, and no task waits there
            self._loop.call_soon_threadsafe(self._changed.set)


class Shared:
    """State that is changed only with its lock held, and the tasks that wait for a change.

    `now` returns UTC milliseconds; `term` is the duration of a claim on a board in seconds.
    """

    def __init__(self, now: Clock | None, term: float) -> None:
        self.now = now or SteadyClock()
        self.term = term
        self.owner = os.getpid()
        self._tokens: dict[Board, str] = {}
        self.lock = Lock()
        """Guards the attributes below and the objects in them: budgets, clocks, bans, breakers, queues.

        It is held for microseconds, and never during a wait or any I/O.
        """
        self.waiters: set[Waiter] = set()
        self.board_keys: dict[Board, str] = {}
        self.boards_without: set[Board] = set()
        """Boards that cannot be used, each of which was logged once."""
        self._clocks: dict[str, ServerClock] = {}
        self._bans: WeakValueDictionary[str, Bans] = WeakValueDictionary()
        self._banned: dict[str, Bans] = {}

    def holder(self, board: Board) -> str:
        """Return the name of this process on a board.

        Two unequal boards may lead to one place, for example two users of one database. Each has its own
        name, so claims that were made through one are not given back through the other.
        """
        return f"{ProcessIdentity.current()}.{self._tokens.setdefault(board, token_hex(4))}"

    def server_clock(self, host: str) -> ServerClock:
        """Return the clock of a host, the same for all pools. The caller holds the lock."""
        found = self._clocks.get(host)
        if found is None:
            found = self._clocks[host] = ServerClock(self.now)
        return found

    def bans(self, address: str) -> Bans:
        """Return the bans of an address, the same for all pools. The caller holds the lock."""
        found = self._bans.get(address)
        if found is None:
            found = self._bans[address] = Bans()
        return found

    def changed(self, address: str) -> None:
        """Wake the tasks that wait for an address, and keep its bans. The caller holds the lock."""
        bans = self._bans.get(address)
        if bans:
            self._banned[address] = bans
        for waiter in self.waiters:
            if address in waiter.addresses:
                waiter.wake()

    def granted(self, addresses: Collection[str]) -> None:
        """Wake the tasks that wait for any of the addresses. The caller holds the lock."""
        for waiter in self.waiters:
            if not waiter.addresses.isdisjoint(addresses):
                waiter.wake()

    def forget_bans(self, now: int) -> None:
        """Drop the bans that are over; a ban that goes on is kept, also if no pool has its address now."""
        self._banned = {address: bans for address, bans in self._banned.items() if bans.latest > now}
