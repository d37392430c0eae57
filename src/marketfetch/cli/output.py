"""Output of the command line on standard output and standard error."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from marketfetch.errors import MarketfetchError
from marketfetch.listeners.terminals import has_styles
from marketfetch.redaction import printable, redact

if TYPE_CHECKING:
    from marketfetch.cli.documents import Document

__all__ = [
    "StdoutClosed",
    "print_document",
    "print_error",
    "print_result",
    "stdout_errors",
    "write_stdout",
]


class StdoutClosed(MarketfetchError):
    """Standard output cannot be written. The message is empty if the reader of a pipe has closed it."""


@contextmanager
def stdout_errors() -> Iterator[None]:
    """Raise StdoutClosed if standard output fails in the block, and send later output to /dev/null."""
    try:
        yield
        sys.stdout.flush()  # a closed pipe raises here, not when the process exits
    except OSError as error:
        # Otherwise Python would print another error when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # Windows says EINVAL of a pipe that its reader has closed.
        closed = error.errno in {errno.EPIPE, errno.EINVAL}
        raise StdoutClosed(
            "" if closed else f"standard output cannot be written: {error.strerror}"
        ) from error


def write_stdout(json: bytes) -> None:
    """Write JSON to standard output, in UTF-8 with any locale."""
    with stdout_errors():
        sys.stdout.flush()
        sys.stdout.buffer.write(json + b"\n")


def print_error(message: str) -> None:
    """Write an error message to standard error, in one line, without credentials or control characters."""
    with suppress(OSError, ValueError):  # standard error is closed; the exit code tells the rest
        sys.stderr.write(f"marketfetch: {printable(redact(' '.join(message.split())))}\n")
        sys.stderr.flush()


def print_result(arguments: Namespace, plain: object, page: Callable[[], Document]) -> None:
    """Print plain values as JSON with --json, else a page for people."""
    if arguments.json:
        import msgspec

        write_stdout(msgspec.json.encode(plain))
    else:
        with stdout_errors():
            print_document(page(), sys.stdout)


def print_document(page: Document, stream: TextIO) -> None:
    """Write a document to a stream; on a terminal as wide as it is, with titles in bold."""
    from marketfetch.cli.documents import to_text

    if stream.isatty():
        text = to_text(page, shutil.get_terminal_size().columns, _bold if has_styles(stream) else str)
    else:
        text = to_text(page)
    stream.write(text)
    stream.flush()


def _bold(text: str) -> str:
    # No colour: yellow, cyan and green cannot be read on a light background.
    return f"\x1b[1m{text}\x1b[0m"
