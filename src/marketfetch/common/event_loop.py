"""Starts event loops, tells whether one is of asyncio, and repeats an action or works in parallel on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from marketfetch.errors import ConfigurationError

__all__ = ["asyncio_loop", "in_parallel", "repeating", "run"]

_T = TypeVar("_T")


def run(function: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
    """Run an asynchronous function on an event loop of its own and return its result.

    The loop watches sockets, as libcurl needs it. The default loop of Windows does not, and would also take
    the signals from the command line.

    >>> async def sum_of(one: int, other: int) -> int:
    ...     return one + other
    >>> run(sum_of, 40, 2)
    42
    """
    return anyio.run(function, *arguments, backend_options={"loop_factory": asyncio.SelectorEventLoop})


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


async def in_parallel(items: Collection[_T], work: Callable[[_T], Awaitable[None]], concurrency: int) -> None:
    """Do the work for all items, in order, `concurrency` of them at a time; after an error no work begins."""
    unbegun = iter(items)
    async with anyio.create_task_group() as group:

        async def work_off() -> None:
            try:
                for item in unbegun:
                    await checkpoint_if_cancelled()
                    await work(item)
            except Exception:  # of any kind, and raised again: it only has to keep the others from going on
                group.cancel_scope.cancel()  # at once; the group itself would do it when this task has ended
                raise

        for _ in range(min(len(items), concurrency)):
            group.start_soon(work_off)


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
