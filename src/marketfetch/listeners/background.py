"""A thread to the side, for work that may block: it deals with what is put there, and nobody waits."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Generic, Self, TypeVar

__all__ = ["BackgroundQueue"]

_T = TypeVar("_T")


class BackgroundQueue(Generic[_T]):
    """Calls `deal` with each item on a thread of its own; entering starts the thread, leaving flushes it.

    `put` never waits: where `deal` hangs, at most `limit` items are kept and further ones are counted in
    `dropped`. Leaving waits `patience` seconds for what is left, then leaves the thread behind.

    >>> seen: list[int] = []
    >>> with BackgroundQueue(seen.append) as aside:
    ...     aside.submit(1)
    ...     aside.submit(2)
    >>> seen
    [1, 2]
    """

    def __init__(self, deal: Callable[[_T], object], *, limit: int = 10_000, patience: float = 2.0) -> None:
        self.dropped = 0
        self._deal = deal
        self._limit = limit
        self._retrier = patience
        # Not queue.Queue: its lock is no place for an event loop to wait.
        self._items: SimpleQueue[_T | None] = SimpleQueue()
        self._thread: Thread | None = None

    def submit(self, item: _T) -> None:
        """Hand an item over and return at once."""
        if self._items.qsize() < self._limit:
            self._items.put(item)
        else:
            self.dropped += 1

    def _work(self) -> None:
        while (item := self._items.get()) is not None:
            self._deal(item)

    def __enter__(self) -> Self:
        # A daemon, so that a handler that never returns cannot keep the process alive.
        self._thread = Thread(target=self._work, name="marketfetch-aside", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._items.put(None)
        if self._thread is not None:
            self._thread.join(self._retrier)
