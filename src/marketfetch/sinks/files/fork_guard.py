"""Database files that a fork must not carry into a child process.

A forked child does not have the threads of DuckDB, and has a stale copy of SQLite's locks in memory. If the
child uses a file that its parent had open at the fork, the child crashes, waits for ever, or reads while
another process writes. So each process records which files it has open, and a child refuses these files.
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
    "this process was forked while its parent had the file open, and the database cannot be used in both; "
    "start processes with multiprocessing.get_context('spawn'), or fork before the parent opens the file"
)


@attrs.define(eq=False)
class OpenFiles:
    """The database files that this process has open, and those that its parent had open when it was forked.

    No lock guards the record: a fork may come while another thread holds the lock, and the child would wait
    for ever. Each change is one operation on a dictionary, which is atomic.

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
        """Note that this process has a file open while the block runs; raises as `refuse_inherited`."""
        self.refuse_inherited(path)
        connection = object()
        self._open[connection] = os.path.realpath(path)
        try:
            yield
        finally:
            self._open.pop(connection, None)  # in a forked child it is gone already

    def refuse_inherited(self, path: Path) -> None:
        """Raise SinkError for a file that the parent of this process had open when it was forked."""
        if os.path.realpath(path) in self._inherited:
            raise SinkError(f"{path}: {INHERITED}")

    def fork(self) -> None:
        """Count every open file as inherited; runs in a forked child."""
        self._inherited |= frozenset(self._open.values())
        self._open = {}


OPEN_FILES = OpenFiles()
"""The record of this process. Module-level, since SQLite and DuckDB keep their state per process, too."""

if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=OPEN_FILES.fork)
