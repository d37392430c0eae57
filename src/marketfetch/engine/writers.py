"""Lanes: one thread and one writer each, so that the event loop never waits for a store.

All batches of a series go down the same lane, in order. A lane's queue is short: when the store is slow,
those who fetch wait here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import attrs
from anyio import (
    BrokenResourceError,
    CapacityLimiter,
    EndOfStream,
    create_memory_object_stream,
)
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from marketfetch.engine.blocking import CurrentWriter, StoreRetrier, call_from_thread, run_in_thread
from marketfetch.errors import RowsRefused
from marketfetch.protocols import Sink, Writer
from marketfetch.values.pages import Batch
from marketfetch.values.series import Series

__all__ = ["OnDurable", "OnRefused", "WriterPool", "open_writers"]

OnDurable = Callable[[Batch], Coroutine[Any, Any, None]]
"""Called on the event loop for every batch that became durable; the lane goes on when it returns."""

OnRefused = Callable[[Batch, RowsRefused], None]
"""Called on the event loop for every batch that is dropped because the store refuses rows of its series."""


@attrs.define(eq=False)
class WriterPool:
    """Where batches are put to be written."""

    _queues: list[MemoryObjectSendStream[Batch]]
    _queue_of: dict[Series, int] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._queues)

    async def submit(self, batch: Batch) -> None:
        """Hand a batch over; waits while the lane is busy."""
        way = self._queue_of.setdefault(batch.series, len(self._queue_of) % len(self._queues))
        try:
            await self._queues[way].send(batch)
        except BrokenResourceError:
            # The lane's writer has failed, and its error is about to cancel everybody: it is the one to tell.
            await anyio.sleep_forever()


@asynccontextmanager
async def open_writers(
    sink: Sink, retrier: StoreRetrier, done: OnDurable, refused: OnRefused
) -> AsyncIterator[WriterPool]:
    """Open the sink's writers; leaving the block waits until everything put in is durable.

    A failing writer cancels the block and its SinkError comes out of it. RowsRefused concerns one series:
    its batch and those that follow it are dropped, and other series go on.
    """
    count = max(1, sink.max_writers)
    limiter = CapacityLimiter(count)
    ways: list[MemoryObjectSendStream[Batch]] = []
    async with anyio.create_task_group() as group:
        for _ in range(count):
            send, receive = create_memory_object_stream[Batch](1)
            ways.append(send)
            lane = _WriterThread(sink, receive, retrier, done, refused)
            work = partial(run_in_thread, lane.write_all, limiter=limiter, interrupt=lane.current.interrupt)
            group.start_soon(_run_writer, receive, work)
        try:
            yield WriterPool(ways)
        finally:
            for way in ways:
                way.close()


async def _run_writer(receive: MemoryObjectReceiveStream[Batch], work: Callable[[], Awaitable[None]]) -> None:
    """Keep a lane's end open for as long as its thread is at work."""
    with receive:
        await work()


@attrs.define(eq=False)
class _WriterThread:
    """Writes what comes down one lane, on one thread from open to close."""

    _sink: Sink
    _batches: MemoryObjectReceiveStream[Batch]
    _retrier: StoreRetrier
    _done: OnDurable
    _refused: OnRefused
    _refusals: dict[Series, RowsRefused] = attrs.field(factory=dict, init=False)
    current: CurrentWriter = attrs.field(factory=CurrentWriter, init=False)

    def write_all(self) -> None:
        """Write until the other end is closed."""
        batch: Batch | None = None
        with ExitStack() as stack:
            write = self._retrier.call(lambda: stack.enter_context(self._sink.writer()))
            self.current.writer = write
            # One crossing to the loop and back for each batch.
            while (batch := call_from_thread(self._next_batch, batch)) is not None:
                self._write(write, batch)

    def _write(self, write: Writer, batch: Batch) -> None:
        """Make a batch durable, unless the store refuses rows of its series."""
        if batch.series in self._refusals:
            return
        try:
            self._retrier.call(partial(write, batch))
        except RowsRefused as error:
            # It is kept for the rest of the run: without the frames, which hold the batch.
            self._refusals[batch.series] = error.with_traceback(None)

    async def _next_batch(self, last: Batch | None) -> Batch | None:
        """Tell what became of the last batch, and return the next one; None when there is no other."""
        if last is not None:
            error = self._refusals.get(last.series)
            if error is None:
                await self._done(last)
            else:
                self._refused(last, error)
        try:
            return await self._batches.receive()
        except EndOfStream:
            return None
