"""How many requests may be in flight: a slot is the network's, and free while a page is read."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import anyio
import attrs

from marketfetch.errors import RestrictedLocation

__all__ = ["Slot", "Slots"]


@attrs.define(eq=False)
class Slot:
    """One request in flight, from entering the block until `leave` or its end.

    A legal refusal keeps its slot: the run is over, and nobody shall be let in to ask the same again.
    """

    _free: anyio.Semaphore
    _held: bool = attrs.field(default=False, init=False)

    async def __aenter__(self) -> Self:
        await self._free.acquire()
        self._held = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, RestrictedLocation):
            self.leave()

    def leave(self) -> None:
        """Let the next one ask, if that was not done yet."""
        if self._held:
            self._held = False
            self._free.release()


@attrs.define(eq=False)
class Slots:
    """So many slots for each limit pool: those who wait for a slow one take none of another's."""

    count: int
    _pools: dict[str, anyio.Semaphore] = attrs.field(factory=dict, init=False)

    def one(self, pool: str) -> Slot:
        """Return a slot of a limit pool, to be entered."""
        if pool not in self._pools:
            self._pools[pool] = anyio.Semaphore(self.count, fast_acquire=True)
        return Slot(self._pools[pool])
