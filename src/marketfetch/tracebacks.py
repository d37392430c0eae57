"""Short tracebacks in notebooks: the lines of the caller, and the message."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType, TracebackType
from typing import Any

__all__ = ["is_own_frame", "short_interrupts", "short_traceback"]


def is_own_frame(frame: FrameType) -> bool:
    """Return whether the code of a frame is in a module of marketfetch."""
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "marketfetch"


@contextmanager
def short_interrupts() -> Iterator[None]:
    """Let IPython show a KeyboardInterrupt without the frames of marketfetch and of what it calls."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        vars(interrupt)["_render_traceback_"] = partial(short_traceback, interrupt)  # IPython calls it
        raise


def short_traceback(error: BaseException) -> list[str]:
    """Return the lines that IPython shows: those of the caller, and the message.

    The traceback itself is left whole, for logs and for `%debug`.
    """
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
