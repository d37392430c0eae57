"""Call a store from blocking code, and wait visibly while another program holds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import sleep
from typing import TypeVar
from warnings import warn

from marketfetch.common.callers import caller_stacklevel
from marketfetch.common.ipython_tracebacks import short_interrupts
from marketfetch.engine.blocking import retry_while_unavailable
from marketfetch.events import Event, Listener, WaitingForStore
from marketfetch.listeners.text import describe_event
from marketfetch.ratelimit.backoff import retry_waits
from marketfetch.values.settings import RetryPolicy

__all__ = ["call_store", "listeners_of_call", "warn_of_wait", "with_listeners"]

_T = TypeVar("_T")


def warn_of_wait(event: Event) -> None:
    """Warn that another program holds the store: else the call would seem to hang."""
    if isinstance(event, WaitingForStore):
        warn(describe_event(event), RuntimeWarning, stacklevel=caller_stacklevel())


def call_store(work: Callable[[], _T], retries: RetryPolicy) -> _T:
    """Call `work`, and again while it raises SinkUnavailable; each wait gives a RuntimeWarning.

    Raises the SinkUnavailable of the last attempt, and any other error at once.

    >>> call_store(lambda: 42, RetryPolicy())
    42
    """

    def wait(event: WaitingForStore) -> None:
        warn_of_wait(event)
        sleep(event.wait)

    with short_interrupts():
        return retry_while_unavailable(work, retry_waits(retries), wait)


def listeners_of_call(given: Sequence[Listener], display: Listener | None) -> Sequence[Listener]:
    """Return the listeners of a call that ends: the given ones, warnings of waits, and its progress.

    >>> listeners_of_call([print], None) == [print, warn_of_wait]
    True
    """
    return with_listeners(given, warn_of_wait, display)


def with_listeners(given: Sequence[Listener], *more: Listener | None) -> Sequence[Listener]:
    """Return the given listeners, and those of `more` that are not None.

    >>> with_listeners([print], None, repr) == [print, repr]
    True
    """
    if not isinstance(given, list | tuple):
        return given  # the run refuses it by name
    return [*given, *(each for each in more if each is not None)]
