"""An event loop and a clock that run 1000 times as fast: a ban of ten minutes is over in 0.6 s.

The event loop, the exchange, the proxy pool and the run read the same clock. Input and output are not
accelerated: a reply that takes 2 ms on loopback takes 2 s by this clock.
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
    """UTC milliseconds that advance `SPEED` times as fast as real time."""

    start: int
    _began: int = attrs.field(factory=time.monotonic_ns, init=False)

    def __call__(self) -> int:
        """Return the accelerated time."""
        return self.start + (time.monotonic_ns() - self._began) * SPEED // 1_000_000

    def restart(self) -> None:
        """Set the clock back to `start`."""
        self._began = time.monotonic_ns()


@attrs.frozen
class AcceleratedFetcher:
    """The built-in fetcher, with the times of its responses taken from the accelerated clock."""

    clock: AcceleratedClock
    inner: CurlFetcher

    def session(self) -> AbstractAsyncContextManager[object]:
        """Open the fetcher's session."""
        return self.inner.session()

    async def fetch(self, request: Request, egress: Egress) -> Response:
        """Send the request and stamp the response."""
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
    """Run a coroutine function on a new, accelerated event loop."""
    return anyio.run(work, backend_options={"loop_factory": _AcceleratedLoop})
