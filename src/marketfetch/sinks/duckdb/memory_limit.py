"""The memory limit of DuckDB for a file: one number for all connections of this process to the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import duckdb

__all__ = ["MemoryLimit"]

_SMALL = "48.0 MiB"
"""The memory limit while batches are written: room for two transactions, and none for earlier blocks."""

_UNITS = {"bytes": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40, "PiB": 2.0**50}


@attrs.define(eq=False)
class MemoryLimit:
    """The memory limit that all connections to a file share, also connections of the user's own code.

    The limit from before our first connection is set again after our last one is closed.
    """

    _lock: Lock = attrs.field(factory=Lock, init=False)
    _users: int = attrs.field(default=0, init=False)
    _before: str = attrs.field(default="", init=False)
    _allowed: str = attrs.field(default=_SMALL, init=False)

    @property
    def has_room_for_two(self) -> bool:
        """Whether the user's limit lets two transactions run side by side."""
        return _size(self._allowed) >= _size(_SMALL)

    @contextmanager
    def applied(self, connection: duckdb.DuckDBPyConnection, limit: str) -> Iterator[None]:
        """Set a limit for the block; raises duckdb.Error for one that DuckDB does not take."""
        import duckdb

        with self._lock:
            if not self._users:
                self._before = _limit(connection)
            self._users += 1
        try:
            # Not in connect(): DuckDB refuses another configuration for a file that this process has open.
            connection.execute("SET memory_limit = ?", [limit])
            self._allowed = _limit(connection)
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    with suppress(duckdb.Error):  # the blocks in memory are larger by now
                        connection.execute("SET memory_limit = ?", [_settable(self._before)])

    def restore(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Raise the limit to what the user allows."""
        connection.execute("SET memory_limit = ?", [_settable(self._allowed)])

    def shrink(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Lower the limit to what two transactions need, or to the user's limit if that is lower still."""
        import duckdb

        lowered = min(self._allowed, _SMALL, key=_size)
        with suppress(duckdb.Error):  # another connection uses more just now
            # Only where it differs: setting a limit frees memory that the next batch allocates again.
            if _limit(connection) != lowered:
                connection.execute("SET memory_limit = ?", [lowered])


def _limit(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the limit as DuckDB writes it, with one decimal place: `9.5 MiB`."""
    ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    return str(limit)


def _size(limit: str) -> float:
    number, unit = limit.split()
    return float(number) * _UNITS[unit]


def _settable(limit: str) -> str:
    """Write a limit so that DuckDB, once it is set, writes it as before: DuckDB cuts digits off."""
    number, unit = limit.split()
    if unit == "PiB":
        return "-1"  # no limit; DuckDB does not read the unit PiB
    return f"{float(number) + 0.05:.2f} {unit}"
