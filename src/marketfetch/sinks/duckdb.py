"""The DuckDB store: one file, compressed, and quick to analyse."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from functools import partial
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import attrs
import numpy as np

from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.protocols import Writer
from marketfetch.sinks.duckfile import held_elsewhere, is_wanted, open_file
from marketfetch.sinks.duckmemory import Memory
from marketfetch.sinks.durable import PATIENCE
from marketfetch.sinks.embedded import EmbeddedStore
from marketfetch.sinks.places import require
from marketfetch.sinks.tables import Table, quoted
from marketfetch.sinks.turns import Turns
from marketfetch.values.exhaustion import exhausted
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span

if TYPE_CHECKING:
    import duckdb

__all__ = ["DuckDBSink"]

# DuckDB has one kind of error for many causes: a commit that finds no room is a conflict by its kind.
_FULL = ("No space left on device", "File too large", "Disk quota exceeded")
_DAMAGED = ("not a valid DuckDB database file", "Could not read enough bytes", "Corrupt database file")

# DuckDB itself has one database for each file that a process has open.
_SHARED: WeakValueDictionary[str, _Shared] = WeakValueDictionary()
_FINDING = Lock()

_HERE = "table_catalog = current_database() AND table_schema = ? AND table_name = ?"

_MOMENTS = {
    "TIMESTAMP": "epoch_ms({})",
    "TIMESTAMP WITH TIME ZONE": "make_timestamptz({} * 1000)",
    "BIGINT": "{}",
    "INTEGER": "{}",
}
"""For each type that a time column may have, how a BIGINT becomes one."""


class _OutOfMemory(SinkUnavailable):
    """DuckDB may use too little memory for what it has to do, or others of this process have it just now."""


@attrs.frozen(eq=False)
class _Shared:
    """What the stores of this process on one file share: one connection to write, and the memory."""

    turns: Turns[duckdb.DuckDBPyConnection]
    memory: Memory = attrs.field(factory=Memory)


@attrs.frozen(repr=False)
class DuckDBSink(EmbeddedStore["duckdb.DuckDBPyConnection"]):
    """Stores rows in a DuckDB file, with what is covered beside them.

    Each dataset has a view named after it: `SELECT exchange, symbol, interval, open_time, open FROM ohlcv`.
    `open_time` is a TIMESTAMP in UTC (fetching TIMESTAMPTZ into Python would need pytz). With `table`, rows
    go into a table of yours. Either way NULL never overwrites a value and identical rows are left untouched.

    One process has the file open at a time: several take turns, a batch or some at a time, and nobody has it
    while there is nothing to write. Within a process any number of stores on one file work side by side. Our
    tables have no index, which would have to be in memory whole: a batch first looks whether the file has
    rows of its times.

    DuckDB would fill `memory_limit` with what it wrote last: writing makes do with 16 MiB where it can. It
    has one limit for all connections of a process to a file, yours too; once no store has the file open,
    that is again what it was before.

    Nothing is opened before it is used. Raises ConfigurationError if duckdb is not installed.

    >>> DuckDBSink("market.duckdb")
    DuckDBSink('market.duckdb')
    """

    memory_limit: str = attrs.field(default="256MB", kw_only=True)

    def __attrs_post_init__(self) -> None:
        require("duckdb", extra="duckdb", user="DuckDBSink")

    @property
    def batch_rows(self) -> int:
        """Rows that one transaction should have: more are written faster, but memory grows with them."""
        return 12_288

    @property
    def _time_type(self) -> str:
        return "TIMESTAMP"

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Open a writer; see Sink.

        After a SinkUnavailable the same batch may be written again. Between two batches others may have the
        file.
        """
        shared = self._shared()
        with closing(shared.turns) as turns:

            def write(batch: Batch) -> None:
                try:
                    with turns.use() as connection:
                        shared.memory.economise(connection)
                        self._write(connection, batch)
                except _OutOfMemory:
                    with turns.use() as connection:  # a new one, which may use all that it is allowed
                        self._write(connection, batch)

            with turns.use():
                pass  # a file that cannot be used is noticed before anything is fetched
            yield write

    @contextmanager
    def _writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        shared = self._shared()  # kept alive: while anybody has it, others find the same
        with closing(shared.turns) as turns, turns.use() as connection:
            yield connection

    def _shared(self) -> _Shared:
        """Return what all who use this file in this process share while any of them does.

        Where memory is scarce, DuckDB may keep rows of a commit that failed for lack of it, and the more
        write at once the scarcer it is. A connection that has failed is therefore closed.
        """
        name = os.path.realpath(self.path)
        with _FINDING:
            shared = _SHARED.get(name)
            if shared is None:
                turns = Turns(str(self.path), self._connected_by, partial(is_wanted, self.path))
                shared = _SHARED[name] = _Shared(turns)
            return shared

    def _connected(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        return self._connected_by(monotonic() + PATIENCE)

    @contextmanager
    def _connected_by(self, give_up: float) -> Iterator[duckdb.DuckDBPyConnection]:
        shared = self._shared()
        with self._translated():
            connection = self._opened(give_up)
        with closing(connection), ExitStack() as stack:
            with self._translated():
                stack.enter_context(shared.memory.limited(connection, self.memory_limit))
            yield connection

    def _opened(self, give_up: float) -> duckdb.DuckDBPyConnection:
        try:
            return open_file(self.path, give_up)
        except BlockingIOError as error:
            raise SinkUnavailable(
                f"{self.path}: others wait for it, too: wait, or run again later"
            ) from error
        except OSError as error:
            said = f"{self.path}: {error.strerror or error}"
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise SinkError(f"{said}; make room on the disk, then run again") from error
            if lacking := exhausted(error.errno):
                raise SinkUnavailable(f"{said}; {lacking}") from error
            raise SinkError(f"{said}; make its folder writable, or name another file") from error

    @contextmanager
    def _transaction(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        import duckdb

        with self._translated():
            try:
                connection.execute("BEGIN")
                yield
                connection.execute("COMMIT")
            except BaseException:
                # A commit that fails has undone all by itself. If even this finds no memory, the next BEGIN
                # fails and leads here again.
                with suppress(duckdb.TransactionException, duckdb.OutOfMemoryException):
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            raise self._explained(error) from error

    def _explained(self, error: duckdb.Error) -> SinkError:
        import duckdb

        said = f"{self.path}: {' '.join(str(error).split())}"
        match error:
            case duckdb.Error() if isinstance(error, duckdb.OutOfMemoryException) or _starved(said):
                return _OutOfMemory(f"{said}; raise memory_limit= from {self.memory_limit}")
            case duckdb.Error() if any(phrase in said for phrase in _FULL):
                return SinkError(f"{said}; make room on the disk, then run again")
            case duckdb.Error() if any(phrase in said for phrase in _DAMAGED):
                return SinkError(f"{said}; restore it from a copy, or name another file")
            case duckdb.TransactionException():
                return SinkUnavailable(f"{said}; another connection wrote the same series: write again")
            case duckdb.ConstraintException() if "Duplicate key" in said:
                # Or two connections added the same series; a table of another key says it every time.
                return SinkUnavailable(f"{said}; write again, or give your table the key of the mapping")
            case duckdb.CatalogException() if "pandas_scan" in said:  # every connect() puts it there anew
                return SinkUnavailable(f"{said}; another connection was just being opened: write again")
            case duckdb.IOException() if held_elsewhere(error):
                return SinkUnavailable(
                    f"{said}; one process at a time has the file: end the other one, or wait"
                )
            case duckdb.IOException():
                lacking = exhausted(None, said)
                remedy = lacking or "make the file and its folder writable, or name another file"
                return (SinkUnavailable if lacking else SinkError)(f"{said}; {remedy}")
            case duckdb.CatalogException():
                return SinkError(f"{said}; call prepare() first, it makes what is missing")
            case _:
                return SinkError(f"{said}; mend what DuckDB names, then run again")

    def _types(self, connection: duckdb.DuckDBPyConnection, name: str) -> dict[str, str]:
        found = connection.execute(
            f"SELECT column_name, data_type FROM information_schema.columns WHERE {_HERE}", _place(name)
        )
        return dict(found.fetchall())

    def _required(self, connection: duckdb.DuckDBPyConnection, name: str) -> set[str]:
        found = connection.execute(
            f"SELECT column_name FROM information_schema.columns WHERE {_HERE} "
            "AND is_nullable = 'NO' AND column_default IS NULL",
            _place(name),
        )
        return {column for (column,) in found.fetchall()}

    def _is_view(self, connection: duckdb.DuckDBPyConnection, name: str) -> bool:
        found = connection.execute(f"SELECT 1 FROM information_schema.views WHERE {_HERE}", _place(name))
        return found.fetchone() is not None

    def _create(self, table: Table, columns: str) -> str:
        return f"CREATE TABLE {table.name} ({columns})"

    def _view_time(self) -> str:
        return "r.open_time"

    def _check(self, connection: duckdb.DuckDBPyConnection, table: Table) -> None:
        kind = table.types[table.time]
        if kind not in _MOMENTS:
            raise ConfigurationError(
                f"{table.name}.{table.time} is {kind}; make it TIMESTAMP (in UTC), TIMESTAMPTZ, or BIGINT"
            )
        for name in table.labels:
            if table.types[name] != "VARCHAR":
                raise ConfigurationError(f"{table.name}.{name} is {table.types[name]}; make it VARCHAR")

    def _merge(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        labels: Sequence[int | str | None],
        rows: Columns,
    ) -> None:
        times = table.stored(rows.times) if _counted(table) else rows.times
        values = {f"c{place}": rows.values[line] for place, line in enumerate(table.lines)}
        connection.register("marketfetch_batch", {"t": times, **values})
        given = [*labels, int(times[0]), int(times[-1])]
        if connection.execute(_probe(table), given).fetchone() is None:
            connection.execute(_append(table), labels)
        else:
            connection.execute(_combine(table), given)
        connection.unregister("marketfetch_batch")

    def _rows(
        self, connection: duckdb.DuckDBPyConnection, table: Table, series: Series, series_id: int, span: Span
    ) -> Columns:
        time = quoted(table.time)
        columns = [f"{quoted(name)}::DOUBLE AS c{place}" for place, name in enumerate(table.columns)]
        where = [f"{quoted(name)} = ?" for name in table.labels]
        where += [f"{time} >= {_moment(table, '?::BIGINT')}", f"{time} < {_moment(table, '?::BIGINT')}"]
        if table.mapping is not None:
            where.append(f"coalesce({', '.join([*map(quoted, table.columns), 'NULL'])}) IS NOT NULL")
        bounds = table.bounds(span) if _counted(table) else (span.start, span.end)
        found = connection.execute(
            f"SELECT {time if _counted(table) else f'epoch_ms({time})'}::DOUBLE AS t, {', '.join(columns)} "
            f"FROM {table.relation} WHERE {' AND '.join(where)} ORDER BY t",
            [*table.values(series, series_id), *bounds],
        ).fetchnumpy()
        return table.restored(
            series.dataset, np.column_stack([np.ma.filled(line, np.nan) for line in found.values()])
        )


def _starved(said: str) -> bool:
    """Tell a lack of memory from what a commit, or a scan, says of it under another name."""
    return "failed to pin" in said or "could not allocate" in said


def _place(name: str) -> list[str]:
    schema, _, table = name.rpartition(".")
    return [schema or "main", table]


def _counted(table: Table) -> bool:
    """Tell whether time is a number, whose unit the mapping knows."""
    return table.types[table.time] in {"BIGINT", "INTEGER"}


def _moment(table: Table, number: str) -> str:
    return _MOMENTS[table.types[table.time]].format(number)


def _matching(table: Table) -> str:
    """Write the condition that picks the rows of a series between two times, inclusive."""
    label = [f"r.{quoted(name)} = ${place}" for place, name in enumerate(table.labels, 1)]
    first, last = (_moment(table, f"${len(label) + place}::BIGINT") for place in (1, 2))
    return " AND ".join([*label, f"r.{quoted(table.time)} BETWEEN {first} AND {last}"])


def _probe(table: Table) -> str:
    return f"SELECT 1 FROM {table.relation} AS r WHERE {_matching(table)} LIMIT 1"


def _source(table: Table) -> str:
    """Write the query that turns a registered batch into columns of the table's types.

    NaN in an array of NumPy's is NULL to DuckDB.
    """
    values = [f"c{place}::{table.types[name]} AS c{place}" for place, name in enumerate(table.columns)]
    return f"SELECT {_moment(table, 't')} AS t, {', '.join(values)} FROM marketfetch_batch"


def _append(table: Table) -> str:
    columns = ", ".join(map(quoted, (*table.key, *table.columns)))
    labels = ", ".join(f"${place}" for place, _ in enumerate(table.labels, 1))
    return f"INSERT INTO {table.relation} ({columns}) SELECT {labels}, u.* FROM ({_source(table)}) AS u"


def _combine(table: Table) -> str:
    """Write the merge with rows that are there: a NULL never overwrites, an equal row is not touched."""
    pairs = [(quoted(name), f"u.c{place}") for place, name in enumerate(table.columns)]
    differs = " OR ".join(f"({new} IS NOT NULL AND {new} IS DISTINCT FROM r.{old})" for old, new in pairs)
    better = ", ".join(f"{old} = coalesce({new}, r.{old})" for old, new in pairs)
    columns = ", ".join(map(quoted, (*table.key, *table.columns)))
    labels = [f"${place}" for place, _ in enumerate(table.labels, 1)]
    return (
        f"MERGE INTO {table.relation} AS r USING ({_source(table)}) AS u "
        f"ON {_matching(table)} AND r.{quoted(table.time)} = u.t "
        f"WHEN MATCHED AND ({differs}) THEN UPDATE SET {better} "
        f"WHEN NOT MATCHED THEN INSERT ({columns}) "
        f"VALUES ({', '.join([*labels, 'u.t', *(new for _, new in pairs)])})"
    )
