"""Functions that run blocking work on threads, cancel and retry it, and call the event loop from there."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import TypeVar

import anyio
import attrs
from anyio import CapacityLimiter, from_thread, to_thread

from marketfetch.errors import RowsRefused, SinkUnavailable
from marketfetch.events import Listener, StoreRecovered, WaitingForStore
from marketfetch.protocols import SupportsInterrupt
from marketfetch.ratelimit.backoff import retry_waits
from marketfetch.values.settings import RetryPolicy

__all__ = ["CurrentWriter", "StoreRetrier", "call_on_loop", "retry_while_unavailable", "run_in_thread"]

_T = TypeVar("_T")

_GRACE = 1.5
"""Seconds for which cancelled work may run on before it is interrupted: a store may be in a transaction."""
_GRACE_AFTER_INTERRUPT = 1.5
"""Seconds for which interrupted work may run on before its thread is left behind."""


def _nothing() -> None:
    pass


@attrs.define(eq=False)
class CurrentWriter:
    """The writer that a thread is using, so that another thread can interrupt it."""

    writer: object = None

    def interrupt(self) -> None:
        """End the wait of the writer, such as for a lock, if it supports that; called from another thread."""
        if isinstance(self.writer, SupportsInterrupt):
            self.writer.interrupt()


async def run_in_thread(
    work: Callable[[], _T],
    *,
    limiter: CapacityLimiter | None = None,
    interrupt: Callable[[], object] = _nothing,
) -> _T:
    """Run blocking work on a thread of the thread pool and return its result.

    Python cannot end a thread from outside. If the caller is cancelled, by anyio or by asyncio:

    1. If the work has not begun, it never begins.
    2. If the work ends within `_GRACE`, the cancellation waits for its end.
    3. If not, `interrupt` is called on another thread, and the cancellation waits once more.
    4. If the work still runs, its thread is left behind, so that a store that does not answer does not block
       the host's event loop. The thread ends with its work, at the latest at its next callback.
    """
    ended = anyio.Event()  # set when the work is over, or can no longer begin
    # Acquired once and never released: by the thread to begin the work, or by the task to prevent that.
    started = Lock()
    results: list[_T] = []
    failures: list[Exception] = []
    tasks: list[asyncio.Task[object]] = []
    loop = asyncio.get_running_loop()

    def do_work() -> None:  # on the thread
        if not started.acquire(blocking=False):
            return  # case 1
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001  # raised below: a task group would wrap it
            failures.append(error)
        finally:
            # `run` may have ended already: asyncio's cancellation does not wait for the thread.
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(ended.set)

    async def run() -> None:  # on the loop
        tasks.extend(filter(None, [asyncio.current_task()]))
        try:
            await to_thread.run_sync(do_work, limiter=limiter)
        finally:
            if started.acquire(blocking=False):  # case 1
                ended.set()

    async def watch() -> None:  # on the loop
        try:
            await ended.wait()
        finally:
            with anyio.move_on_after(_GRACE, shield=True):  # case 2
                await ended.wait()
            if not ended.is_set():  # case 3
                with anyio.move_on_after(_GRACE_AFTER_INTERRUPT, shield=True):
                    await to_thread.run_sync(interrupt, abandon_on_cancel=True)
                    await ended.wait()
            if not ended.is_set():  # case 4: anyio itself would wait for the thread, asyncio does not
                tasks[0].cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        group.start_soon(watch)
    if failures:
        raise failures[0]
    return results[0]


def call_on_loop(function: Callable[..., Awaitable[_T]], *args: object) -> _T:
    """Call an async function on the event loop, from a thread of `run_in_thread`, and return its result.

    Raises CancelledError once the work is cancelled.
    """

    async def call() -> _T:
        # anyio cancels the calls that are pending at the moment of the cancellation, and no later call.
        if anyio.current_effective_deadline() == -math.inf:
            raise anyio.get_cancelled_exc_class()
        return await function(*args)

    return from_thread.run(call)


def retry_while_unavailable(
    work: Callable[[], _T],
    waits: Iterator[tuple[int, float | None]],
    wait: Callable[[WaitingForStore], object],
) -> _T:
    """Call `work`, and again after a wait while it raises SinkUnavailable; `retry_waits` makes `waits`.

    Raises the SinkUnavailable of the last attempt, and any other error at once.
    """
    while True:
        try:
            return work()
        except SinkUnavailable as error:
            attempt, seconds = next(waits)
            if seconds is None:
                raise
            wait(WaitingForStore(str(error), attempt, seconds))


@attrs.frozen(eq=False)
class StoreRetrier:
    """Retries calls to a store while it is unavailable.

    It emits WaitingForStore before each wait, and StoreRecovered once the store has answered after waits: the
    call has succeeded, or the store refuses the rows of a series.
    """

    retries: RetryPolicy
    emit: Listener

    async def call_in_thread(self, work: Callable[[], _T]) -> _T:
        """Run `call` on a thread."""
        return await run_in_thread(partial(self.call, work))

    def call(self, work: Callable[[], _T]) -> _T:
        """Call `work` on a thread of `run_in_thread`, and again while it raises SinkUnavailable.

        Repeating `work` must be safe; writing a batch is, because writers merge. Raises the SinkUnavailable
        of the last attempt, and any other error at once. A cancelled run ends between two attempts.
        """
        loops: list[asyncio.AbstractEventLoop] = []

        def wait(event: WaitingForStore) -> None:
            loops.append(call_on_loop(self._wait, event))

        try:
            result = retry_while_unavailable(work, retry_waits(self.retries), wait)
        except RowsRefused:
            self._emit_recovered(loops)
            raise
        self._emit_recovered(loops)
        return result

    def _emit_recovered(self, loops: Sequence[asyncio.AbstractEventLoop]) -> None:
        """Emit StoreRecovered if the call has waited, on the loop on which it has."""
        if loops:
            # Not `call_on_loop`, which raises in a cancelled run: the store has done its work.
            with suppress(RuntimeError):  # the loop is closed
                loops[0].call_soon_threadsafe(self.emit, StoreRecovered())

    async def _wait(self, event: WaitingForStore) -> asyncio.AbstractEventLoop:
        self.emit(event)
        await anyio.sleep(event.wait)
        return asyncio.get_running_loop()
