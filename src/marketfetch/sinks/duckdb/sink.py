"""The DuckDB store: one file, compressed, and quick to analyse."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import attrs
import numpy as np

from marketfetch.common.local_resources import resource_remedy
from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.protocols import GroupWriter
from marketfetch.sinks.duckdb.connect import has_waiters, open_file, open_to_read
from marketfetch.sinks.duckdb.errors import OpenedFile, OutOfMemory, sink_error
from marketfetch.sinks.duckdb.memory_limit import MemoryLimit
from marketfetch.sinks.duckdb.row_merge import merge_rows
from marketfetch.sinks.duckdb.shared_connection import SharedConnection
from marketfetch.sinks.duckdb.statements import (
    TIME_EXPRESSIONS,
    bounds,
    inside,
    select,
)
from marketfetch.sinks.files.atomic_files import LOCK_TIMEOUT
from marketfetch.sinks.files.fork_guard import OPEN_FILES
from marketfetch.sinks.files.paths import file_identity, require
from marketfetch.sinks.sql.coverage_schema import SeriesIds
from marketfetch.sinks.sql.coverage_tables import FileCoverageTables
from marketfetch.sinks.sql.file_store import SqlFileStore
from marketfetch.sinks.sql.file_tables import FileTable, LabelledRows, RowQuery
from marketfetch.sinks.sql.identifiers import schema_and_table
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span

if TYPE_CHECKING:
    import duckdb

__all__ = ["DuckDBSink"]

# `information_schema` is made of these functions, and takes three times as long.
_IN_SCHEMA = "NOT internal AND database_name = current_database() AND lower(schema_name) = lower(?)"
_COLUMNS = f"FROM duckdb_columns() WHERE {_IN_SCHEMA} AND lower(table_name) = lower(?)"
_VIEWS = f"FROM duckdb_views() WHERE {_IN_SCHEMA} AND lower(view_name) = lower(?)"


_LONG_LOG = 2**24
"""Bytes of the log at which DuckDB empties it."""


@attrs.define(eq=False)
class _Shared:
    """The connection and the memory limit that all stores of this process on one file share."""

    connections: SharedConnection[duckdb.DuckDBPyConnection]
    memory: MemoryLimit = attrs.field(factory=MemoryLimit)
    series_ids: SeriesIds = attrs.field(factory=SeriesIds)
    readers: int = 0
    """How many read-only connections are open; the lock of `_Files` protects the number."""


@attrs.define(eq=False)
class _Files:
    """A `_Shared` for each file that stores of this process use, by the real path of the file.

    The lock protects the registry and the counts of readers.
    """

    _shared: WeakValueDictionary[str, _Shared] = attrs.field(factory=WeakValueDictionary, init=False)
    lock: Lock = attrs.field(factory=Lock, init=False)
    _inherited: list[_Shared] = attrs.field(factory=list, init=False)

    def shared(self, path: Path, make: Callable[[], _Shared]) -> _Shared:
        """Return the entry of a file, made anew where no store uses the file now."""
        with self.lock:
            name = os.path.realpath(path)
            shared = self._shared.get(name)
            if shared is None:
                shared = self._shared[name] = make()
            return shared

    def fork(self) -> None:
        """Start empty in a forked child: DuckDB's threads are gone, and the lock may be held for ever."""
        self._inherited += (
            self._shared.values()
        )  # kept alive: closing a connection would wait for the threads
        self._shared, self.lock = WeakValueDictionary(), Lock()


_FILES = _Files()

if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_FILES.fork)


@attrs.frozen(repr=False)
class DuckDBSink(SqlFileStore["duckdb.DuckDBPyConnection"]):
    """Stores rows in a DuckDB file, and their coverage beside them.

    Each dataset has a view named after it: `SELECT exchange, symbol, interval, open_time, open FROM ohlcv`.
    `open_time` is a TIMESTAMP in UTC (fetching TIMESTAMPTZ into Python would need pytz). With `table`, rows
    go into a table of yours. Either way NULL never overwrites a value, and an equal row is not written.

    One process at a time has the file open to write. Several processes alternate, after a batch or some, and
    close the file while they have nothing to write. Reading opens the file read-only, which other programs
    may do at the same time. Any number of stores of one process use the file at once; a child that is forked
    while the file is open cannot use it. Our tables have no index, since DuckDB holds an index in memory: a
    batch is merged after a scan for rows of its times.

    DuckDB would fill `memory_limit` with blocks that it wrote: while batches are written, the limit is 48 MiB
    where that is enough. DuckDB has one limit for all connections of a process to a file, also yours; it is
    restored when the last store closes the file.

    Nothing is opened before it is used. Raises ConfigurationError if duckdb is not installed.

    >>> DuckDBSink("market.duckdb")
    DuckDBSink('market.duckdb')
    """

    memory_limit: str = attrs.field(default="256MB", kw_only=True)
    _scheme = "duckdb"
    _clustered = False
    _time_type = "TIMESTAMP"
    _typed = True

    def __attrs_post_init__(self) -> None:
        require("duckdb", extra="duckdb", user="DuckDBSink")

    @property
    def batch_rows(self) -> int:
        """Rows of one batch: of one series, and so of many series before a transaction is full."""
        return 24_576

    @property
    def transaction_rows(self) -> int:
        """Rows of one transaction: DuckDB compresses rows by so many, and writes them to the file at once."""
        return 122_880

    @property
    def max_writers(self) -> int:
        """Two writers, since a row group is compressed on one processor; one for a table of yours.

        In a table of yours two series may have values in one row, and their transactions would conflict.
        """
        return 2 if self.table is None else 1

    @property
    def _ledger(self) -> FileCoverageTables:
        return attrs.evolve(super()._ledger, series_ids=self._shared().series_ids)

    @property
    def row_group_rows(self) -> int:
        """Rows that DuckDB compresses together."""
        return self.transaction_rows

    @contextmanager
    def group_writer(self) -> Iterator[GroupWriter]:
        """Open a writer that commits several batches in one transaction; see SupportsGroupCommit.

        Between two transactions another process may open the file. The writer raises SinkError if the file
        was deleted or replaced meanwhile.
        """
        shared = self._shared()
        with closing(shared.connections) as connections:

            def write(batches: Sequence[Batch]) -> None:
                self._require_same(opened)  # else a connection that is opened now would make a new file
                try:
                    with connections.connection(self._keys(batches)) as connection:
                        shared.memory.shrink(connection)
                        self._write(connection, batches)
                except OutOfMemory:
                    with connections.connection() as connection:  # alone, with the full limit
                        shared.memory.restore(connection)
                        self._write(connection, batches)
                self._require_same(opened)

            with connections.connection():  # a file that cannot be used is noticed before anything is fetched
                opened = file_identity(self.path)
            yield write

    def _keys(self, batches: Sequence[Batch]) -> AbstractSet[Series] | None:
        """Return the series that a transaction locks; None if it has to run alone.

        1. Two series may have values in one row of a table of yours.
        2. The user's memory limit may have no room for two.
        3. DuckDB empties its log at a commit only where no other transaction runs. Rows that are no whole row
           group are in the log: while two writers alternate, it would grow for as long as the run takes.
        """
        if self.table is not None or not self._shared().memory.has_room_for_two or self._log_is_long():
            return None
        return frozenset(batch.series for batch in batches)

    def _log_is_long(self) -> bool:
        try:
            return os.stat(f"{os.path.realpath(self.path)}.wal").st_size > _LONG_LOG  # noqa: PTH116  # often
        except OSError:
            return False  # there is no log, or nobody can tell

    @contextmanager
    def _writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        shared = self._shared()  # the registry is weak: this reference keeps the entry
        with closing(shared.connections) as connections, connections.connection() as connection:
            yield connection

    def _shared(self) -> _Shared:
        """Return the entry of this file, which lives as long as a store of this process uses it.

        All stores write by two connections at most: more would share the memory limit. After a failure both
        are closed, since DuckDB may keep rows of a commit that failed for lack of memory.
        """

        def make() -> _Shared:
            return _Shared(
                SharedConnection(
                    str(self.path), self._connected_by, self._duplicate, partial(has_waiters, self.path)
                )
            )

        return _FILES.shared(self.path, make)

    def _connected(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        return self._connected_by(monotonic() + LOCK_TIMEOUT)

    @contextmanager
    def _connected_by(self, give_up: float) -> Iterator[duckdb.DuckDBPyConnection]:
        shared = self._shared()
        with self._open_limited(
            partial(open_file, self.path, give_up, lambda: shared.readers > 0)
        ) as connection:
            yield connection

    @contextmanager
    def _connected_to_read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        shared = self._shared()
        with _FILES.lock:
            shared.readers += 1
        try:
            with self._open_limited(
                partial(open_to_read, self.path, monotonic() + LOCK_TIMEOUT)
            ) as connection:
                yield connection
        finally:
            with _FILES.lock:
                shared.readers -= 1

    @contextmanager
    def _open_limited(
        self, connect: Callable[[], duckdb.DuckDBPyConnection]
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file with its memory limit, and close it at the end."""
        shared = self._shared()
        with OPEN_FILES.opened(self.path), ExitStack() as stack:
            with self._translated():
                connection = stack.enter_context(closing(self._open(connect)))
                _draw_no_bar(connection)
                stack.enter_context(shared.memory.applied(connection, self.memory_limit))
            yield connection

    @contextmanager
    def _duplicate(self, connection: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
        with ExitStack() as stack:
            with self._translated():
                cursor = stack.enter_context(closing(connection.cursor()))
                _draw_no_bar(cursor)
            yield cursor

    def _open(self, connect: Callable[[], duckdb.DuckDBPyConnection]) -> duckdb.DuckDBPyConnection:
        try:
            return connect()
        except BlockingIOError as error:
            raise SinkUnavailable(
                f"{self.path}: others wait for it, too: wait, or run again later"
            ) from error
        except OSError as error:
            message = f"{self.path}: {error.strerror or error}"
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise SinkError(f"{message}; make room on the disk, then run again") from error
            if remedy := resource_remedy(error.errno):
                raise SinkUnavailable(f"{message}; {remedy}") from error
            raise SinkError(f"{message}; make its folder writable, or name another file") from error

    @contextmanager
    def _transaction(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        import duckdb

        with self._translated():
            try:
                connection.execute("BEGIN")
                yield
                connection.execute("COMMIT")
            except BaseException:
                # After a failed commit there is nothing left to undo. Where the rollback itself finds no
                # memory, the next BEGIN fails, and leads here again.
                with suppress(duckdb.TransactionException, duckdb.OutOfMemoryException):
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            key = () if self.table is None else self.table.key
            file = OpenedFile(self.path, self.memory_limit, self._shared().readers, key)
            raise sink_error(error, file) from error

    def _types(self, connection: duckdb.DuckDBPyConnection, name: str) -> dict[str, str]:
        found = connection.execute(f"SELECT column_name, data_type {_COLUMNS}", schema_and_table(name))
        return dict(found.fetchall())

    def _required(self, connection: duckdb.DuckDBPyConnection, name: str) -> set[str]:
        found = connection.execute(
            f"SELECT column_name {_COLUMNS} AND NOT is_nullable AND column_default IS NULL",
            schema_and_table(name),
        )
        return {column for (column,) in found.fetchall()}

    def _is_view(self, connection: duckdb.DuckDBPyConnection, name: str) -> bool:
        found = connection.execute(f"SELECT 1 {_VIEWS}", schema_and_table(name))
        return found.fetchone() is not None

    def _is_made_by(self, connection: duckdb.DuckDBPyConnection, view: str, statement: str) -> bool:
        return True  # an older definition with these columns returns the same rows

    def _create(self, table: FileTable, columns: str) -> str:
        return f"CREATE TABLE {table.title} ({columns})"

    def _view_time(self) -> str:
        return "r.open_time"

    def _check(self, connection: duckdb.DuckDBPyConnection, table: FileTable) -> None:
        kind = table.types[table.time]
        if kind not in TIME_EXPRESSIONS:
            raise ConfigurationError(
                f"{table.title}.{table.time} is {kind}; make it TIMESTAMP (in UTC), TIMESTAMPTZ, or BIGINT"
            )
        for name in table.labels:
            if table.types[name] != "VARCHAR":
                raise ConfigurationError(f"{table.title}.{name} is {table.types[name]}; make it VARCHAR")

    def _inside(self, table: FileTable) -> str:
        return inside(table)

    def _bounds(
        self, connection: duckdb.DuckDBPyConnection, table: FileTable, span: Span
    ) -> tuple[int | str, int | str]:
        return bounds(table, span)

    def _merge(
        self, connection: duckdb.DuckDBPyConnection, table: FileTable, parts: Sequence[LabelledRows]
    ) -> None:
        merge_rows(connection, table, parts)

    def _rows(self, connection: duckdb.DuckDBPyConnection, table: FileTable, query: RowQuery) -> Columns:
        parameters = [*table.values(query.series, query.series_id), *bounds(table, query.span)]
        found = connection.execute(select(table, query.newest_limit), parameters).fetchnumpy()
        rows = np.column_stack([np.ma.filled(line, np.nan) for line in found.values()])
        return table.from_db_rows(query.series.dataset, rows[:: 1 if query.newest_limit is None else -1])


def _draw_no_bar(connection: duckdb.DuckDBPyConnection) -> None:
    """Keep DuckDB from drawing a bar of its own for each long statement on a terminal.

    In a notebook without ipywidgets the bar is off, and setting it at all is an error.
    """
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchone() != (False,):
        connection.execute("SET enable_progress_bar = false")
