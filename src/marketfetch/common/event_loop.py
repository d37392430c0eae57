"""Helpers for the event loop: check that it is one of asyncio, and repeat an action on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from marketfetch.errors import ConfigurationError

__all__ = ["asyncio_loop", "repeating"]


def asyncio_loop(what: str) -> asyncio.AbstractEventLoop:
    """Return the running event loop; ConfigurationError without an event loop of asyncio, as under trio.

    >>> asyncio_loop("a Pipeline")
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: asyncio is needed: a Pipeline runs on its event loop, and ...
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            f"asyncio is needed: {what} runs on its event loop, and none is running here; under trio call "
            "marketfetch.fetch(...) in a thread, such as by trio.to_thread.run_sync: it has a loop of its own"
        ) from None


@asynccontextmanager
async def repeating(
    action: Callable[[], object], seconds: float, changed: Callable[[], Awaitable[object]]
) -> AsyncIterator[None]:
    """Do something every so many seconds, and each time `changed` returns, until the block is left."""

    async def repeat() -> None:
        while True:
            with anyio.move_on_after(seconds):
                await changed()
            action()

    async with anyio.create_task_group() as group:
        group.start_soon(repeat)
        yield
        group.cancel_scope.cancel()
