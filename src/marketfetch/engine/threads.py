"""Blocking work on threads beside the event loop, and the way back from there; both know how to end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from anyio import CapacityLimiter, from_thread, to_thread

__all__ = ["call_back", "on_thread"]

_T = TypeVar("_T")

_GRACE = 1.5
"""Seconds that cancelled work has to end in order: a store may be amidst a transaction."""
_LAST = 1.5
"""Seconds that it has after it was interrupted."""


def _nothing() -> None:
    pass


async def on_thread(
    work: Callable[[], _T],
    *,
    limiter: CapacityLimiter | None = None,
    interrupt: Callable[[], object] = _nothing,
) -> _T:
    """Run blocking work on a thread and return its result.

    Cancelling waits until it has ended, but only for seconds: no thread can be ended from outside, and a
    store that does not answer must not hold up the host's loop. After a while `interrupt` is called, on
    another thread, which may end what the work waits for. A thread that is left behind all the same ends
    with what it waits for, at the latest when it next calls back.
    """
    ended = anyio.Event()
    results: list[_T] = []
    failures: list[Exception] = []
    tasks: list[asyncio.Task[object]] = []

    async def run() -> None:
        tasks.extend(filter(None, [asyncio.current_task()]))
        try:
            results.append(await to_thread.run_sync(work, limiter=limiter))
        except Exception as error:  # noqa: BLE001  # raised below: a task group would wrap it
            failures.append(error)
        finally:
            ended.set()

    async def watch() -> None:
        try:
            await ended.wait()
        finally:
            with anyio.move_on_after(_GRACE, shield=True):
                await ended.wait()
            if not ended.is_set():
                with anyio.move_on_after(_LAST, shield=True):
                    await to_thread.run_sync(interrupt, abandon_on_cancel=True)
                    await ended.wait()
            if not ended.is_set():
                tasks[0].cancel()  # as asyncio cancels: anyio itself waits for its threads

    # In a task of its own: asyncio's way of cancelling would leave the thread behind at once.
    async with anyio.create_task_group() as group:
        group.start_soon(run)
        group.start_soon(watch)
    if failures:
        raise failures[0]
    return results[0]


def call_back(function: Callable[..., Awaitable[_T]], *args: object) -> _T:
    """Run an asynchronous function on the loop, from a thread that `on_thread` began, and return its result.

    Raises CancelledError once the work is cancelled.
    """

    async def call() -> _T:
        # anyio delivers a cancellation to the calls that are there by then, and to no later one.
        if anyio.current_effective_deadline() == -math.inf:
            raise anyio.get_cancelled_exc_class()
        return await function(*args)

    return from_thread.run(call)
