"""The two streams of the command line."""

from __future__ import annotations

import sys

from marketfetch.values.redaction import redact

__all__ = ["complain", "say"]


def say(text: str) -> None:
    """Write what was asked for to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()  # whether the reader has left is learnt now, not when the process exits


def complain(message: str) -> None:
    """Write what is wrong to standard error: one line, without credentials, whatever it was made of."""
    sys.stderr.write(f"marketfetch: {redact(' '.join(message.split()))}\n")
