"""Patience with a store that is away for a moment, or that another process holds: it is asked again."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TypeVar

import anyio
import attrs

from marketfetch.engine.blocking import call_from_thread, run_in_thread
from marketfetch.errors import SinkUnavailable
from marketfetch.events import Listener, WaitingForStore
from marketfetch.ratelimit.backoff import RetryPolicy

__all__ = ["StoreRetrier"]

_T = TypeVar("_T")


@attrs.frozen(eq=False)
class StoreRetrier:
    """How often and after which waits a store is asked again, and who is told of it."""

    retries: RetryPolicy
    emit: Listener
    random: random.Random = attrs.field(factory=random.Random)

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
        seconds = self.retries.wait(attempt, self.random.random())
        self.emit(WaitingForStore(message, attempt, seconds))
        await anyio.sleep(seconds)
