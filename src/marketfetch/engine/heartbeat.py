"""The Heartbeat events of a run: every few seconds, and at once when a longer wait begins or ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from marketfetch.events import Heartbeat, Listener
from marketfetch.protocols import ProxyPool, SupportsWaiting

__all__ = ["sending_heartbeats"]


@asynccontextmanager
async def sending_heartbeats(
    make: Callable[[], Heartbeat], emit: Listener, pool: ProxyPool, seconds: float
) -> AsyncIterator[None]:
    """Emit what `make` returns every so many seconds until the block is left.

    A pool that reports its waits triggers a Heartbeat as soon as a longer wait begins or ends.
    """
    changed = pool.waiting_changed if isinstance(pool, SupportsWaiting) else anyio.sleep_forever

    async def send() -> None:
        while True:
            with anyio.move_on_after(seconds):
                await changed()
            emit(make())

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        yield
        group.cancel_scope.cancel()
