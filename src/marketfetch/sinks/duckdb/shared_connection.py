"""Taking turns with other processes on a file that only one of them can have open."""

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
    """A connection that is opened when it is used, and closed between two uses: others want the file, too.

    It is kept open from one use to the next, since opening costs more than most uses. It is closed where
    nobody uses it for `idle` seconds, after a use that fails, and after one that ends `turn` seconds or more
    after it was opened while the file is `wanted` by others.

    Threads of this process take turns on the connection itself. `connect` is told the moment of `monotonic`
    until which it may wait: what was waited for a thread is not waited for other processes once more.

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
    _lock: Lock = attrs.field(factory=Lock, init=False)
    _stack: ExitStack = attrs.field(factory=ExitStack, init=False)
    _open: list[_C] = attrs.field(factory=list, init=False)
    _since: float = attrs.field(default=0.0, init=False)
    _timer: Timer | None = attrs.field(default=None, init=False)
    _owner: int = attrs.field(factory=os.getpid, init=False)

    @contextmanager
    def connection(self) -> Iterator[_C]:
        """Have the connection for the block; raises what opening it raises.

        Raises SinkUnavailable where another thread has it for seconds, and SinkError in a forked child.
        """
        if self._owner != os.getpid():
            raise SinkError(f"{self._name}: {INHERITED}")
        give_up = monotonic() + LOCK_TIMEOUT
        if not self._lock.acquire(timeout=LOCK_TIMEOUT):
            raise SinkUnavailable(
                f"{self._name}: another run of this process is at work in it for long: end it, or wait"
            )
        try:
            self._forget_timer()
            if not self._open:
                self._open.append(self._stack.enter_context(self._connect(give_up)))
                self._since = monotonic()
            finished = False
            try:
                yield self._open[0]
                finished = True
            finally:
                if not finished or (monotonic() - self._since >= self.max_lifetime and self._has_waiters()):
                    self._let_go()
                else:
                    self._timer = Timer(self.max_idle, self._rest)
                    self._timer.daemon = True
                    self._timer.start()
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connection; no thread is left. Whoever is still at work with it closes it afterwards.

        In a forked child nothing is closed: the connection is the parent's.
        """
        if self._owner != os.getpid():
            return
        if not self._lock.acquire(timeout=self.max_idle):
            return
        try:
            timer = self._forget_timer()
            self._let_go()
        finally:
            self._lock.release()
        if timer is not None:
            timer.join()

    def _forget_timer(self) -> Timer | None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        return timer

    def _rest(self) -> None:
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        self._open.clear()
        self._stack.close()
