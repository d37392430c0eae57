"""Blocking work on threads beside the event loop, and the way back from there; both know how to end."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import count
from threading import Lock
from typing import TypeVar

import anyio
import attrs
from anyio import CapacityLimiter, from_thread, to_thread

from marketfetch.errors import SinkUnavailable
from marketfetch.events import Listener, WaitingForStore
from marketfetch.protocols import SupportsInterrupt
from marketfetch.values.settings import RetryPolicy

__all__ = ["CurrentWriter", "StoreRetrier", "call_from_thread", "run_in_thread"]

_T = TypeVar("_T")

_GRACE = 1.5
"""Seconds that cancelled work has to end in order: a store may be amidst a transaction."""
_GRACE_AFTER_INTERRUPT = 1.5
"""Seconds that it has after it was interrupted."""


def _nothing() -> None:
    pass


@attrs.define(eq=False)
class CurrentWriter:
    """The writer that a thread works with, so that others can interrupt it."""

    writer: object = None

    def interrupt(self) -> None:
        """End what it waits for, where it knows how; to be called from another thread."""
        if isinstance(self.writer, SupportsInterrupt):
            self.writer.interrupt()


async def run_in_thread(
    work: Callable[[], _T],
    *,
    limiter: CapacityLimiter | None = None,
    interrupt: Callable[[], object] = _nothing,
) -> _T:
    """Run blocking work on a thread and return its result.

    Cancelling, in whatever way, waits until it has ended, but only for seconds: no thread can be ended from
    outside, and a store that does not answer must not hold up the host's loop. After a while `interrupt` is
    called, on another thread, which may end what the work waits for. A thread that is left behind all the
    same ends with what it waits for, at the latest when it next calls back.
    """
    ended, begun = anyio.Event(), Lock()
    results: list[_T] = []
    failures: list[Exception] = []
    tasks: list[asyncio.Task[object]] = []
    loop = asyncio.get_running_loop()

    def do() -> None:
        if not begun.acquire(blocking=False):
            return  # called off
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001  # raised below: a task group would wrap it
            failures.append(error)
        finally:
            # The task may not know: asyncio's way of cancelling takes it away from its thread at once.
            with suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(ended.set)

    async def run() -> None:
        tasks.extend(filter(None, [asyncio.current_task()]))
        try:
            await to_thread.run_sync(do, limiter=limiter)
        finally:
            if begun.acquire(blocking=False):  # it has not begun, and will not any more
                ended.set()

    async def watch() -> None:
        try:
            await ended.wait()
        finally:
            with anyio.move_on_after(_GRACE, shield=True):
                await ended.wait()
            if not ended.is_set():
                with anyio.move_on_after(_GRACE_AFTER_INTERRUPT, shield=True):
                    await to_thread.run_sync(interrupt, abandon_on_cancel=True)
                    await ended.wait()
            if not ended.is_set():
                tasks[0].cancel()  # as asyncio cancels: anyio itself waits for its threads

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        group.start_soon(watch)
    if failures:
        raise failures[0]
    return results[0]


def call_from_thread(function: Callable[..., Awaitable[_T]], *args: object) -> _T:
    """Call an async function on the event loop from a thread of `run_in_thread`, and return its result.

    Raises CancelledError once the work is cancelled.
    """

    async def call() -> _T:
        # anyio delivers a cancellation to the calls that are there by then, and to no later one.
        if anyio.current_effective_deadline() == -math.inf:
            raise anyio.get_cancelled_exc_class()
        return await function(*args)

    return from_thread.run(call)


@attrs.frozen(eq=False)
class StoreRetrier:
    """How often and after which waits a store is asked again, and who is told of it."""

    retries: RetryPolicy
    emit: Listener
    rng: random.Random = attrs.field(factory=random.Random)

    async def call_in_thread(self, work: Callable[[], _T]) -> _T:
        """Do something with a store on a thread; see `call`."""
        return await run_in_thread(partial(self.call, work))

    def call(self, work: Callable[[], _T]) -> _T:
        """Do something with a store until it succeeds; to be called on a thread of the engine's.

        Whatever it is may be done again: merging is idempotent. Raises the SinkUnavailable of the last
        attempt, any other error at once. A cancelled run ends between two attempts.
        """
        for attempt in count(1):
            try:
                return work()
            except SinkUnavailable as error:
                if attempt >= self.retries.attempts:
                    raise
                call_from_thread(self._wait, str(error), attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _wait(self, message: str, attempt: int) -> None:
        seconds = self.retries.wait(attempt, self.rng.random())
        self.emit(WaitingForStore(message, attempt, seconds))
        await anyio.sleep(seconds)
