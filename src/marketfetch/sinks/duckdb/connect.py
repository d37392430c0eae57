"""Opening a DuckDB file, which one process at a time can have open."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from marketfetch.sinks.files.atomic_files import create_atomically, is_locked, locked_directory

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "has_waiters",
    "is_locked_by_other_process",
    "is_open_with_other_settings",
    "open_file",
    "open_to_read",
]

_POLL = 0.01


def open_file(
    path: Path, give_up: float, is_read_here: Callable[[], bool] = lambda: False
) -> duckdb.DuckDBPyConnection:
    """Open a file, and make it where there is none; waits for others that have it open until `give_up`.

    The others are processes, and readers of this process, of which `is_read_here` tells. They close the file
    soon, and cannot open it again: this call is before them in the queue. `give_up` is a moment of
    `monotonic`, for the waiting queue and the file together. Raises duckdb.Error, OSError where the file
    cannot be made, and BlockingIOError where the queue is too long.
    """
    import duckdb

    def connect() -> duckdb.DuckDBPyConnection:
        _make(path)
        return duckdb.connect(path)

    connection = _retry_connecting(path, connect, give_up, is_read_here)
    _sweep(path)
    return connection


def open_to_read(path: Path, give_up: float) -> duckdb.DuckDBPyConnection:
    """Open a file that exists, read-only; waits for another process that writes until `give_up`.

    Any number of processes may have the file open to read. Where this process has it open to write, the
    connection is one more to the same database. Raises as `open_file` does.
    """
    import duckdb

    def connect() -> duckdb.DuckDBPyConnection:
        try:
            return duckdb.connect(path, read_only=True)
        except duckdb.ConnectionException as error:
            if not is_open_with_other_settings(error):
                raise
            return duckdb.connect(path)

    return _retry_connecting(path, connect, give_up, lambda: False)


def _retry_connecting(
    path: Path,
    connect: Callable[[], duckdb.DuckDBPyConnection],
    give_up: float,
    is_read_here: Callable[[], bool],
) -> duckdb.DuckDBPyConnection:
    """Wait in the queue for a file, and connect as soon as nobody else has it open."""
    import duckdb

    with _file_lock(path.parent, give_up):
        while True:
            read_here = is_read_here()
            try:
                return connect()
            except duckdb.Error as error:
                passes = is_locked_by_other_process(error) or (
                    read_here and is_open_with_other_settings(error)
                )
                if not passes or monotonic() > give_up:
                    raise
            sleep(_POLL)


def has_waiters(path: Path) -> bool:
    """Tell whether a process waits in the queue for a file of this folder."""
    try:
        return is_locked(path.parent)
    except OSError:
        return False  # a file system without locks of folders


def is_locked_by_other_process(error: duckdb.Error) -> bool:
    """Tell whether another process has the file open."""
    # On Windows the system refuses the file, in the language of the user; DuckDB adds in English by whom.
    return any(phrase in str(error) for phrase in ("lock on file", "File is already open in"))


def is_open_with_other_settings(error: duckdb.Error) -> bool:
    """Tell whether this process has the file open with other settings."""
    return "different configuration" in str(error)


@contextmanager
def _file_lock(folder: Path, give_up: float) -> Iterator[None]:
    """Queue for the files of a folder by its lock file: else the last user of a file is also the next."""
    with ExitStack() as stack:
        try:
            if os.path.isdir(folder):  # noqa: PTH112  # Path.is_dir raises without the right to look
                stack.enter_context(locked_directory(folder, give_up))
        except BlockingIOError:
            raise
        except OSError:
            pass  # a file system without locks of folders: the first to try gets the file
        yield


def _make(path: Path) -> None:
    """Make the file atomically where there is none: DuckDB cannot open a file half made by a killed process.

    A link to a file that does not exist yet is followed.
    """
    import duckdb

    file = Path(os.path.realpath(path))
    if not os.path.exists(file) and os.path.isdir(file.parent):  # noqa: PTH110, PTH112  # as above
        create_atomically(file, lambda temporary: duckdb.connect(temporary).close())


def _sweep(path: Path) -> None:
    """Remove temporary files of killed processes: no other process has the database open now."""
    with suppress(OSError):  # they only take room
        for file in path.with_name(f"{path.name}.tmp").glob("duckdb_temp_*"):
            if not file.name.startswith(f"duckdb_temp_{os.getpid()}_"):
                file.unlink()
