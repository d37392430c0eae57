"""Hold the lock that a writer needs, as another program on the same store would."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import psycopg
from psycopg import sql

from marketfetch.sinks.duckdb.connect import has_waiters
from marketfetch.sinks.files.atomic_files import locked
from marketfetch.sinks.parquet.series_folder import SeriesFolder
from marketfetch.sinks.postgres.coverage_tables import lock
from marketfetch.values.series import Series

__all__ = ["Waiting", "preparing_blocked", "writing_blocked"]

Waiting = Callable[[], bool] | None
"""Tells whether another process waits for the lock; None where the operating system cannot tell."""

_TIMEOUT = 20
"""Seconds to wait for the lock; a writer releases it after each batch."""


def writing_blocked(
    url: str, symbols: Sequence[str], table: str = "ohlcv"
) -> AbstractContextManager[Waiting]:
    """Block all writes of rows of these symbols to a prepared store.

    In PostgreSQL this locks one table: a lock on several could end in a deadlock with the writer.
    """
    kind, _, path = url.partition(":")
    if kind == "postgresql":
        return _postgres(
            url,
            lambda connection: connection.execute(
                sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier("marketfetch", table))
            ),
        )
    return _parquet(Path(path), symbols) if kind == "parquet" else _file(kind, Path(path))


def preparing_blocked(url: str) -> AbstractContextManager[Waiting]:
    """Block `prepare()` of a store, which need not exist yet.

    Raises ValueError for Parquet, where `prepare()` takes no lock.
    """
    kind, _, path = url.partition(":")
    if kind == "postgresql":
        return _postgres(url, partial(lock, name="marketfetch prepare"))
    return _file(kind, Path(path))


@contextmanager
def _postgres(url: str, hold: Callable[[psycopg.Connection], object]) -> Iterator[Waiting]:
    with psycopg.connect(url) as connection:

        def waiting() -> bool:
            found = connection.execute(
                "SELECT 1 FROM pg_locks JOIN pg_database AS d ON d.oid = database "
                "WHERE NOT granted AND locktype IN ('relation', 'advisory') AND datname = current_database()"
            )
            return found.fetchone() is not None

        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(f"{_TIMEOUT}s"))
        hold(connection)
        yield waiting
        connection.rollback()


def _file(kind: str, path: Path) -> AbstractContextManager[Waiting]:
    if kind not in {"sqlite", "duckdb"}:
        raise ValueError(f"{kind}: there is nothing to hold")
    return _sqlite(path) if kind == "sqlite" else _duckdb(path)


@contextmanager
def _sqlite(path: Path) -> Iterator[Waiting]:
    with closing(
        sqlite3.connect(path, isolation_level=None, timeout=_TIMEOUT, check_same_thread=False)
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield None
        connection.execute("ROLLBACK")


_HOLDER = """
import sys, time, duckdb
from pathlib import Path
from marketfetch.sinks.files.atomic_files import locked_directory

path, give_up = Path(sys.argv[1]), time.monotonic() + float(sys.argv[2])
with locked_directory(path.parent, give_up):  # a writer closes the file when others queue for this lock
    while True:
        try:
            connection = duckdb.connect(path)
            break
        except duckdb.IOException:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.005)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def _duckdb(path: Path) -> Iterator[Waiting]:
    """Open the file in a child process: connections of one process share the file lock."""
    command = [sys.executable, "-c", _HOLDER, str(path), str(_TIMEOUT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == "held\n", "the file cannot be held"
            yield partial(has_waiters, path)
        finally:
            holder.kill()


@contextmanager
def _parquet(folder: Path, symbols: Sequence[str]) -> Iterator[Waiting]:
    """Take the lock file of each series."""
    with ExitStack() as stack:
        for symbol in symbols:
            series = Series.of("binance-usdm", "ohlcv", symbol, "1m")
            stack.enter_context(locked(SeriesFolder(folder, series).lock))
        yield None
