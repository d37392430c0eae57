"""The SQLite store: no package to install, and any number of processes on one file."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.common.local_resources import descriptors_used_up, resource_remedy
from marketfetch.errors import ConfigurationError, RowsRefused, SinkError, SinkUnavailable
from marketfetch.sinks.files.atomic_files import LOCK_TIMEOUT
from marketfetch.sinks.files.fork_guard import OPEN_FILES
from marketfetch.sinks.sql.file_store import SqlFileStore
from marketfetch.sinks.sql.file_tables import FileTable, LabelledRows, RowQuery
from marketfetch.sinks.sql.identifiers import quoted, schema_and_table
from marketfetch.sinks.sql.statements import limit_clause, on_conflict
from marketfetch.sinks.sql.text_times import TextTime
from marketfetch.values.pages import Columns
from marketfetch.values.spans import Span

__all__ = ["SQLiteSink"]

_ROWS_PER_STATEMENT = 30
"""Rows in one statement: the overhead of a statement is about that of a row."""


@attrs.frozen(repr=False)
class SQLiteSink(SqlFileStore[sqlite3.Connection]):
    """Stores rows in an SQLite file, and their coverage beside them.

    Each dataset has a view named after it: `SELECT exchange, symbol, interval, open_time, open FROM ohlcv`,
    where `open_time` is UTC text in one format for all rows (`2026-06-01 00:00:00.000`). The rows are in the
    table `marketfetch_ohlcv(series_id, open_time, ...)`, in UTC milliseconds: queries by time are fastest on
    it. With `table`, rows go into a table of yours, whose time is an integer, or text such as
    `2026-06-01 00:00:00` in the format of the rows in it. Either way NULL never overwrites a value, an equal
    row is not written, and several processes may write at once. Negative zero is read back as zero.

    A file that is made here is in WAL mode, so that readers and a writer do not wait for each other; a file
    that exists keeps its mode. Reading changes nothing and needs no right to write.

    Nothing is opened before it is used.

    >>> SQLiteSink("market.db")
    SQLiteSink('market.db')
    """

    _scheme = "sqlite"
    _clustered = True
    _time_type = "BIGINT"
    _typed = False
    # What ORDER BY open_time DESC LIMIT needs: rows lie in the order of the number, not of the text.
    _view_columns = MappingProxyType({"open_time_ms": "open_time"})

    @property
    def batch_rows(self) -> int:
        """Rows of one batch: more are hardly faster, and take more memory."""
        return 12_000

    @property
    def transaction_rows(self) -> int:
        """Rows of one transaction: small batches of many series wait for the disk once, not one by one."""
        return self.batch_rows

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with self._open(f"{_uri(self.path)}?mode=rwc") as connection:
            with self._translated():
                ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
                if not pages:
                    # In WAL mode readers and a writer do not wait for each other. The mode stays with the
                    # file; a file with content keeps the one that its owner chose.
                    connection.execute("PRAGMA journal_mode = WAL")
            yield connection

    @contextmanager
    def _connected_to_read(self) -> Iterator[sqlite3.Connection]:
        with self._open(f"{_uri(self.path)}?{_reading_mode(self.path)}") as connection:
            with self._translated():
                connection.execute("PRAGMA query_only = ON")
            yield connection

    @contextmanager
    def _open(self, uri: str) -> Iterator[sqlite3.Connection]:
        with OPEN_FILES.opened(self.path):
            with self._translated():
                # Half of it: a call may wait twice, for its first statement and for its transaction.
                connection = sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT / 2, isolation_level=None)
            with closing(connection):
                yield connection

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        with self._translated():
            # IMMEDIATE takes the lock first: SQLite does not wait for a lock amid a transaction.
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            finally:
                connection.rollback()  # does nothing after a commit

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._sink_error(error) from error

    def _sink_error(self, error: sqlite3.Error) -> SinkError:  # noqa: C901  # one case a cause
        message = f"{self.path}: {error}"
        primary = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bits are the extended code
        if primary in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR} and descriptors_used_up():
            return SinkUnavailable(f"{message}; {resource_remedy(errno.EMFILE)}")
        if primary == sqlite3.SQLITE_NOMEM:
            return SinkUnavailable(f"{message}; {resource_remedy(errno.ENOMEM)}")
        match primary:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return SinkUnavailable(f"{message}; another process holds it for long: end it, or run again")
            case sqlite3.SQLITE_CANTOPEN if os.path.isdir(self.path):  # noqa: PTH112  # Path.is_dir may raise
                return SinkError(f"{self.path} is a folder; name a file in it")
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return SinkError(
                    f"{message}; make the file and its folder readable and writable, or name another file"
                )
            case sqlite3.SQLITE_NOTADB if _is_duckdb(self.path):
                return SinkError(f"{self.path} is a DuckDB file; write duckdb:{self.path}")
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                return SinkError(f"{message}; restore it from a copy, or name another file")
            case sqlite3.SQLITE_CONSTRAINT | sqlite3.SQLITE_MISMATCH | sqlite3.SQLITE_TOOBIG:
                return RowsRefused(f"{message}; drop the constraint, or make it allow what the exchange says")
            case sqlite3.SQLITE_FULL:
                return SinkError(f"{message}; make room on the disk, then run again")
            case sqlite3.SQLITE_IOERR:
                return SinkError(
                    f"{message}; make room on the disk or lift its quota, or see what it fails of"
                )
            case _ if "no such table" in str(error):
                return SinkError(f"{message}; call prepare() first, it makes what is missing")
            case _:
                return SinkError(f"{message}; mend what SQLite names, then run again")

    def _types(self, connection: sqlite3.Connection, name: str) -> dict[str, str]:
        schema, table = schema_and_table(name)
        found = connection.execute("SELECT name, type FROM pragma_table_info(?, ?)", [table, schema])
        return dict(found.fetchall())

    def _required(self, connection: sqlite3.Connection, name: str) -> set[str]:
        schema, table = schema_and_table(name)
        found = connection.execute(
            'SELECT name FROM pragma_table_info(?, ?) WHERE "notnull" AND dflt_value IS NULL', [table, schema]
        )
        return {column for (column,) in found}

    def _is_view(self, connection: sqlite3.Connection, name: str) -> bool:
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'view' AND name = ?", [name])
        return found.fetchone() is not None

    def _is_made_by(self, connection: sqlite3.Connection, view: str, statement: str) -> bool:
        found = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", [view])
        row: tuple[str] | None = found.fetchone()
        return row == (statement,)

    def _create(self, table: FileTable, columns: str) -> str:
        # Rows lie in the order of the key, without an index beside the table.
        return f"CREATE TABLE {table.title} ({columns}, PRIMARY KEY ({', '.join(table.key)})) WITHOUT ROWID"

    def _view_time(self) -> str:
        # One format for all rows: data tools guess the format of all rows from the first.
        return (
            "strftime('%Y-%m-%d %H:%M:%S', r.open_time / 1000, 'unixepoch') || "
            "printf('.%03d', r.open_time % 1000)"
        )

    def _check(self, connection: sqlite3.Connection, table: FileTable) -> None:
        self._text_time(connection, table)
        for name in table.labels:
            # A column of numbers would store the symbols 1000 and 1E3 as the same number.
            if table.types[name] and not any(part in table.types[name].upper() for part in ("CHAR", "TEXT")):
                raise ConfigurationError(f"{table.title}.{name} is {table.types[name]}; make it TEXT")
        try:
            connection.execute(f"EXPLAIN {_upsert(table, 1)}", [None] * (len(table.key) + len(table.columns)))
        except sqlite3.OperationalError as error:
            key = ", ".join(map(quoted, table.key))
            raise ConfigurationError(
                f"table: {table.title} does not fit: {error}; it needs PRIMARY KEY ({key})"
            ) from error

    def _inside(self, table: FileTable) -> str:
        return table.inside("?")

    def _bounds(
        self, connection: sqlite3.Connection, table: FileTable, span: Span
    ) -> tuple[int | str, int | str]:
        form = self._text_time(connection, table)
        return table.bounds(span) if form is None else (form.bound(span.start), form.bound(span.end))

    def _merge(self, connection: sqlite3.Connection, table: FileTable, parts: Sequence[LabelledRows]) -> None:
        # SQLite itself takes NaN for NULL, and a whole number for an integer where the column is one.
        form = self._text_time(connection, table)
        for part in parts:
            rows = part.columns
            if form is None:
                times: NDArray[np.int64] | NDArray[np.str_] = table.to_db_rows(rows.times)
            else:
                times = form.format_times(rows.times, column=_title(table))
            values = rows.values[table.value_indexes].T
            pieces = (
                slice(start, start + _ROWS_PER_STATEMENT)
                for start in range(0, len(times), _ROWS_PER_STATEMENT)
            )
            lines = (_flatten(part.labels, times[piece], values[piece]) for piece in pieces)
            for length, group in groupby(lines, len):  # the last piece may be shorter
                count = length // (len(table.key) + len(table.columns))
                connection.executemany(_upsert(table, count), group)

    def _rows(self, connection: sqlite3.Connection, table: FileTable, query: RowQuery) -> Columns:
        time, form = quoted(table.time), self._text_time(connection, table)
        selected = [time if form is None else form.milliseconds(time), *map(quoted, table.columns)]
        where = table.with_values("?")
        found = connection.execute(
            f"SELECT {', '.join(selected)} FROM {table.relation} WHERE {where} "
            f"ORDER BY {time}{limit_clause(query.newest_limit)}",
            [*table.values(query.series, query.series_id), *self._bounds(connection, table, query.span)],
        )
        row: Any = np.dtype((np.float64, 1 + len(table.columns)))  # no type can say this
        rows = np.fromiter(found, row)[:: 1 if query.newest_limit is None else -1]
        if form is not None:
            return attrs.evolve(table, mapping=None).from_db_rows(query.series.dataset, rows)
        return table.from_db_rows(query.series.dataset, rows)

    def _text_time(self, connection: sqlite3.Connection, table: FileTable) -> TextTime | None:
        """Return the format of a time column with text; None for one with whole numbers.

        A column that is not declared as an integer is judged by its first row, since any column of SQLite
        may hold any value. Raises ConfigurationError for a column that can neither be read nor written.
        """
        kind = table.types[table.time].upper()
        if table.mapping is None or "INT" in kind:
            return None
        sample = connection.execute(f"SELECT {quoted(table.time)} FROM {table.relation} LIMIT 1").fetchone()
        if sample is None and any(part in kind for part in ("CHAR", "CLOB", "TEXT", "DATE", "TIME")):
            return TextTime()
        found = TextTime.of(sample[0]) if sample is not None and isinstance(sample[0], str) else None
        if found is None and (sample is None or not isinstance(sample[0], int)):
            holds = "" if sample is None else f" and holds {sample[0]!r}"
            raise ConfigurationError(
                f"{_title(table)} is {kind or 'of no type'}{holds}; make it INTEGER, for milliseconds or, "
                "with time_unit='s', seconds, or TEXT with UTC times like 2026-06-01 00:00:00"
            )
        return found


def _title(table: FileTable) -> str:
    return f"{table.title}.{table.time}"


def _uri(path: Path) -> str:
    return f"file:{quote(os.fsencode(path))}"


def _reading_mode(path: Path) -> str:
    """Return the URI parameter with which SQLite opens a file to read it.

    1. With the right to write: `mode=rw`; `query_only` prevents changes. SQLite needs the right to recover
       after a writer that was killed, and to remove `-wal` and `-shm` beside a file in WAL mode.
    2. Without the right to write: `mode=ro`.
    3. In WAL mode, where `-wal` and `-shm` are absent and cannot be made, `mode=ro` fails. No process is
       writing then, and the file is complete: `immutable=1`.

    A symbolic link is followed first: `-wal` and `-shm` are beside the file that the link leads to.
    """
    path = Path(os.path.realpath(path))
    writable_folder = os.access(path.parent, os.W_OK)
    if writable_folder and os.access(path, os.W_OK):
        return "mode=rw"
    if writable_folder or not _in_wal_mode(path) or os.path.exists(f"{path}-wal"):  # noqa: PTH110  # may raise
        return "mode=ro"
    return "immutable=1"


def _in_wal_mode(path: Path) -> bool:
    """Tell from its header whether a file is in WAL mode; see https://www.sqlite.org/fileformat2.html."""
    try:
        with path.open("rb") as file:
            return file.read(20)[18:] == b"\2\2"
    except OSError:
        return False  # SQLite says what is wrong with it


def _flatten(
    labels: Sequence[int | str | None],
    times: NDArray[np.int64] | NDArray[np.str_],
    values: NDArray[np.float64],
) -> list[Any]:
    """Put labels, time and values of each row into one list, row after row.

    A time stays an int: a column without a declared type stores what it gets, and would store a float.
    """
    rows = np.empty((len(times), len(labels) + 1 + values.shape[1]), object)
    rows[:, : len(labels)] = labels
    rows[:, len(labels)] = times
    rows[:, len(labels) + 1 :] = values
    flat: list[Any] = rows.ravel().tolist()
    return flat


def _upsert(table: FileTable, count: int) -> str:
    """Write the upsert of `count` rows: NULL never overwrites, and an equal row is not written."""
    key, columns = [*map(quoted, table.key)], [*map(quoted, table.columns)]
    marks = ", ".join("?" * (len(key) + len(columns)))
    # IS NOT: the SQLite of some systems has no IS DISTINCT FROM.
    return (
        f"INSERT INTO {table.relation} ({', '.join([*key, *columns])}) "
        f"VALUES {', '.join([f'({marks})'] * count)} {on_conflict(key, columns, table.relation, 'IS NOT')}"
    )


def _is_duckdb(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.read(12)[8:] == b"DUCK"
    return False
