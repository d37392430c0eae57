"""What everything in a process that leaves from the same address has in common: budgets, clocks, bans."""

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
from marketfetch.values.times import Clock, steady_clock

__all__ = ["Limits", "Shared", "Waiter", "address_of"]


def address_of(egress: Egress) -> str:
    """Name the address that an egress leaves from, so that nothing of it can be read.

    It is the same for the same host, port and user, however the proxy is spoken to: behind them is one exit.

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
    """One published limit of one exchange: a clock, and a budget for every address that is in use.

    `rosters` are those of the pools that use it; what none of them uses and has nothing spent is forgotten.
    """

    pool: LimitPool
    host: str
    clock: ServerClock = attrs.field(factory=ServerClock, init=False)
    queues: WeakSet[EgressQueue] = attrs.field(factory=WeakSet, init=False)
    _budgets: dict[str, RateBudget] = attrs.field(factory=dict, init=False)

    def budget(self, address: str) -> RateBudget:
        """Return the budget of an address, the same for everybody."""
        found = self._budgets.get(address)
        if found is None:
            found = self._budgets[address] = RateBudget(self.pool, self.clock)
        return found

    def forget_idle(self, now: int) -> None:
        """Drop the budgets that have nothing to remember and are in no roster."""
        used = {id(slot.budget) for queue in self.queues for slot in queue.slots}
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

    addresses: frozenset[str]
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


class Shared:
    """What may be changed with its lock held alone, and who waits for a change of it.

    `now` tells UTC milliseconds, `term` is how many seconds a claim on a board lasts.
    """

    def __init__(self, now: Clock | None, term: float) -> None:
        self.now = now or steady_clock()
        self.term = term
        self.owner = os.getpid()
        self._tokens: dict[Board, str] = {}
        self.lock = Lock()
        """Guards everything below and everything reached from it: budgets, clocks, bans, health, rosters.

        It is held for microseconds, never while anything is waited for.
        """
        self.waiters: set[Waiter] = set()
        self.board_keys: dict[Board, str] = {}
        self.boards_without: set[Board] = set()
        """Boards that cannot be had; the log has a line on each."""
        self._bans: WeakValueDictionary[str, Bans] = WeakValueDictionary()
        self._banned: dict[str, Bans] = {}

    def holder(self, board: Board) -> str:
        """Name this process on a board.

        Another object may lead to the same place, as through a link or another user of the database: what is
        claimed by way of the one is not given back by way of the other.
        """
        return f"{ProcessIdentity.current()}.{self._tokens.setdefault(board, token_hex(4))}"

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

    def granted(self, addresses: Collection[str]) -> None:
        """Wake whoever waits for any of many addresses; to be called with the lock held."""
        for waiter in self.waiters:
            if not waiter.addresses.isdisjoint(addresses):
                waiter.wake()

    def forget_bans(self, now: int) -> None:
        """Drop the bans that are over, and those of addresses that nobody has."""
        self._banned = {address: bans for address, bans in self._banned.items() if bans.latest > now}
