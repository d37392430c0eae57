"""Database files that a fork must not carry into a child process.

DuckDB works with threads, which a forked child does not have, and SQLite keeps its locks in memory that the
child has a stale copy of. A child that touches a file which its parent had open at the moment of the fork
crashes, waits for ever or reads while another process writes. So each process knows which files it has open,
and a child refuses those that it has inherited.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from marketfetch.errors import SinkError

__all__ = ["INHERITED", "OPEN_FILES", "OpenFiles"]

INHERITED = (
    "this process was forked while its parent had the file open, which the database does not survive; start "
    "processes with multiprocessing.get_context('spawn'), or before the parent begins to fetch"
)


@attrs.define(eq=False)
class OpenFiles:
    """The database files that this process has open, and those that its parent had open when it was forked.

    No lock guards it: a fork may come while another thread holds the lock, and the child would wait for ever.
    Each change is one operation on a dictionary, which threads cannot divide.

    >>> files = OpenFiles()
    >>> with files.opened(Path("market.duckdb")):
    ...     files.fork()
    >>> files.refuse_inherited(Path("market.duckdb"))
    Traceback (most recent call last):
    marketfetch.errors.SinkError: market.duckdb: this process was forked while its parent had the file open...
    """

    _open: dict[object, str] = attrs.field(factory=dict, init=False)
    _inherited: frozenset[str] = attrs.field(default=frozenset(), init=False)

    @contextmanager
    def opened(self, path: Path) -> Iterator[None]:
        """Note that this process has a file open while the block runs."""
        connection = object()
        self._open[connection] = os.path.realpath(path)
        try:
            yield
        finally:
            self._open.pop(connection, None)  # it is not there any more in a child

    def refuse_inherited(self, path: Path) -> None:
        """Raise SinkError for a file that the parent of this process had open when it was forked."""
        if os.path.realpath(path) in self._inherited:
            raise SinkError(f"{path}: {INHERITED}")

    def fork(self) -> None:
        """Begin anew in a forked child; everything that was open is inherited."""
        self._inherited |= frozenset(self._open.values())
        self._open = {}


OPEN_FILES = OpenFiles()
"""Those of this process. SQLite and DuckDB keep the like for each process, too; a child gets its own."""

if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=OPEN_FILES.fork)
