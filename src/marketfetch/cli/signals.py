"""SIGINT and SIGTERM, heard on a thread of its own: they end the process whatever the main thread does."""

from __future__ import annotations

import atexit
import os
import signal
from _thread import interrupt_main
from collections.abc import Callable
from functools import partial
from threading import Event, Lock, Thread, current_thread, main_thread
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["SignalHandler"]

_KINDS = (signal.SIGINT, signal.SIGTERM)

_GRACE = 3.0
"""Seconds to end in order: a store may be amidst a transaction."""

_FORCED_EXIT_GRACE = 1.5
"""Seconds to tell what there is to tell then; whoever reads it may have stopped reading."""


class SignalHandler:
    """Hears SIGINT and SIGTERM while it is entered; what they do depends on the phase the program is in.

    In the first phase there is nothing to tidy up, and the process ends at once. A process that does not end
    within three seconds of the first signal is ended with exit code 1, also when it has left this context
    already, and a thread of it hangs. Further signals change nothing. `whole_process` says that nothing else
    happens in this process afterwards, so that signals need not be given back.

    Left to itself, Python would note a signal and wait until the main thread comes back from foreign code;
    then it would raise KeyboardInterrupt at whatever line that is, in the middle of an import for one.

    >>> with SignalHandler() as signals:
    ...     print(signals.received)
    None
    """

    def __init__(self, *, whole_process: bool = False) -> None:
        self._whole_process = whole_process
        self.received: str | None = None
        """The name of the first signal."""
        self.code = 1
        """The exit code of the process, for a signal that comes when everything is done."""
        self._lock = Lock()
        self._react: Callable[[], object] = self._leave
        self._give_up: Callable[[], object] = _nothing
        self._raises = False
        self._over = Event()
        self._listener: Thread | None = None
        self._ear, self._mouth, self._wakeup = -1, -1, -1
        self._before: dict[signal.Signals, Any] = {}

    def cancel(self, react: Callable[[], object], give_up: Callable[[], object]) -> None:
        """Begin a phase in which a signal calls `react`, on a thread to the side.

        Where it does not end within three seconds, `give_up` may say a last word before the process is ended.
        """
        self._begin(react, give_up)
        if self.received:
            react()

    def interrupt(self) -> None:
        """Begin a phase in which a signal raises KeyboardInterrupt in the main thread, once."""
        # Asked for twice, by Python and by the thread: a signal may come just as the phase begins.
        self._begin(interrupt_main, _nothing, raises=True)

    def finish(self) -> None:
        """Begin the last phase: what there is to say is said to the end."""
        self._begin(_nothing, _nothing)

    def _begin(
        self, react: Callable[[], object], give_up: Callable[[], object], *, raises: bool = False
    ) -> None:
        with self._lock:
            self._react, self._give_up, self._raises = react, give_up, raises

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Do what is to be done in the main thread."""
        if self._raises:
            self._raises = False  # what tidies up is not to be interrupted
            self._receive(number)  # the thread that listens may be later
            raise KeyboardInterrupt

    def _listen(self) -> None:
        number = os.read(self._ear, 1)[0]
        if not number:
            return
        try:
            with self._lock:
                self._receive(number)
                self._react()
        finally:  # the process ends, even if what was to stop it fails
            self._end_in_time()

    def _receive(self, number: int) -> None:
        self.received = self.received or signal.Signals(number).name

    def _end_in_time(self) -> None:
        if self._over.wait(_GRACE):
            return
        with self._lock:  # no other phase begins any more
            last_words = Thread(target=self._give_up, daemon=True)
            last_words.start()
            last_words.join(_FORCED_EXIT_GRACE)
            os._exit(1)

    def _leave(self) -> None:
        try:
            os.write(2, f"marketfetch: stopped by {self.received} before anything was sent\n".encode())
        finally:
            os._exit(1)

    def __enter__(self) -> Self:
        if current_thread() is main_thread():  # elsewhere signals are the host's affair
            self._ear, self._mouth = os.pipe()
            os.set_blocking(self._mouth, False)
            self._listener = Thread(target=self._listen, name="marketfetch-signals", daemon=True)
            self._listener.start()
            self._wakeup = signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)
            self._before = {kind: signal.signal(kind, self._note) for kind in _KINDS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()
        if self._listener is None:
            return
        if self.received:
            _ignore()
            return
        if self._whole_process:
            self._begin(partial(os._exit, self.code), _nothing)  # a thread that hangs may hold up the end
            atexit.register(_ignore)
            return
        for one, before in self._before.items():
            signal.signal(one, before)
        signal.set_wakeup_fd(self._wakeup)
        self._over.set()
        os.write(self._mouth, b"\0")
        self._listener.join()
        os.close(self._ear)
        os.close(self._mouth)


def _ignore() -> None:
    """Let signals pass: one that comes while Python shuts down would have the last word."""
    for kind in _KINDS:
        signal.signal(kind, signal.SIG_IGN)


def _nothing() -> None:
    """Let it pass."""
