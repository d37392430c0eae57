"""What the command line writes to the two streams."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from marketfetch.errors import MarketfetchError
from marketfetch.redaction import redact

__all__ = ["StdoutClosed", "print_error", "stdout_errors", "write_stdout"]


class StdoutClosed(MarketfetchError):
    """Standard output did not take what was to be said. The message is empty where its reader has left."""


@contextmanager
def stdout_errors() -> Iterator[None]:
    """Raise Unheard where standard output fails in the block, and keep it from failing again."""
    try:
        yield
        sys.stdout.flush()  # whether the reader has left is learnt now, not when the process exits
    except OSError as error:
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        gone = isinstance(error, BrokenPipeError)
        raise StdoutClosed("" if gone else f"standard output cannot be written: {error.strerror}") from error


def write_stdout(json: bytes) -> None:
    """Write JSON to standard output: in UTF-8, whatever the locale says."""
    with stdout_errors():
        sys.stdout.flush()
        sys.stdout.buffer.write(json + b"\n")


def print_error(message: str) -> None:
    """Write what is wrong to standard error: one line, without credentials, whatever it was made of."""
    with suppress(OSError):  # nobody is there to read it
        sys.stderr.write(f"marketfetch: {redact(' '.join(message.split()))}\n")
        sys.stderr.flush()
