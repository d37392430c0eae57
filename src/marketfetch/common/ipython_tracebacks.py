"""Short tracebacks in notebooks: the lines of the caller, and the message."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any

from marketfetch.common.callers import is_own_frame

__all__ = ["short_in_ipython"]


@contextmanager
def short_in_ipython(*kinds: type[BaseException]) -> Iterator[None]:
    """Let IPython show errors of these kinds without the frames of marketfetch and of what it calls.

    The traceback itself is left whole, for logs and for `%debug`.

    >>> with short_in_ipython(KeyError):
    ...     raise KeyError("unknown")
    Traceback (most recent call last):
    KeyError: 'unknown'
    """
    try:
        yield
    except kinds as error:
        if "IPython" in sys.modules:
            vars(error)["_render_traceback_"] = partial(_rendered, error)  # IPython calls it
        raise


def _rendered(error: BaseException) -> list[str]:
    """Return the lines that IPython shows."""
    kept = list(_frames_of_caller(error.__traceback__))
    trace: TracebackType | None = None
    for each in reversed(kept):
        trace = TracebackType(trace, each.tb_frame, each.tb_lasti, each.tb_lineno)
    formatter: Any = sys.modules["IPython"].get_ipython().InteractiveTB
    cause, hidden = error.__cause__, error.__suppress_context__
    error.__cause__ = None  # the message has what the cause says; this hides the context, too
    try:
        lines: list[str] = formatter.structured_traceback(type(error), error, trace)
    finally:
        error.__cause__, error.__suppress_context__ = cause, hidden
    return lines


def _frames_of_caller(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        if is_own_frame(trace.tb_frame):
            return
        yield trace
        trace = trace.tb_next
