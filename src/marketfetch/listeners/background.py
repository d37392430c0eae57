"""A work queue with one thread, for work that may block, such as writing to a terminal."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from types import TracebackType
from typing import Generic, Self, TypeVar

__all__ = ["BackgroundListener", "BackgroundQueue"]

_T = TypeVar("_T")


class BackgroundQueue(Generic[_T]):
    """Calls `handle` with each item on a thread; entering starts the thread, leaving flushes the queue.

    `submit` never waits: while `handle` hangs, at most `limit` items are kept, and further items are counted
    in `dropped`. Leaving waits `flush_timeout` seconds for the items that are left, then abandons the thread.

    >>> seen: list[int] = []
    >>> with BackgroundQueue(seen.append) as queue:
    ...     queue.submit(1)
    ...     queue.submit(2)
    >>> seen
    [1, 2]
    """

    def __init__(
        self, handle: Callable[[_T], object], *, limit: int = 10_000, flush_timeout: float = 2.0
    ) -> None:
        self.dropped = 0
        self._handle = handle
        self._limit = limit
        self._flush_timeout = flush_timeout
        # Not queue.Queue: an event loop must not wait for its lock.
        self._items: SimpleQueue[_T | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._counting = Lock()

    def submit(self, item: _T) -> None:
        """Add an item and return at once."""
        if self._items.qsize() < self._limit:
            self._items.put(item)
        else:
            with self._counting:
                self.dropped += 1

    def _work(self) -> None:
        while (item := self._items.get()) is not None:
            self._handle(item)

    def __enter__(self) -> Self:
        # A daemon: a `handle` that never returns cannot keep the process alive.
        self._thread = Thread(target=self._work, name="marketfetch-background", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._items.put(None)
        if self._thread is not None:
            self._thread.join(self._flush_timeout)


class BackgroundListener(Generic[_T]):
    """The base class of a listener with a BackgroundQueue, `_queue`, that runs while the listener is entered.

    >>> with BackgroundListener[str](print) as listener:
    ...     listener._queue.submit("on a thread")
    on a thread
    """

    def __init__(self, handle: Callable[[_T], object]) -> None:
        self._queue = BackgroundQueue(handle)

    def __enter__(self) -> Self:
        self._queue.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.__exit__(kind, error, trace)
