"""A connection pool of one, for a file that only one process at a time can have open."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Lock, Timer
from time import monotonic
from typing import Generic, TypeVar

import attrs

from marketfetch.errors import SinkError, SinkUnavailable
from marketfetch.sinks.files.atomic_files import LOCK_TIMEOUT
from marketfetch.sinks.files.fork_guard import INHERITED

__all__ = ["SharedConnection"]

_C = TypeVar("_C")


@attrs.define(eq=False)
class SharedConnection(Generic[_C]):
    """A connection pool of one: the connection is opened at its first use, and closed between two uses.

    The connection stays open from one use to the next, since opening costs more than most uses. It is closed

    1. when no thread has used it for `max_idle` seconds,
    2. after a use that raises,
    3. after a use that ends `max_lifetime` seconds or more after the opening, if `has_waiters()` says that
       another process waits for the file,
    4. after every use, where no thread can be started that would close it later.

    One thread at a time uses the connection. `connect` gets the moment of `monotonic` until which it may
    wait for other processes; the time spent on waiting for other threads counts, too.

    >>> from contextlib import nullcontext
    >>> shared = SharedConnection("a file", lambda give_up: nullcontext("connection"), lambda: False)
    >>> with shared.connection() as connection:
    ...     connection
    'connection'
    >>> shared.close()
    """

    _name: str
    _connect: Callable[[float], AbstractContextManager[_C]]
    _has_waiters: Callable[[], bool]
    max_lifetime: float = 0.25
    max_idle: float = 0.1
    # The lock protects the four fields below it. A thread holds it for as long as it uses the connection.
    _lock: Lock = attrs.field(factory=Lock, init=False)
    _stack: ExitStack = attrs.field(factory=ExitStack, init=False)
    _open: list[_C] = attrs.field(factory=list, init=False)
    _opened_at: float = attrs.field(default=0.0, init=False)
    _timer: Timer | None = attrs.field(default=None, init=False)
    _owner: int = attrs.field(factory=os.getpid, init=False)

    @contextmanager
    def connection(self) -> Iterator[_C]:
        """Lend the connection for the block; raises what opening it raises.

        Raises SinkUnavailable where another thread has the connection for seconds, and SinkError in a forked
        child.
        """
        if self._owner != os.getpid():
            raise SinkError(f"{self._name}: {INHERITED}")
        give_up = monotonic() + LOCK_TIMEOUT
        if not self._lock.acquire(timeout=LOCK_TIMEOUT):
            raise SinkUnavailable(
                f"{self._name}: another run of this process is at work in it for long: end it, or wait"
            )
        try:  # with the lock held, so that neither a timer nor another thread closes what the block uses
            self._cancel_timer()
            if not self._open:
                self._open.append(self._stack.enter_context(self._connect(give_up)))
                self._opened_at = monotonic()
            finished = False
            try:
                yield self._open[0]
                finished = True
            finally:
                old = monotonic() - self._opened_at >= self.max_lifetime
                if not finished or (old and self._has_waiters()):
                    self._disconnect()
                else:
                    self._disconnect_later()
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connection, or let the thread that uses the connection close it; end the timer's thread.

        In a forked child nothing is closed: the connection is the parent's.
        """
        if self._owner != os.getpid():
            return
        if not self._lock.acquire(timeout=self.max_idle):
            return  # its user starts a timer, or closes it
        try:  # with the lock held: the connection is in no thread's use
            timer = self._cancel_timer()
            self._disconnect()
        finally:
            self._lock.release()
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
        with self._lock:  # on the timer's thread: a block that has begun meanwhile is waited for
            self._disconnect()

    def _disconnect(self) -> None:
        self._open.clear()
        self._stack.close()
