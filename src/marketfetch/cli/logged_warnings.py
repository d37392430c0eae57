"""Warnings of the log, printed by commands that send requests.

Example: rate limits are not shared with other processes, because the home cannot be written.
"""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from marketfetch.cli.output import print_error
from marketfetch.listeners.background import BackgroundQueue

__all__ = ["printing_warnings"]


class _Printer(logging.Handler):
    def __init__(self, queue: BackgroundQueue[str]) -> None:
        super().__init__(logging.WARNING)
        self._queue = queue

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the message of a record: the event loop must not wait for standard error."""
        self._queue.submit(record.getMessage())


@contextmanager
def printing_warnings(arguments: Namespace) -> Iterator[None]:
    """Print what is logged as a warning in the block, as errors are printed; with --verbose the log has it.

    On a terminal this waits for the end of the block: a line amid the live display would be wiped with it.
    """
    if getattr(arguments, "verbose", False):
        yield
        return
    queue, is_terminal = BackgroundQueue(print_error), sys.stderr.isatty()
    logger, printer = logging.getLogger("marketfetch"), _Printer(queue)
    logger.addHandler(printer)
    try:
        with nullcontext() if is_terminal else queue:
            yield
    finally:
        logger.removeHandler(printer)
        if is_terminal:
            with queue:
                pass  # entering starts to print, leaving waits until all is printed
