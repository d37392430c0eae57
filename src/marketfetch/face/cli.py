"""The command line: `marketfetch backfill | coverage | demo`.

    0  everything wanted is covered
    1  something is missing, and the report says what
    2  the call was wrong, and nothing was sent

The report goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from marketfetch.errors import MarketfetchError
from marketfetch.face.output import complain

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the arguments say (default: those of the process) and return the exit code.

    >>> main(["coverage", "--to", "nowhere:market"])
    2
    """
    # This process is ours, and Arrow's own allocator would keep tens of megabytes that it does not need.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        # Not at the top: it takes half a second, in which Ctrl-C must not end in a traceback.
        from marketfetch.face.commands import perform

        return perform(argv)
    except MarketfetchError as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt:
        complain("interrupted")
        return 1
    except BrokenPipeError:
        # Whoever read the output has left; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
