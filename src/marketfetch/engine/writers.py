"""Writer threads: each has one writer of the sink and one queue; the event loop never waits for a store.

All batches of a series go through the same queue, in order. A queue holds one batch (back-pressure): while a
store is slow, `submit` waits, and so do the workers that fetch.
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

from marketfetch.engine.blocking import CurrentWriter, StoreRetrier, call_on_loop, run_in_thread
from marketfetch.errors import RowsRefused
from marketfetch.protocols import Sink, Writer
from marketfetch.values.pages import Batch
from marketfetch.values.series import Series

__all__ = ["OnDurable", "OnRefused", "WriterPool", "open_writers"]

OnDurable = Callable[[Batch], Coroutine[Any, Any, None]]
"""Called on the event loop for every durable batch; the writer thread waits until it returns."""

OnRefused = Callable[[Batch, RowsRefused], Coroutine[Any, Any, None]]
"""Called on the event loop for every batch that is dropped because the store refuses rows of its series."""


@attrs.define(eq=False)
class WriterPool:
    """The queues of the writer threads; all batches of a series go into the same queue."""

    _queues: list[MemoryObjectSendStream[Batch]]
    _queue_of: dict[Series, int] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._queues)

    async def submit(self, batch: Batch) -> None:
        """Put a batch into the queue of its series; waits while the queue is full."""
        number = self._queue_of.setdefault(batch.series, len(self._queue_of) % len(self._queues))
        try:
            await self._queues[number].send(batch)
        except BrokenResourceError:
            # The writer thread has failed. Its error is about to cancel this task, and is the one to report.
            await anyio.sleep_forever()


@asynccontextmanager
async def open_writers(
    sink: Sink, retrier: StoreRetrier, on_durable: OnDurable, on_refused: OnRefused
) -> AsyncIterator[WriterPool]:
    """Start the writer threads; leaving the block waits until every submitted batch is durable.

    A SinkError of a writer cancels the block and is raised from it. RowsRefused concerns one series: its
    batch and all later batches of the series are dropped, and the other series are written.
    """
    count = max(1, sink.max_writers)
    limiter = CapacityLimiter(count)
    queues: list[MemoryObjectSendStream[Batch]] = []
    async with anyio.create_task_group() as group:
        for _ in range(count):
            send, receive = create_memory_object_stream[Batch](1)
            queues.append(send)
            thread = _WriterThread(sink, receive, retrier, on_durable, on_refused)
            work = partial(run_in_thread, thread.run, limiter=limiter, interrupt=thread.current.interrupt)
            group.start_soon(_run_writer, receive, work)
        try:
            yield WriterPool(queues)
        finally:
            for queue in queues:
                queue.close()


async def _run_writer(receive: MemoryObjectReceiveStream[Batch], work: Callable[[], Awaitable[None]]) -> None:
    """Run a writer thread, then close the receiving end of its queue, so that `submit` notices the end."""
    with receive:
        await work()


@attrs.define(eq=False)
class _WriterThread:
    """Writes the batches of one queue. The writer is opened, used and closed on the same thread."""

    _sink: Sink
    _queue: MemoryObjectReceiveStream[Batch]
    _retrier: StoreRetrier
    _on_durable: OnDurable
    _on_refused: OnRefused
    _refusals: dict[Series, RowsRefused] = attrs.field(factory=dict, init=False)
    current: CurrentWriter = attrs.field(factory=CurrentWriter, init=False)

    def run(self) -> None:
        """Write batches until the queue is closed; on the thread."""
        batch: Batch | None = None
        with ExitStack() as stack:
            write = self._retrier.call(lambda: stack.enter_context(self._sink.writer()))
            self.current.writer = write
            # One call to the event loop for each batch: it reports the last batch and fetches the next one.
            while (batch := call_on_loop(self._report_and_receive, batch)) is not None:
                self._write(write, batch)

    def _write(self, write: Writer, batch: Batch) -> None:
        """Make a batch durable, unless the store refuses rows of its series; on the thread."""
        if batch.series in self._refusals:
            return
        try:
            self._retrier.call(partial(write, batch))
        except RowsRefused as error:
            # Kept until the writers are closed, without the traceback: its frames would keep the batch.
            self._refusals[batch.series] = error.with_traceback(None)

    async def _report_and_receive(self, last: Batch | None) -> Batch | None:
        """Report the last batch and return the next one, None after the last; on the event loop."""
        if last is not None:
            error = self._refusals.get(last.series)
            if error is None:
                await self._on_durable(last)
            else:
                await self._on_refused(last, error)
        try:
            return await self._queue.receive()
        except EndOfStream:
            return None
