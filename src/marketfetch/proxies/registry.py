"""The registry of the process: all requests from one address spend from one budget.

Pools, pipelines, `fetch` calls, threads and event loops of a process share one registry. A forked child gets
a new one, so it holds no lock and no claim of its parent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from marketfetch.protocols import Board, Sharing
from marketfetch.proxies.address_claims import Claims
from marketfetch.proxies.address_limits import Limits, Shared
from marketfetch.proxies.file_board import FileBoard
from marketfetch.values.http import LimitPool
from marketfetch.values.times import Clock

__all__ = ["Registry", "process_registry", "separate_registry"]


class Registry(Shared):
    """Limits, bans and claims of every address, and the clock of every exchange, for all pools that have it.

    By default a pool uses the registry of the process. A separate registry does not know what other pools
    spend, which is right for a test and wrong for a real exchange. `now` returns UTC milliseconds. `sharing`
    has the boards that are shared with other processes or registries; a claim on a board ends after `term`
    seconds unless it is renewed.

    >>> registry = Registry()
    >>> calls = LimitPool("calls", capacity=10, period=60_000)
    >>> registry.limits(calls, "https://e.org") is registry.limits(calls, "https://e.org")
    True
    """

    def __init__(
        self, now: Clock | None = None, *, sharing: Sharing | None = None, term: float = 30.0
    ) -> None:
        super().__init__(now, term)
        self.sharing = sharing or Sharing()
        self._limits: dict[tuple[LimitPool, str], Limits] = {}
        self._claims: dict[tuple[Limits, Board], Claims] = {}

    def limits(self, pool: LimitPool, host: str) -> Limits:
        """Return the limits of a host, and of those that count with it. The caller holds the lock."""
        host = pool.counted_hosts(host)[0]
        found = self._limits.get((pool, host))
        if found is None:
            self._forget_idle()
            found = self._limits[pool, host] = Limits(pool, host, self.server_clock(host))
        return found

    def claims(self, limits: Limits, board: Board) -> Claims:
        """Return the claims on a board for a limit pool. The caller holds the lock."""
        found = self._claims.get((limits, board))
        if found is None:
            found = self._claims[limits, board] = Claims(self, limits, board)
        return found

    def in_this_process(self) -> Registry:
        """Return this registry, or in a forked child a new one with the same options."""
        return self if self.owner == os.getpid() else Registry(self.now, sharing=self.sharing, term=self.term)

    def _forget_idle(self) -> None:
        now = self.now()
        for limits in self._limits.values():
            limits.forget_idle(now)
        self._limits = {key: limits for key, limits in self._limits.items() if limits.in_use}
        used = set(self._limits.values())
        self._claims = {key: claims for key, claims in self._claims.items() if key[0] in used}
        self.forget_bans(now)


class _Process:
    """The registry of the running process, made at its first use: making a board takes imports."""

    def __init__(self) -> None:
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Begin without a registry, and with a free lock: a thread of the parent may have held the lock."""
        self.current: Registry | None = None
        self._lock = Lock()

    def registry(self) -> Registry:
        """Return the registry, which is made by the first call."""
        with self._lock:
            if self.current is None:
                self.current = Registry(sharing=Sharing((FileBoard.of_user(),)))
            return self.current


_process = _Process()


def process_registry() -> Registry:
    """Return the registry of this process."""
    return _process.registry()


@contextmanager
def separate_registry() -> Iterator[Registry]:
    """Give the process a new registry until the block is left, as if nothing had been spent yet.

    It is for tests: two simulated exchanges may use the same port, and each has its own budgets.
    """
    before, _process.current = _process.current, None
    try:
        yield _process.registry()
    finally:
        _process.current = before
