"""The SQLite store: nothing to install, and any number of processes on one file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import ConfigurationError, RowsRefused, SinkError, SinkUnavailable
from marketfetch.sinks.durable import PATIENCE
from marketfetch.sinks.embedded import EmbeddedStore
from marketfetch.sinks.tables import Table, quoted
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span

__all__ = ["SQLiteSink"]

_TOGETHER = 30
"""Rows merged by one statement: starting one costs nearly as much as a row."""


@attrs.frozen(repr=False)
class SQLiteSink(EmbeddedStore[sqlite3.Connection]):
    """Stores rows in an SQLite file, with what is covered beside them.

    Each dataset has a view named after it: `SELECT exchange, symbol, interval, open_time, open FROM ohlcv`,
    where `open_time` is UTC text (`2026-06-01 00:00:00`, milliseconds only where there are any). Behind it
    is the table `marketfetch_ohlcv(series_id, open_time, ...)` in UTC milliseconds, which a query by time
    is fastest on. With `table`, rows go into a table of yours with an integer time. Either way NULL never
    overwrites a value, identical rows are left untouched, and several processes may write at once. Negative
    zero comes back as zero.

    Nothing is opened before it is used.

    >>> SQLiteSink("market.db")
    SQLiteSink('market.db')
    """

    @property
    def batch_rows(self) -> int:
        """Rows that one transaction should have: with more it is hardly faster, and takes more memory."""
        return 12_000

    @property
    def _time_type(self) -> str:
        return "BIGINT"

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with self._translated():
            # Half of it: a call may wait twice, here below and where its transaction begins.
            connection = sqlite3.connect(self.path, timeout=PATIENCE / 2, isolation_level=None)
        with closing(connection):
            with self._translated():
                # Readers and a writer do not wait for each other; set once, it stays with the file.
                connection.execute("PRAGMA journal_mode = WAL")
            yield connection

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        with self._translated():
            # Taking the lock first: one that is asked for later fails at once instead of waiting.
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            finally:
                connection.rollback()  # of what was committed: nothing

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: sqlite3.Error) -> SinkError:
        said = f"{self.path}: {error}"
        primary = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bits tell details
        match primary:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return SinkUnavailable(f"{said}; another process holds it for long: end it, or run again")
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return SinkError(f"{said}; make the file and its folder writable, or name another file")
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                return SinkError(f"{said}; restore it from a copy, or name another file")
            case sqlite3.SQLITE_CONSTRAINT | sqlite3.SQLITE_MISMATCH | sqlite3.SQLITE_TOOBIG:
                return RowsRefused(f"{said}; drop the constraint, or make it allow what the exchange says")
            case sqlite3.SQLITE_FULL:
                return SinkError(f"{said}; make room on the disk, then run again")
            case sqlite3.SQLITE_IOERR:
                return SinkError(f"{said}; make room on the disk or lift its quota, or see what it fails of")
            case _ if "no such table" in str(error):
                return SinkError(f"{said}; call prepare() first, it makes what is missing")
            case _:
                return SinkError(f"{said}; mend what SQLite names, then run again")

    def _types(self, connection: sqlite3.Connection, name: str) -> dict[str, str]:
        return dict(connection.execute("SELECT name, type FROM pragma_table_info(?)", [name]).fetchall())

    def _required(self, connection: sqlite3.Connection, name: str) -> set[str]:
        found = connection.execute(
            'SELECT name FROM pragma_table_info(?) WHERE "notnull" AND dflt_value IS NULL', [name]
        )
        return {column for (column,) in found}

    def _is_view(self, connection: sqlite3.Connection, name: str) -> bool:
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'view' AND name = ?", [name])
        return found.fetchone() is not None

    def _create(self, table: Table, columns: str) -> str:
        # Rows lie in the order of the key, each of them once: no index beside the table.
        return f"CREATE TABLE {table.name} ({columns}, PRIMARY KEY ({', '.join(table.key)})) WITHOUT ROWID"

    def _view_time(self) -> str:
        return (
            "strftime('%Y-%m-%d %H:%M:%S', r.open_time / 1000, 'unixepoch') || "
            "CASE WHEN r.open_time % 1000 THEN printf('.%03d', r.open_time % 1000) ELSE '' END"
        )

    def _check(self, connection: sqlite3.Connection, table: Table) -> None:
        kind = table.types[table.time]
        if "INT" not in kind.upper():
            raise ConfigurationError(
                f"{table.name}.{table.time} is {kind or 'of no type'}; "
                "make it INTEGER, for milliseconds or, with time_unit='s', seconds"
            )
        for name in table.labels:
            # A column of numbers would turn the symbol 1000 into a number, and 1E3 into the same.
            if table.types[name] and not any(part in table.types[name].upper() for part in ("CHAR", "TEXT")):
                raise ConfigurationError(f"{table.name}.{name} is {table.types[name]}; make it TEXT")
        try:
            connection.execute(f"EXPLAIN {_upsert(table, 1)}", [None] * (len(table.key) + len(table.columns)))
        except sqlite3.OperationalError as error:
            key = ", ".join(map(quoted, table.key))
            raise ConfigurationError(
                f"table: {table.name} does not fit: {error}; it needs PRIMARY KEY ({key})"
            ) from error

    def _merge(
        self,
        connection: sqlite3.Connection,
        table: Table,
        labels: Sequence[int | str | None],
        rows: Columns,
    ) -> None:
        # SQLite itself takes NaN for NULL, and a whole number for an integer where the column is one.
        numbers = np.column_stack([table.stored(rows.times), *rows.values[list(table.lines)]])
        pieces = (numbers[start : start + _TOGETHER] for start in range(0, len(numbers), _TOGETHER))
        for count, alike in groupby(pieces, len):  # the last one may be shorter
            connection.executemany(_upsert(table, count), (_flat(labels, piece) for piece in alike))

    def _rows(
        self, connection: sqlite3.Connection, table: Table, series: Series, series_id: int, span: Span
    ) -> Columns:
        where = [f"{quoted(name)} = ?" for name in table.labels]
        where += [f"{quoted(table.time)} >= ?", f"{quoted(table.time)} < ?"]
        if table.mapping is not None:
            where.append(f"coalesce({', '.join([*map(quoted, table.columns), 'NULL'])}) IS NOT NULL")
        found = connection.execute(
            f"SELECT {', '.join(map(quoted, (table.time, *table.columns)))} FROM {table.relation} "
            f"WHERE {' AND '.join(where)} ORDER BY {quoted(table.time)}",
            [*table.values(series, series_id), *table.bounds(span)],
        )
        row: Any = np.dtype((np.float64, 1 + len(table.columns)))  # no type can say this
        return table.restored(series.dataset, np.fromiter(found, row))


def _flat(labels: Sequence[int | str | None], numbers: NDArray[Any]) -> list[Any]:
    """Put the labels before each row, and all rows into one line."""
    rows = np.empty((len(numbers), len(labels) + numbers.shape[1]), object)
    rows[:, : len(labels)] = labels
    rows[:, len(labels) :] = numbers
    flat: list[Any] = rows.ravel().tolist()
    return flat


def _upsert(table: Table, count: int) -> str:
    """Write the merge of so many rows: a NULL never overwrites, and an equal row is not touched."""
    name, columns = table.relation, [quoted(column) for column in table.columns]
    key = ", ".join(map(quoted, table.key))
    marks = ", ".join("?" * (len(table.key) + len(columns)))
    better = ", ".join(f"{c} = coalesce(excluded.{c}, {name}.{c})" for c in columns)
    differs = " OR ".join(f"(excluded.{c} IS NOT NULL AND excluded.{c} IS NOT {name}.{c})" for c in columns)
    return (
        f"INSERT INTO {name} ({key}, {', '.join(columns)}) VALUES {', '.join([f'({marks})'] * count)} "
        f"ON CONFLICT ({key}) DO UPDATE SET {better} WHERE {differs}"
    )
