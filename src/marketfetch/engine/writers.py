"""Writer threads: each has one writer of the sink and one queue; the event loop never waits for a store.

All batches of a series go through the same queue, in order. Back-pressure: while a store is slow, the workers
that fetch wait for the row budget. If the store has no group commit, a queue holds one batch, and `submit`
waits, too.

Group commit: a store that supports it gets all batches that are queued, up to the rows of one transaction.
A batch that would exceed these begins the next transaction. For a store with row groups it is split. Example:
with 100 rows in a transaction, batches of 60 and 70 rows become 60 + 40 rows, and 30 in the next transaction.
A transaction may be larger if it has one batch only.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
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
from marketfetch.protocols import GroupWriter, Sink, SupportsGroupCommit, SupportsRowGroups
from marketfetch.values.pages import Batch
from marketfetch.values.series import Series

__all__ = ["Deliver", "OnWritten", "WriterPool", "WrittenBatches", "open_writers"]

Deliver = Callable[[Batch], Coroutine[Any, Any, None]]
"""Called on the event loop for every durable batch; the writer thread waits until it returns."""


@attrs.frozen
class OnWritten:
    """Called on the event loop for a batch that was written or dropped, or that is split for writing.

    `durable` is called once for each batch that was written, and `refused` for each that was dropped, even if
    the run is cancelled meanwhile. `deliver` may wait, and is cancelled with the run.
    """

    durable: Callable[[Batch], None]
    refused: Callable[[Batch, RowsRefused], None]
    """For a batch that is dropped because the store refuses rows of its series."""
    deliver: Deliver
    split: Callable[[Batch, tuple[Batch, Batch]], None]
    """For a batch in place of which two parts are written, in two transactions."""


@attrs.frozen(eq=False)
class WrittenBatches:
    """The batches that a writer thread has written or dropped, until the event loop has recorded them.

    A run may be cancelled after a commit, but before the event loop has recorded it. Therefore `record` is
    called again when the thread has ended. If a store does not answer, the run does not wait for the thread;
    it may then commit one more transaction, which the report does not count.
    """

    _on_written: OnWritten
    _unrecorded: deque[tuple[Batch, RowsRefused | None]] = attrs.field(factory=deque, init=False)

    def add(self, batch: Batch, refusal: RowsRefused | None = None) -> None:
        """Add a batch that is durable or, with the error, one that was dropped. Called on the thread."""
        self._unrecorded.append((batch, refusal))

    def record(self) -> list[Batch]:
        """Record the batches that were added since the last call; return the durable ones."""
        durable = []
        while self._unrecorded:
            batch, refusal = self._unrecorded.popleft()
            if refusal is None:
                self._on_written.durable(batch)
                durable.append(batch)
            else:
                self._on_written.refused(batch, refusal)
        return durable

    def split(self, batch: Batch, parts: tuple[Batch, Batch]) -> None:
        """Tell the run that two parts are written in place of a batch."""
        self._on_written.split(batch, parts)

    async def record_and_deliver(self) -> None:
        """Record the batches that were added since the last call, and deliver the durable ones."""
        for batch in self.record():
            await self._on_written.deliver(batch)


@attrs.define(eq=False)
class WriterPool:
    """The writer threads, as their queues; all batches of a series go into the same queue."""

    _queues: list[MemoryObjectSendStream[Batch]]
    transaction_rows: int
    """The most rows in a transaction of several batches; 0 if each batch is a transaction of its own."""
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
async def open_writers(sink: Sink, retrier: StoreRetrier, on_written: OnWritten) -> AsyncIterator[WriterPool]:
    """Start the writer threads; leaving the block waits until every batch is written or dropped.

    A SinkError of a writer cancels the block and is raised from it. RowsRefused concerns one series: its
    batch and all later batches of the series are dropped, and the other series are written.
    """
    count = max(1, sink.max_writers)
    transaction_rows, splits = 0, isinstance(sink, SupportsRowGroups)
    if isinstance(sink, SupportsRowGroups):
        transaction_rows = sink.row_group_rows
    elif isinstance(sink, SupportsGroupCommit):
        transaction_rows = sink.transaction_rows
    limiter = CapacityLimiter(count)
    queues: list[MemoryObjectSendStream[Batch]] = []
    async with anyio.create_task_group() as group:
        for _ in range(count):
            # For group commit a queue needs no limit of its own: the row budget limits the rows in it.
            send, receive = create_memory_object_stream[Batch](math.inf if transaction_rows else 1)
            queues.append(send)
            written = WrittenBatches(on_written)
            thread = _WriterThread(sink, receive, retrier, written, transaction_rows, splits)
            group.start_soon(thread.run, limiter)
        try:
            yield WriterPool(queues, transaction_rows)
        finally:
            for queue in queues:
                queue.close()


@attrs.define(eq=False)
class _WriterThread:
    """Writes the batches of one queue. The writer is opened, used and closed on the same thread."""

    _sink: Sink
    _queue: MemoryObjectReceiveStream[Batch]
    _retrier: StoreRetrier
    _written: WrittenBatches
    _transaction_rows: int
    _splits: bool
    """Whether a batch is split so that a transaction is a whole row group."""
    _refusals: dict[Series, RowsRefused] = attrs.field(factory=dict, init=False)
    _surplus: Batch | None = attrs.field(default=None, init=False)
    """A batch, or a second part of one, that was too large for the last transaction; begins the next one."""
    _current: CurrentWriter = attrs.field(factory=CurrentWriter, init=False)

    async def run(self, limiter: CapacityLimiter) -> None:
        """Write batches until the queue is closed. After an error the queue has no reader: see `submit`."""
        try:
            with self._queue:
                await run_in_thread(self._run, limiter=limiter, interrupt=self._current.interrupt)
        finally:
            self._written.record()

    def _run(self) -> None:
        """Write batches until the queue is closed. Runs on the thread."""
        with ExitStack() as stack:
            write = self._retrier.call(lambda: stack.enter_context(self._opened()))
            # One call to the event loop for each transaction: it records the last one and receives the next.
            while batches := call_on_loop(self._record_and_receive):
                self._write(write, batches)

    def _opened(self) -> AbstractContextManager[GroupWriter]:
        if isinstance(self._sink, SupportsGroupCommit):
            return self._sink.group_writer()
        return self._opened_for_one_batch()

    @contextmanager
    def _opened_for_one_batch(self) -> Iterator[GroupWriter]:
        with self._sink.writer() as write:
            self._current.writer = write

            def write_one(batches: Sequence[Batch]) -> None:
                (batch,) = batches
                write(batch)

            yield write_one

    def _write(self, write: GroupWriter, batches: Sequence[Batch]) -> None:
        """Write batches; drop those of a series whose rows the store refuses. Runs on the thread."""
        accepted = []
        for batch in batches:
            if refusal := self._refusals.get(batch.series):
                self._written.add(batch, refusal)
            else:
                accepted.append(batch)
        if not accepted:
            return
        try:
            self._retrier.call(partial(write, accepted))
        except RowsRefused as error:
            if len(accepted) > 1:  # nothing was written; which batch is refused shows when each is alone
                for batch in accepted:
                    self._write(write, [batch])
                return
            # The error is kept until the writers close, without a traceback: its frames would keep the batch.
            self._refusals[accepted[0].series] = error.with_traceback(None)
            self._written.add(accepted[0], error)
        else:
            for batch in accepted:
                self._written.add(batch)

    async def _record_and_receive(self) -> Sequence[Batch]:
        """Record the last batches and return those of the next transaction; on the event loop."""
        await self._written.record_and_deliver()
        try:
            batches = [self._surplus or await self._queue.receive()]
        except EndOfStream:
            return ()
        rows, self._surplus = batches[0].rows, None
        with suppress(WouldBlock, EndOfStream):
            while rows < self._transaction_rows:
                batches.append(self._queue.receive_nowait())
                rows += batches[-1].rows
        surplus = rows - self._transaction_rows
        if surplus > 0 and len(batches) > 1:
            # After a few rows more than a row group, DuckDB's checkpoint reads and rewrites the whole group.
            self._surplus = batches.pop()
            if self._splits:
                # A few rows less go through DuckDB's write-ahead log, which takes twice as long.
                first, self._surplus = self._split(self._surplus, self._surplus.rows - surplus)
                batches.append(first)
        return batches

    def _split(self, batch: Batch, rows: int) -> tuple[Batch, Batch]:
        parts = batch.split(rows)
        self._written.split(batch, parts)
        return parts
