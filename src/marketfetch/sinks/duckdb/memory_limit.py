"""How much DuckDB may keep in memory for a file: one number for all connections of a process to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import duckdb

__all__ = ["MemoryLimit"]

_SMALL = "16.0 MiB"
"""What DuckDB may keep in memory while batches are written: enough for one, not for those before it."""

_UNITS = {"bytes": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40, "PiB": 2.0**50}


@attrs.define(eq=False)
class MemoryLimit:
    """The limit that our connections to a file share, also with connections that are not ours.

    What it was before the first of ours is set again after the last.
    """

    _lock: Lock = attrs.field(factory=Lock, init=False)
    _users: int = attrs.field(default=0, init=False)
    _before: str = attrs.field(default="", init=False)
    _allowed: str = attrs.field(default=_SMALL, init=False)

    @contextmanager
    def applied(self, connection: duckdb.DuckDBPyConnection, limit: str) -> Iterator[None]:
        """Have a limit for the block; raises duckdb.Error if it is none that DuckDB could take."""
        import duckdb

        with self._lock:
            if not self._users:
                self._before = _limit(connection)
            self._users += 1
        try:
            # Not in connect(): a file that this process has open already takes no other configuration.
            connection.execute("SET memory_limit = ?", [limit])
            self._allowed = _limit(connection)
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    with suppress(duckdb.Error):  # others have filled more than that meanwhile
                        connection.execute("SET memory_limit = ?", [_again(self._before)])

    def shrink(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Let DuckDB make do with what one batch needs, or with less where no more is allowed."""
        import duckdb

        lean = min(self._allowed, _SMALL, key=_size)
        with suppress(duckdb.Error):  # somebody else is at work just now, and needs it
            # Not each time: setting it gives back to the system what the batch needs again.
            if _limit(connection) != lean:
                connection.execute("SET memory_limit = ?", [lean])


def _limit(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the limit in the words of DuckDB, such as `9.5 MiB`: it tells no more digits."""
    ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    return str(limit)


def _size(limit: str) -> float:
    number, unit = limit.split()
    return float(number) * _UNITS[unit]


def _again(limit: str) -> str:
    """Write a limit that DuckDB told so that it tells the same again: digits are cut off, not rounded."""
    number, unit = limit.split()
    if unit == "PiB":
        return "-1"  # which is how a limit that is none is set, and DuckDB does not read the unit
    return f"{float(number) + 0.05:.2f} {unit}"
