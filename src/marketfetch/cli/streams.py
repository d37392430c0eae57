"""The three standard streams, open whatever the caller did with them."""

from __future__ import annotations

import os
import sys

__all__ = ["ensure_std_streams"]


def ensure_std_streams() -> None:
    """Open each of the three standard streams that is closed, and let the streams write any character."""
    # A file that is opened later, such as a store, would get a free number below 3, and the output with it.
    while (lowest := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(lowest)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
