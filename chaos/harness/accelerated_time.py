"""A world in which a second lasts a millisecond: waits and bans of minutes are over before one gets bored.

The event loop, the exchange, the pool and the run read one clock, so that all of them agree. What the wire
takes is as slow as ever: to a run in this world a reply on loopback is a matter of seconds.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import anyio
import attrs

from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.values.http import Egress, Request, Response

__all__ = ["SPEED", "AcceleratedClock", "AcceleratedFetcher", "run_accelerated"]

SPEED = 1000

_Result = TypeVar("_Result")


@attrs.define
class AcceleratedClock:
    """UTC milliseconds, a thousand of them in each; starts anew at the same moment whenever told to."""

    start: int
    _began: int = attrs.field(factory=time.monotonic_ns, init=False)

    def __call__(self) -> int:
        """Tell the time."""
        return self.start + (time.monotonic_ns() - self._began) * SPEED // 1_000_000

    def restart(self) -> None:
        """Be at the start again."""
        self._began = time.monotonic_ns()


@attrs.frozen
class AcceleratedFetcher:
    """The built-in transport, whose answers bear times by a hurried clock."""

    clock: AcceleratedClock
    inner: CurlFetcher

    def session(self) -> AbstractAsyncContextManager[object]:
        """Open the transport."""
        return self.inner.session()

    async def fetch(self, request: Request, egress: Egress) -> Response:
        """Make the request."""
        sent_at = self.clock()
        response = await self.inner.fetch(request, egress)
        return attrs.evolve(response, sent_at=sent_at, received_at=self.clock())


class _AcceleratedSelector(selectors.SelectSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / SPEED)


class _AcceleratedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(_AcceleratedSelector())

    def time(self) -> float:
        return super().time() * SPEED


def run_accelerated(work: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run something on an event loop of its own that is in a hurry."""
    return anyio.run(work, backend_options={"loop_factory": _AcceleratedLoop})
