"""What DuckDB's errors mean, and what to do about each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from marketfetch.common.local_resources import resource_remedy
from marketfetch.errors import RowsRefused, SinkError, SinkUnavailable
from marketfetch.sinks.duckdb.connect import is_locked_by_other_process, is_open_with_other_settings

if TYPE_CHECKING:
    import duckdb

__all__ = ["OpenedFile", "OutOfMemory", "sink_error"]

# DuckDB has one class of error for many causes: a commit on a full disk raises TransactionException.
_FULL_DISK_PHRASES = (
    "No space left on device",
    "File too large",
    "Disk quota exceeded",
    "not enough space on the disk",
)
_DAMAGE_PHRASES = ("not a valid DuckDB database file", "Could not read enough bytes", "Corrupt database file")


class OutOfMemory(SinkUnavailable):
    """DuckDB reached its memory limit: it is too low, or other connections of this process use it up now."""


@attrs.frozen
class OpenedFile:
    """The facts about an open file that error messages state: path, memory limit, readers and key."""

    path: Path
    memory_limit: str
    readers: int = 0
    """How many read-only connections this process has to the file now."""
    key: tuple[str, ...] = ()
    """The key columns of a mapped table."""


def sink_error(error: duckdb.Error, file: OpenedFile) -> SinkError:  # noqa: C901, PLR0912  # one case a cause
    """Return the SinkError to raise for an error of DuckDB."""
    import duckdb

    message = f"{file.path}: {' '.join(str(error).split())}"
    match error:
        case duckdb.Error() if isinstance(error, duckdb.OutOfMemoryException) or _lacks_memory(message):
            return OutOfMemory(f"{message}; raise memory_limit= from {file.memory_limit}")
        case duckdb.Error() if any(phrase in message for phrase in _FULL_DISK_PHRASES):
            return SinkError(f"{message}; make room on the disk, then run again")
        case duckdb.Error() if any(phrase in message for phrase in _DAMAGE_PHRASES):
            return SinkError(f"{message}; restore it from a copy, or name another file")
        case duckdb.TransactionException():
            return SinkUnavailable(f"{message}; another connection wrote the same series: write again")
        case duckdb.ConstraintException() if _is_duplicate_key(message, file.key):
            # Two connections added the same series. With another key on the table, it happens each time.
            return SinkUnavailable(f"{message}; write again, or give your table the key of the mapping")
        case duckdb.ConstraintException() | duckdb.ConversionException() | duckdb.OutOfRangeException():
            return RowsRefused(
                f"{message}; drop the constraint or widen the column, so that it takes what the exchange says"
            )
        case duckdb.CatalogException() if "pandas_scan" in message:  # each connect() makes that function anew
            return SinkUnavailable(f"{message}; another connection was just being opened: write again")
        case duckdb.ConnectionException() if is_open_with_other_settings(error) and file.readers:
            return SinkUnavailable(f"{file.path}: another run of this process reads it: write again")
        case duckdb.ConnectionException() if is_open_with_other_settings(error):
            return SinkError(
                f"{file.path}: this process has the file open with other settings, such as read_only=True; "
                "close that connection, then run again"
            )
        case duckdb.IOException() if (
            "sqlite_scanner" in message
        ):  # the extension that DuckDB would read it with
            return SinkError(f"{file.path} is an SQLite file; write sqlite:{file.path}")
        case duckdb.IOException() if os.path.isdir(file.path):  # noqa: PTH112  # Path.is_dir may raise
            return SinkError(f"{file.path} is a folder; name a file in it")
        case duckdb.IOException() if is_locked_by_other_process(error):
            return SinkUnavailable(
                f"{message}; one process at a time has the file: end the other one, or wait"
            )
        case duckdb.IOException():
            local_remedy = resource_remedy(None, message)
            remedy = (
                local_remedy or "make the file and its folder readable and writable, or name another file"
            )
            return (SinkUnavailable if local_remedy else SinkError)(f"{message}; {remedy}")
        case duckdb.CatalogException():
            return SinkError(f"{message}; call prepare() first, it makes what is missing")
        case _:
            return SinkError(f"{message}; mend what DuckDB names, then run again")


def _is_duplicate_key(message: str, key: tuple[str, ...]) -> bool:
    """Tell a duplicate in our keys, which two connections may cause, from one in the user's constraints."""
    return "Duplicate key" in message and any(
        f'"{name}: ' in message for name in ("id", "series_id", "target", *key)
    )


def _lacks_memory(message: str) -> bool:
    """Tell from its text an error for lack of memory that has another class."""
    return "failed to pin" in message or "could not allocate" in message
