"""Writer threads: each has one writer of the sink and one queue; the event loop never waits for a store.

All batches of a series go through the same queue, in order. Back-pressure: while a store is slow, the workers
that fetch wait, for `submit` where a queue holds one batch, and for the row budget in any case.

Group commit: a store that supports it gets all batches that are queued, up to the rows of one transaction.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

import anyio
import attrs
from anyio import (
    BrokenResourceError,
    CapacityLimiter,
    EndOfStream,
    WouldBlock,
    create_memory_object_stream,
)
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from marketfetch.engine.blocking import CurrentWriter, StoreRetrier, call_on_loop, run_in_thread
from marketfetch.errors import RowsRefused
from marketfetch.protocols import GroupWriter, Sink, SupportsGroupCommit
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
    transaction_rows: int
    """Rows that a writer commits together where so many are ready; 0 if it commits each batch alone."""
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
    transaction_rows = sink.transaction_rows if isinstance(sink, SupportsGroupCommit) else 0
    limiter = CapacityLimiter(count)
    queues: list[MemoryObjectSendStream[Batch]] = []
    async with anyio.create_task_group() as group:
        for _ in range(count):
            # The row budget limits the rows in a queue, and so the batches that wait for a transaction.
            send, receive = create_memory_object_stream[Batch](math.inf if transaction_rows else 1)
            queues.append(send)
            thread = _WriterThread(sink, receive, retrier, on_durable, on_refused, transaction_rows)
            work = partial(run_in_thread, thread.run, limiter=limiter, interrupt=thread.current.interrupt)
            group.start_soon(_run_writer, receive, work)
        try:
            yield WriterPool(queues, transaction_rows)
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
    _transaction_rows: int
    _refusals: dict[Series, RowsRefused] = attrs.field(factory=dict, init=False)
    _held_over: Batch | None = attrs.field(default=None, init=False)
    """A batch that would have made the last transaction too large; it begins the next one."""
    current: CurrentWriter = attrs.field(factory=CurrentWriter, init=False)

    def run(self) -> None:
        """Write batches until the queue is closed; on the thread."""
        batches: Sequence[Batch] = ()
        with ExitStack() as stack:
            write = self._retrier.call(lambda: stack.enter_context(self._opened()))
            # One call to the event loop for each transaction: it reports the last one and fetches the next.
            while batches := call_on_loop(self._report_and_receive, batches):
                self._write(write, batches)

    def _opened(self) -> AbstractContextManager[GroupWriter]:
        if isinstance(self._sink, SupportsGroupCommit):
            return self._sink.group_writer()
        return self._opened_for_one_batch()

    @contextmanager
    def _opened_for_one_batch(self) -> Iterator[GroupWriter]:
        with self._sink.writer() as write:
            self.current.writer = write

            def write_one(batches: Sequence[Batch]) -> None:
                (batch,) = batches
                write(batch)

            yield write_one

    def _write(self, write: GroupWriter, batches: Sequence[Batch]) -> None:
        """Make batches durable, but those of series whose rows the store refuses; on the thread."""
        accepted = [batch for batch in batches if batch.series not in self._refusals]
        if not accepted:
            return
        try:
            self._retrier.call(partial(write, accepted))
        except RowsRefused as error:
            if len(accepted) > 1:
                for batch in accepted:
                    self._write(write, [batch])
                return
            # Kept until the writers are closed, without the traceback: its frames would keep the batch.
            self._refusals[accepted[0].series] = error.with_traceback(None)

    async def _report_and_receive(self, last: Sequence[Batch]) -> Sequence[Batch]:
        """Report the last batches and return those of the next transaction; on the event loop."""
        for batch in last:
            error = self._refusals.get(batch.series)
            if error is None:
                await self._on_durable(batch)
            else:
                await self._on_refused(batch, error)
        try:
            batches = [self._held_over or await self._queue.receive()]
        except EndOfStream:
            return ()
        self._held_over, rows = None, batches[0].rows
        with suppress(WouldBlock, EndOfStream):
            while rows < self._transaction_rows:
                batch = self._queue.receive_nowait()
                rows += batch.rows
                # A few rows above a row group of DuckDB make its checkpoint read and rewrite everything.
                if rows > self._transaction_rows:
                    self._held_over = batch
                else:
                    batches.append(batch)
        return batches
