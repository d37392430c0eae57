"""What a stream can show."""

from __future__ import annotations

import os
from typing import TextIO

__all__ = ["can_be_redrawn", "has_styles"]


def can_be_redrawn(stream: TextIO) -> bool:
    """Whether lines of a stream can be drawn again; not in the log of a CI, even if it has a terminal.

    >>> import io
    >>> can_be_redrawn(io.StringIO())
    False
    """
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


def has_styles(stream: TextIO) -> bool:
    """Whether a stream shows bold text, and its user did not say NO_COLOR.

    >>> import io
    >>> has_styles(io.StringIO())
    False
    """
    return can_be_redrawn(stream) and not os.environ.get("NO_COLOR")
