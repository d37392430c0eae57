"""An event loop in a background thread, for servers beside synchronous code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["BackgroundLoop"]

_Result = TypeVar("_Result")


class BackgroundLoop:
    """Runs an event loop in a daemon thread between `start` and `stop`; `stop` ends all of its tasks."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; a stopped loop can be started again."""
        if self._thread is not None:
            raise RuntimeError(f"{self._name} is already running")
        self._loop = asyncio.SelectorEventLoop()  # servers here stop watching a socket, which Proactor cannot
        self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine on the loop and wait for its result; call it from another thread."""
        if self._loop is None:
            work.close()
            raise RuntimeError(f"{self._name} is not running: start it first")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop(self) -> None:
        """Cancel all tasks, end the thread and close the loop."""
        if self._loop is None or self._thread is None:
            return
        self.run(_cancel_tasks())
        # On its own thread: the one that calls may have a running loop, as that of a notebook has.
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None


async def _cancel_tasks() -> None:
    # Several times: the task of a client just accepted may start another one, and each transport needs one
    # more iteration of the loop to close.
    for _ in range(8):
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)
