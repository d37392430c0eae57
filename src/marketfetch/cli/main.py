"""The command line: `marketfetch COMMAND`.

    0  everything that was requested is covered
    1  something is missing or wrong, and the report says what; or a signal stopped the command
    2  the call was wrong, and nothing was sent

The report goes to standard output, all other text to standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# Until SignalHandler is entered, Ctrl-C ends the program with a traceback: this is the only import of ours.
from marketfetch.cli.signals import SignalHandler

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: `sys.argv[1:]`); return the exit code.

    >>> main(["coverage", "--to", "nowhere:market"])
    2
    """
    _ensure_std_streams()
    # Arrow's own allocator would keep tens of megabytes that it does not need.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    with SignalHandler(whole_process=argv is None) as signals:
        # Imported inside SignalHandler: this takes a while, and a signal must not cause a traceback.
        from marketfetch.cli.dispatch import dispatch

        signals.code = dispatch(argv, signals)
        return signals.code


def _ensure_std_streams() -> None:
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
