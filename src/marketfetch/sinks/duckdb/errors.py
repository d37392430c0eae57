"""What DuckDB's errors mean, and what to do about each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from marketfetch.common.local_resources import exhausted
from marketfetch.errors import RowsRefused, SinkError, SinkUnavailable
from marketfetch.sinks.duckdb.connect import locked_by_other_process, open_otherwise

if TYPE_CHECKING:
    import duckdb

__all__ = ["Opened", "OutOfMemory", "explained"]

# DuckDB has one kind of error for many causes: a commit that finds no room is a conflict by its kind.
_FULL = ("No space left on device", "File too large", "Disk quota exceeded")
_DAMAGED = ("not a valid DuckDB database file", "Could not read enough bytes", "Corrupt database file")


class OutOfMemory(SinkUnavailable):
    """DuckDB may use too little memory for what it has to do, or others of this process have it just now."""


@attrs.frozen
class Opened:
    """What a message says of a file: its limit of memory, who else reads it, and the key of its rows."""

    path: Path
    memory_limit: str
    readers: int = 0
    """How many connections of this process read it now, which cannot write."""
    key: tuple[str, ...] = ()
    """The columns that tell rows of a mapped table apart."""


def explained(error: duckdb.Error, file: Opened) -> SinkError:  # noqa: C901, PLR0912  # one case a cause
    """Return the error to raise instead of one of DuckDB's."""
    import duckdb

    said = f"{file.path}: {' '.join(str(error).split())}"
    match error:
        case duckdb.Error() if isinstance(error, duckdb.OutOfMemoryException) or _starved(said):
            return OutOfMemory(f"{said}; raise memory_limit= from {file.memory_limit}")
        case duckdb.Error() if any(phrase in said for phrase in _FULL):
            return SinkError(f"{said}; make room on the disk, then run again")
        case duckdb.Error() if any(phrase in said for phrase in _DAMAGED):
            return SinkError(f"{said}; restore it from a copy, or name another file")
        case duckdb.TransactionException():
            return SinkUnavailable(f"{said}; another connection wrote the same series: write again")
        case duckdb.ConstraintException() if _of_a_key(said, file.key):
            # Two connections added the same series; a table of another key says it every time.
            return SinkUnavailable(f"{said}; write again, or give your table the key of the mapping")
        case duckdb.ConstraintException() | duckdb.ConversionException() | duckdb.OutOfRangeException():
            return RowsRefused(
                f"{said}; drop the constraint or widen the column, so that it takes what the exchange says"
            )
        case duckdb.CatalogException() if "pandas_scan" in said:  # every connect() puts it there anew
            return SinkUnavailable(f"{said}; another connection was just being opened: write again")
        case duckdb.ConnectionException() if open_otherwise(error) and file.readers:
            return SinkUnavailable(f"{file.path}: another run of this process reads it: write again")
        case duckdb.ConnectionException() if open_otherwise(error):
            return SinkError(
                f"{file.path}: this process has the file open with other settings, such as read_only=True; "
                "close that connection, then run again"
            )
        case duckdb.IOException() if "sqlite_scanner" in said:  # what DuckDB would read it with
            return SinkError(f"{file.path} is an SQLite file; write sqlite:{file.path}")
        case duckdb.IOException() if os.path.isdir(file.path):  # noqa: PTH112  # see places
            return SinkError(f"{file.path} is a folder; name a file in it")
        case duckdb.IOException() if locked_by_other_process(error):
            return SinkUnavailable(f"{said}; one process at a time has the file: end the other one, or wait")
        case duckdb.IOException():
            lacking = exhausted(None, said)
            remedy = lacking or "make the file and its folder writable, or name another file"
            return (SinkUnavailable if lacking else SinkError)(f"{said}; {remedy}")
        case duckdb.CatalogException():
            return SinkError(f"{said}; call prepare() first, it makes what is missing")
        case _:
            return SinkError(f"{said}; mend what DuckDB names, then run again")


def _of_a_key(said: str, key: tuple[str, ...]) -> bool:
    """Tell a duplicate in the key of a table, which two connections may make at once, from others."""
    return "Duplicate key" in said and any(
        f'"{name}: ' in said for name in ("id", "series_id", "target", *key)
    )


def _starved(said: str) -> bool:
    """Tell a lack of memory from what a commit, or a scan, says of it under another name."""
    return "failed to pin" in said or "could not allocate" in said
