"""SIGINT and SIGTERM, handled on a thread: they end the process whatever the main thread is doing."""

from __future__ import annotations

import atexit
import os
import signal
from _thread import interrupt_main
from collections.abc import Callable
from functools import partial
from threading import Event, Lock, Thread, current_thread, main_thread
from types import FrameType
from typing import Any, NamedTuple, Self

__all__ = ["SignalHandler"]

_KINDS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
"""Ctrl-C, the request of a service manager to end, and Ctrl-Break, which only Windows has."""

_EXIT_TIMEOUT = 3.0
"""Seconds from the first signal until the process is ended: a store may be in a transaction."""

_GIVE_UP_TIMEOUT = 1.5
"""Seconds for `give_up` after that: the reader of its output may have stopped reading."""


def _ignore_signal() -> None:
    """Ignore the signal."""


class _Phase(NamedTuple):  # not an attrs class: this module is imported before the handler is in place
    """The reaction to a signal in one part of the program."""

    react: Callable[[], object] = _ignore_signal
    give_up: Callable[[], object] = _ignore_signal


class SignalHandler:
    """Handles SIGINT and SIGTERM while it is entered, according to the phase of the program.

    1. At first nothing has begun, and a signal ends the process at once.
    2. After `begin_cancellable` a signal cancels the run, which then reports what was done.
    3. After `begin_interruptible` a signal raises KeyboardInterrupt in the main thread.
    4. After `begin_final_phase` a signal does nothing, so the output is written to the end.

    In the phases 2 to 4 a process that has not ended three seconds after the first signal is ended with exit
    code 1, also after this context was left: a thread may hang. Further signals change nothing.
    `whole_process` is True if nothing else runs in this process afterwards: signals are then ignored while
    Python shuts down.

    Without a thread, Python would handle a signal only when the main thread returns from foreign code, and
    would raise KeyboardInterrupt at any line, for example in the middle of an import.

    >>> with SignalHandler() as signals:
    ...     print(signals.received)
    None
    """

    def __init__(self, *, whole_process: bool = False) -> None:
        self.whole_process = whole_process
        self.received: str | None = None
        """The name of the first signal."""
        self.code = 1
        """The exit code of the process, for a signal that comes when everything is done."""
        self._lock = Lock()
        self._phase = _Phase(self._exit_at_once)
        self._raises = False
        self._left = Event()
        self._listener: Thread | None = None
        self._wakeup_read, self._wakeup_write, self._previous_wakeup = -1, -1, -1
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def begin_cancellable(self, react: Callable[[], object], give_up: Callable[[], object]) -> None:
        """Begin a phase in which a signal calls `react` on the listening thread.

        If the process does not end within three seconds, `give_up` is called before it is ended.
        """
        self._begin(_Phase(react, give_up))
        if self.received:
            react()

    def begin_interruptible(self) -> None:
        """Begin a phase in which a signal raises KeyboardInterrupt in the main thread, once."""
        # By Python's handler and by the thread: the signal may come just as the phase begins.
        self._begin(_Phase(interrupt_main), raises=True)

    def begin_final_phase(self) -> None:
        """Begin the last phase: a signal does not interrupt the output."""
        self._begin(_Phase())

    def _begin(self, phase: _Phase, *, raises: bool = False) -> None:
        with self._lock:
            self._phase, self._raises = phase, raises

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Do the part of the main thread; Python calls it between two lines."""
        if self._raises:
            self._raises = False  # a second signal must not interrupt the cleanup
            self._receive(number)  # the listening thread may be later
            raise KeyboardInterrupt

    def _listen(self) -> None:
        """Wait for the first signal on the listening thread; a zero byte ends the wait."""
        number = os.read(self._wakeup_read, 1)[0]
        if not number:
            return
        try:
            with self._lock:
                self._receive(number)
                self._phase.react()
        finally:  # the process is ended, even if `react` fails
            self._end_in_time()

    def _receive(self, number: int) -> None:
        self.received = self.received or signal.Signals(number).name

    def _end_in_time(self) -> None:
        if self._left.wait(_EXIT_TIMEOUT):
            return
        with self._lock:  # no other phase begins any more
            last = Thread(target=self._phase.give_up, daemon=True)
            last.start()
            last.join(_GIVE_UP_TIMEOUT)
            os._exit(1)

    def _exit_at_once(self) -> None:
        try:
            os.write(2, f"marketfetch: stopped by {self.received} before anything was sent\n".encode())
        finally:
            os._exit(1)

    def __enter__(self) -> Self:
        if current_thread() is main_thread():  # on other threads signals are left to the program
            self._wakeup_read, self._wakeup_write = os.pipe()
            if hasattr(os, "set_blocking"):  # Windows has it from Python 3.12 on, and does not insist
                os.set_blocking(self._wakeup_write, False)
            self._listener = Thread(target=self._listen, name="marketfetch-signals", daemon=True)
            self._listener.start()
            self._previous_wakeup = signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
            self._previous_handlers = {kind: signal.signal(kind, self._handle) for kind in _KINDS}
        return self

    def __exit__(self, *_: object) -> None:
        self.begin_final_phase()
        if self._listener is None:
            return
        if self.received:  # the listening thread still ends the process in time
            _ignore_signals()
            return
        if self.whole_process:
            self._begin(_Phase(partial(os._exit, self.code)))  # a thread that hangs may delay the end
            atexit.register(_ignore_signals)
            return
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_wakeup)
        self._left.set()
        os.write(self._wakeup_write, b"\0")
        self._listener.join()
        os.close(self._wakeup_read)
        os.close(self._wakeup_write)


def _ignore_signals() -> None:
    """Ignore signals: while Python shuts down, a signal would change the exit code."""
    for kind in _KINDS:
        signal.signal(kind, signal.SIG_IGN)
