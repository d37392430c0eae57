"""What the command line writes to standard output and standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from marketfetch.errors import MarketfetchError
from marketfetch.redaction import redact

if TYPE_CHECKING:
    from marketfetch.cli.documents import Document

__all__ = [
    "StdoutClosed",
    "ensure_std_streams",
    "print_document",
    "print_error",
    "stdout_errors",
    "write_stdout",
]


class StdoutClosed(MarketfetchError):
    """Standard output did not take what was to be said. The message is empty where its reader has left."""


@contextmanager
def stdout_errors() -> Iterator[None]:
    """Raise StdoutClosed where standard output fails in the block, and keep it from failing again."""
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


def print_document(page: Document, stream: TextIO) -> None:
    """Write a document to a stream: in colour on a terminal if rich is installed, else as plain text."""
    if stream.isatty():
        try:
            from marketfetch.cli.rich_view import draw_document
        except ImportError:
            pass  # rich is an extra
        else:
            draw_document(page, stream)
            return
    from marketfetch.cli.documents import to_text

    stream.write(to_text(page))
    stream.flush()


def ensure_std_streams() -> None:
    """Open whichever of the three standard streams is closed, and let them write any character."""
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
