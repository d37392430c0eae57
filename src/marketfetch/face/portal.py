"""Blocking calls into the asynchronous engine, also from inside a running event loop (a notebook)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from anyio.from_thread import start_blocking_portal

__all__ = ["blocking"]

_T = TypeVar("_T")


def blocking(function: Callable[[], Awaitable[_T]]) -> _T:
    """Run an asynchronous function on an event loop in a thread of its own and wait for its result.

    The caller's loop, if there is one, is not touched. Ctrl-C cancels the function in order.

    >>> async def answer() -> int:
    ...     return 42
    >>> blocking(answer)
    42
    """
    with start_blocking_portal("asyncio") as portal:
        future = portal.start_task_soon(function)
        try:
            return future.result()
        except BaseException:
            # KeyboardInterrupt reaches the waiting thread, not the task: pass it on and let it finish.
            future.cancel()
            raise
