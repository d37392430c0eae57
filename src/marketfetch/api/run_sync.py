"""Call the asynchronous engine from blocking code, also inside a running event loop (a notebook)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future, wait
from threading import Lock, Thread
from typing import Generic, TypeVar

import anyio

from marketfetch.common.event_loop import run
from marketfetch.common.ipython_tracebacks import short_interrupts
from marketfetch.common.local_resources import raising_resource_errors

__all__ = ["run_sync"]

_T = TypeVar("_T")
_TICK = 0.5
"""Seconds of one wait: Windows lets Ctrl-C through between two waits, and never during one."""


def run_sync(function: Callable[[], Awaitable[_T]]) -> _T:
    """Run an asynchronous function on an event loop in a thread of its own and wait for its result.

    The caller's own event loop is not used. Ctrl-C cancels the function, waits until it has cleaned up, and
    raises KeyboardInterrupt; a second Ctrl-C does not wait.

    >>> async def answer() -> int:
    ...     return 42
    >>> run_sync(answer)
    42
    """
    call = _Call(function)
    thread = Thread(target=call.run, name="marketfetch-fetch", daemon=True)
    with short_interrupts():
        try:
            thread.start()
            while not wait([call.result], _TICK).done:
                pass
            result = call.result.result()
        except BaseException:
            # KeyboardInterrupt is raised in this thread, not in the task, and at any line.
            call.cancel()
            while thread.is_alive():
                thread.join(_TICK)
            raise
    thread.join()
    return result


class _Call(Generic[_T]):
    """One call, which runs on its own thread. Another thread may cancel the call, even before it begins."""

    def __init__(self, function: Callable[[], Awaitable[_T]]) -> None:
        self.result: Future[_T] = Future()
        self._function = function
        self._lock = Lock()
        self._cancelled = False
        self._cancel_work: Callable[[], object] = _nothing

    def run(self) -> None:
        """Run on a new event loop; the result or the error goes into `result`."""
        try:
            with raising_resource_errors():  # an event loop opens files
                self.result.set_result(run(self._work))
        except BaseException as error:  # noqa: BLE001  # raised in the waiting thread
            self.result.set_exception(error)

    def cancel(self) -> None:
        """Cancel the function; it can still clean up."""
        with self._lock:
            self._cancelled = True
            self._cancel_work()

    async def _work(self) -> _T:
        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:
            with self._lock:
                self._cancel_work = lambda: loop.call_soon_threadsafe(scope.cancel)
                if self._cancelled:
                    scope.cancel()
            try:
                return await self._function()
            finally:
                with self._lock:
                    self._cancel_work = _nothing  # the loop is closed next
        raise CancelledError


def _nothing() -> None:
    """The function has not begun, or has ended."""
