"""Where marketfetch was called: what is shown of a stack ends there."""

from __future__ import annotations

from inspect import currentframe
from types import FrameType

__all__ = ["caller_stacklevel", "is_own_frame"]


def is_own_frame(frame: FrameType) -> bool:
    """Return whether the code of a frame is in a module of marketfetch."""
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "marketfetch"


def caller_stacklevel() -> int:
    """Return the `stacklevel` with which `warnings.warn` names the line that has called marketfetch."""
    frame, level = currentframe(), 0
    while frame is not None and is_own_frame(frame):
        frame, level = frame.f_back, level + 1
    return level
