"""A connection pool for a file that only one process at a time can have open."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Condition, Timer
from time import monotonic
from typing import Generic, TypeVar

import attrs

from marketfetch.errors import SinkError, SinkUnavailable
from marketfetch.sinks.files.atomic_files import LOCK_TIMEOUT
from marketfetch.sinks.files.fork_guard import INHERITED

__all__ = ["SharedConnection"]

_C = TypeVar("_C")

_MAX_RUNNING = 2
"""Blocks that run at the same time: as many as the memory limit of DuckDB is made for."""


@attrs.define(eq=False)
class _Block:
    """A use of the connection, and the keys that it locks; None locks everything."""

    keys: AbstractSet[Hashable] | None

    def conflicts(self, other: _Block) -> bool:
        """Whether the two must not run at the same time."""
        return self.keys is None or other.keys is None or not self.keys.isdisjoint(other.keys)


@attrs.define(eq=False)
class SharedConnection(Generic[_C]):
    """A connection pool of one process to a file: one connection, and a duplicate for a second thread.

    They stay open from one use to the next, since opening costs more than most uses. They are closed

    1. when no thread has used them for `max_idle` seconds,
    2. after a use that raises,
    3. after a use that ends `max_lifetime` seconds or more after the opening, if `has_waiters()` says that
       another process waits for the file,
    4. after every use, where no thread can be started that would close them later.

    In cases 2 and 3 no use begins until the other one has ended and they are closed. `connect` gets the
    moment of `monotonic` until which it may wait for other processes; the time spent on waiting for other
    threads counts, too. `duplicate` makes a second connection to the same database.

    >>> from contextlib import nullcontext
    >>> def connect(give_up: float) -> AbstractContextManager[str]:
    ...     return nullcontext("connection")
    >>> shared = SharedConnection("a file", connect, lambda first: nullcontext("duplicate"), lambda: False)
    >>> with shared.connection({"BTCUSDT"}) as first, shared.connection({"ETHUSDT"}) as second:
    ...     first, second
    ('connection', 'duplicate')
    >>> shared.close()
    """

    _name: str
    _connect: Callable[[float], AbstractContextManager[_C]]
    _duplicate: Callable[[_C], AbstractContextManager[_C]]
    _has_waiters: Callable[[], bool]
    max_lifetime: float = 0.25
    max_idle: float = 0.1
    # The lock of the condition protects the fields below it.
    _changed: Condition = attrs.field(factory=Condition, init=False)
    _stack: ExitStack = attrs.field(factory=ExitStack, init=False)
    _open: list[_C] = attrs.field(factory=list, init=False)
    _idle: list[_C] = attrs.field(factory=list, init=False)
    _running: list[_Block] = attrs.field(factory=list, init=False)
    _waiting: list[_Block] = attrs.field(factory=list, init=False)
    """In the order of arrival: two writers that begin again at once would else keep out a third for ever."""
    _closing: bool = attrs.field(default=False, init=False)
    _opened_at: float = attrs.field(default=0.0, init=False)
    _timer: Timer | None = attrs.field(default=None, init=False)
    _owner: int = attrs.field(factory=os.getpid, init=False)

    @contextmanager
    def connection(self, keys: AbstractSet[Hashable] | None = None) -> Iterator[_C]:
        """Lend a connection for the block; raises what opening it raises.

        Two blocks run side by side if both name keys, such as the series that they write, and share none.
        Raises SinkUnavailable where other threads have the file for seconds, and SinkError in a forked child.
        """
        if self._owner != os.getpid():
            raise SinkError(f"{self._name}: {INHERITED}")
        give_up = monotonic() + LOCK_TIMEOUT
        lent: list[_C] = []
        with self._running_block(keys, give_up) as block:
            if not self._open:  # then no other block runs: see `_begin`
                self._open.append(self._stack.enter_context(self._connect(give_up)))
                self._idle.append(self._open[0])
                self._opened_at = monotonic()
            with self._changed:
                lent.append(self._take())
                block.keys = keys
                self._changed.notify_all()
            yield lent[0]
            with self._changed:
                self._idle += lent

    @contextmanager
    def _running_block(self, keys: AbstractSet[Hashable] | None, give_up: float) -> Iterator[_Block]:
        block = _Block(keys)
        self._begin(block, give_up)
        finished = False
        try:
            yield block
            finished = True
        finally:
            self._end(block, finished=finished)

    def _begin(self, block: _Block, give_up: float) -> None:
        """Wait until a block may run; one that has to open the connection runs alone until that is done."""
        with self._changed:
            self._waiting.append(block)
            try:
                if not self._changed.wait_for(lambda: self._may_begin(block), give_up - monotonic()):
                    raise SinkUnavailable(
                        f"{self._name}: another run of this process is at work in it for long: end it, "
                        "or wait"
                    )
            finally:
                self._waiting.remove(block)
                self._changed.notify_all()
            self._cancel_timer()
            if not self._open:
                block.keys = None
            self._running.append(block)

    def _may_begin(self, block: _Block) -> bool:
        earlier = self._waiting[: self._waiting.index(block)]
        ready = [other for other in earlier if not any(map(other.conflicts, self._running))]
        return (
            not self._closing
            and len(self._running) + len(ready) < _MAX_RUNNING
            and not any(map(block.conflicts, (*self._running, *earlier)))
        )

    def _take(self) -> _C:
        """Take a connection that no other block uses."""
        if not self._idle:
            self._open.append(self._stack.enter_context(self._duplicate(self._open[0])))
            return self._open[-1]
        return self._idle.pop()

    def _end(self, block: _Block, *, finished: bool) -> None:
        with self._changed:
            self._running.remove(block)
            old = monotonic() - self._opened_at >= self.max_lifetime
            if not finished or (old and self._has_waiters()):
                self._closing = True
            try:
                if not self._running:
                    (self._disconnect if self._closing else self._disconnect_later)()
            finally:
                self._changed.notify_all()

    def close(self) -> None:
        """Close the connection, or let the thread that uses the connection close it; end the timer's thread.

        In a forked child nothing is closed: the connection is the parent's.
        """
        if self._owner != os.getpid():
            return
        with self._changed:
            if self._running:
                return  # the last block starts a timer, or closes it
            timer = self._cancel_timer()
            self._disconnect()
        if timer is not None:
            timer.join()  # without the lock, for which the timer's thread may wait

    def _cancel_timer(self) -> Timer | None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        return timer

    def _disconnect_later(self) -> None:
        timer = Timer(self.max_idle, self._disconnect_idle)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # too many threads, or the interpreter is about to end
            self._disconnect()
        else:
            self._timer = timer

    def _disconnect_idle(self) -> None:
        with self._changed:  # on the timer's thread: a block may have begun meanwhile
            if not self._running:
                self._disconnect()

    def _disconnect(self) -> None:
        self._open.clear()
        self._idle.clear()
        self._closing = False
        self._stack.close()
