"""What a stream can show."""

from __future__ import annotations

import os
import sys
from typing import TextIO

__all__ = ["can_be_redrawn", "has_styles", "takes_escapes"]

_MODERN = ("TERM", "TERM_PROGRAM", "WT_SESSION", "ConEmuANSI")
"""What terminals of Windows set that know escape sequences; the old console shows them as letters."""


def can_be_redrawn(stream: TextIO) -> bool:
    """Whether lines of a stream can be drawn again; not in the log of a CI, even if it has a terminal.

    >>> import io
    >>> can_be_redrawn(io.StringIO())
    False
    """
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


def takes_escapes(stream: TextIO, system: str = sys.platform) -> bool:
    """Whether a stream is a terminal that understands escape sequences.

    >>> import io
    >>> takes_escapes(io.StringIO())
    False
    """
    return can_be_redrawn(stream) and (system != "win32" or any(map(os.environ.get, _MODERN)))


def has_styles(stream: TextIO) -> bool:
    """Whether a stream shows bold text, and its user did not say NO_COLOR.

    >>> import io
    >>> has_styles(io.StringIO())
    False
    """
    return takes_escapes(stream) and not os.environ.get("NO_COLOR")
