"""A work queue with one thread, for work that may block, such as writing to a terminal."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Generic, Self, TextIO, TypeVar

__all__ = ["BackgroundQueue", "StreamWriter"]

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

    def __exit__(self, *_: object) -> None:
        self._items.put(None)
        if self._thread is not None:
            self._thread.join(self._flush_timeout)


class StreamWriter(BackgroundQueue[str]):
    """The base class of listeners that write text to a stream, such as standard error.

    >>> import sys
    >>> with StreamWriter(sys.stdout) as writer:
    ...     writer.submit("on a thread")
    on a thread
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(self._write)
        self._stream = stream

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the reader of the pipe has closed it; the run goes on
            self._stream.write(text)
            self._stream.flush()
