"""What differs between operating systems, where neither Python nor a library hides it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import TypeVar

__all__ = ["command_text", "is_open_elsewhere", "retry_while_open_elsewhere"]

_T = TypeVar("_T")
_OPEN_ELSEWHERE_CODES = frozenset({5, 32, 33})
"""Access denied, sharing violation, lock violation: the codes of Windows for a file that is open."""
_OPEN_FILE_TIMEOUT = 2.0
"""Seconds for which a change is tried again: virus scanners and readers have a file open for a moment."""
_POLL = 0.02


def is_open_elsewhere(error: OSError) -> bool:
    """Tell whether another program may have the file open, so that Windows neither replaces nor removes it.

    Windows has one code for this and for a missing right. Other systems replace and remove open files.
    """
    return getattr(error, "winerror", None) in _OPEN_ELSEWHERE_CODES


def retry_while_open_elsewhere(change: Callable[[], _T]) -> _T:
    """Call `change`, which replaces or removes a file; repeat it for two seconds while `is_open_elsewhere`.

    >>> retry_while_open_elsewhere(lambda: "done")
    'done'
    """
    give_up = monotonic() + _OPEN_FILE_TIMEOUT
    while True:
        try:
            return change()
        except OSError as error:
            if not is_open_elsewhere(error) or monotonic() > give_up:
                raise
        sleep(_POLL)


def command_text(words: Sequence[str], system: str = sys.platform) -> str:
    r"""Write a command as it is typed into the shell of this system.

    >>> command_text(["forget", "--to", r"parquet:C:\my data"], "win32")
    'forget --to "parquet:C:\\my data"'
    >>> command_text(["forget", "--to", "parquet:/my data"], "linux")
    "forget --to 'parquet:/my data'"
    """
    if system != "win32":
        return shlex.join(words)
    from subprocess import list2cmdline  # not at the top: other systems never need it

    return list2cmdline(words)
