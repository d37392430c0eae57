"""The standard streams of the command line, as they have to be before anything is done."""

from __future__ import annotations

import os
import sys

__all__ = ["ensure_std_streams"]


def ensure_std_streams() -> None:
    """See to it that all three are open, and that no character is too much for them."""
    # Any file opened later would take a number below three that is free, and get what is printed.
    while (lowest := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(lowest)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
