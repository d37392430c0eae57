"""Dispatch of events to listeners; a listener that raises is logged and removed."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from functools import partial

from marketfetch.errors import ConfigurationError
from marketfetch.events import Event, Listener

__all__ = ["Listeners"]


class Listeners:
    """Calls every listener with each event, in the order of the list.

    A listener that raises an Exception is logged once, with its traceback, and is not called again; the run
    and the other listeners go on. KeyboardInterrupt and SystemExit are not caught. Raises ConfigurationError
    for a listener that is not callable, is asynchronous or is a class.

    >>> Listeners(print)
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: listeners: print is not a list of listeners; write [print]
    """

    def __init__(self, listeners: Iterable[Listener]) -> None:
        _check_list(listeners)
        self._listeners = tuple(listeners)
        for listener in self._listeners:
            _check(listener)

    def emit(self, event: Event) -> None:
        """Call all listeners with an event."""
        for listener in self._listeners:
            try:
                self._call(listener, event)
            except Exception:  # a listener may raise any error, and must not end the run
                self._listeners = tuple(other for other in self._listeners if other is not listener)
                logging.getLogger("marketfetch").exception(
                    "the listener %s failed; it is left out from now on, and the run goes on", _name(listener)
                )

    def _call(self, listener: Listener, event: Event) -> None:
        call: Callable[[Event], object] = listener  # its annotation says None; at run time it may differ
        result = call(event)
        if inspect.iscoroutine(result):
            result.close()  # else Python warns that it was never awaited
        if inspect.isawaitable(result) or inspect.isasyncgen(result):
            raise TypeError("it returned something to await; a listener is a plain function")


def _check_list(listeners: object) -> None:
    if not isinstance(listeners, Iterable) or isinstance(listeners, str | bytes | type):
        name = _name(listeners)
        remedy = f"write [{name}]" if callable(listeners) else "write a list of functions, or leave it out"
        raise ConfigurationError(f"listeners: {name} is not a list of listeners; {remedy}")


def _check(listener: object) -> None:
    name = _name(listener)
    if not callable(listener):
        raise ConfigurationError(f"listeners: {name} cannot be called; give functions that take an event")
    if isinstance(listener, type):
        raise ConfigurationError(f"listeners: {name} is a class; give an object of it, such as {name}()")
    if _is_asynchronous(listener):
        raise ConfigurationError(
            f"listeners: {name} is asynchronous and would never be awaited; give a plain function,"
            " which may put events into a queue for a task of yours"
        )


def _is_asynchronous(listener: object) -> bool:
    while isinstance(listener, partial):
        listener = listener.func
    method = getattr(type(listener), "__call__", None)  # noqa: B004  # its code is wanted
    checks = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    return any(check(code) for check in checks for code in (listener, method))


def _name(listener: object) -> str:
    """Name a listener without its arguments: a partial may hold the URL of a chat with its token."""
    if isinstance(listener, partial):
        return f"partial({_name(listener.func)})"
    if name := getattr(listener, "__qualname__", ""):
        return str(name)
    return repr(listener) if listener is None or isinstance(listener, int) else f"a {type(listener).__name__}"
