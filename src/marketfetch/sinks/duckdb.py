"""The DuckDB store: one file, compressed, and quick to analyse."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import ConfigurationError, SinkError, SinkUnavailable
from marketfetch.protocols import Writer
from marketfetch.sinks.duckerrors import OutOfMemory, explained
from marketfetch.sinks.duckfile import is_wanted, open_file, open_to_read
from marketfetch.sinks.duckmemory import Memory
from marketfetch.sinks.durable import PATIENCE
from marketfetch.sinks.embedded import EmbeddedStore
from marketfetch.sinks.forks import OPEN_FILES
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

_HERE = "table_catalog = current_database() AND table_schema = ? AND table_name = ?"

_MOMENTS = {
    "TIMESTAMP": "epoch_ms({})",
    "TIMESTAMP WITH TIME ZONE": "make_timestamptz({} * 1000)",
    "TIMESTAMP_NS": "make_timestamp_ns(least({}, 9223372036854) * 1000000)",  # the year 2262
    "TIMESTAMP_MS": "epoch_ms({})::TIMESTAMP_MS",
    "TIMESTAMP_S": "epoch_ms({})::TIMESTAMP_S",
    "DATE": "epoch_ms({})::DATE",
    "BIGINT": "{}",
    "UBIGINT": "{}",
    "INTEGER": "{}",
    "UINTEGER": "{}",
}
"""For each type that a time column may have, how a BIGINT becomes one."""

_COARSE = {"TIMESTAMP_S": 1000, "DATE": 86_400_000}
"""Types that would cut off a part of a time: milliseconds from one value to the next."""


@attrs.define(eq=False)
class _Shared:
    """What the stores of this process on one file share: one connection to write, and the memory."""

    turns: Turns[duckdb.DuckDBPyConnection]
    memory: Memory = attrs.field(factory=Memory)
    readers: int = 0
    """How many of them are reading now, with connections that cannot write."""


@attrs.define(eq=False)
class _Files:
    """The files that stores of this process use: DuckDB itself has one database for each of them."""

    _shared: WeakValueDictionary[str, _Shared] = attrs.field(factory=WeakValueDictionary, init=False)
    lock: Lock = attrs.field(factory=Lock, init=False)
    _inherited: list[_Shared] = attrs.field(factory=list, init=False)

    def shared(self, path: Path, make: Callable[[], _Shared]) -> _Shared:
        """Return what the stores on a file share while any of them uses it."""
        with self.lock:
            name = os.path.realpath(path)
            shared = self._shared.get(name)
            if shared is None:
                shared = self._shared[name] = make()
            return shared

    def fork(self) -> None:
        """Begin anew in a forked child, where DuckDB's threads are not and the lock may be held for ever."""
        self._inherited += self._shared.values()  # kept: closing one would wait for the threads
        self._shared, self.lock = WeakValueDictionary(), Lock()


_FILES = _Files()

if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_FILES.fork)


@attrs.frozen(repr=False)
class DuckDBSink(EmbeddedStore["duckdb.DuckDBPyConnection"]):
    """Stores rows in a DuckDB file, with what is covered beside them.

    Each dataset has a view named after it: `SELECT exchange, symbol, interval, open_time, open FROM ohlcv`.
    `open_time` is a TIMESTAMP in UTC (fetching TIMESTAMPTZ into Python would need pytz). With `table`, rows
    go into a table of yours. Either way NULL never overwrites a value and identical rows are left untouched.

    One process has the file open to write at a time: several take turns, a batch or some at a time, and the
    file is free while there is nothing to write. Reading opens it read-only, as other programs may at the
    same time. Within a process any number of stores on one file work side by side; a child that is forked
    while the file is open cannot use it. Our tables have no index, which would have to be in memory whole: a
    batch first looks whether the file has rows of its times.

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
    def _clustered(self) -> bool:
        return False

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
                except OutOfMemory:
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

        def make() -> _Shared:
            return _Shared(Turns(str(self.path), self._connected_by, partial(is_wanted, self.path)))

        return _FILES.shared(self.path, make)

    def _connected(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        return self._connected_by(monotonic() + PATIENCE)

    @contextmanager
    def _connected_by(self, give_up: float) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._limited(partial(open_file, self.path, give_up)) as connection:
            yield connection

    @contextmanager
    def _connected_to_read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        shared = self._shared()
        with _FILES.lock:
            shared.readers += 1
        try:
            with self._limited(partial(open_to_read, self.path, monotonic() + PATIENCE)) as connection:
                yield connection
        finally:
            with _FILES.lock:
                shared.readers -= 1

    @contextmanager
    def _limited(
        self, connect: Callable[[], duckdb.DuckDBPyConnection]
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file, with the memory that it may use, and close it."""
        shared = self._shared()
        OPEN_FILES.refuse_inherited(self.path)
        with OPEN_FILES.opened(self.path), ExitStack() as stack:
            with self._translated():
                connection = stack.enter_context(closing(self._opened(connect)))
                stack.enter_context(shared.memory.limited(connection, self.memory_limit))
            yield connection

    def _opened(self, connect: Callable[[], duckdb.DuckDBPyConnection]) -> duckdb.DuckDBPyConnection:
        try:
            return connect()
        except BlockingIOError as error:
            raise SinkUnavailable(
                f"{self.path}: others wait for it, too: wait, or run again later"
            ) from error
        except OSError as error:
            said = f"{self.path}: {error.strerror or error}"
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
            raise explained(error, self.path, self.memory_limit, self._shared().readers) from error

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

    def _is_made_by(self, connection: duckdb.DuckDBPyConnection, view: str, statement: str) -> bool:
        return True  # with these columns there has been one definition only

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

    def _inside(self, table: Table) -> str:
        where = [f"{quoted(name)} = ?" for name in table.labels]
        time, moment = quoted(table.time), _moment(table, "?::BIGINT")
        return " AND ".join([*where, f"{time} >= {moment}", f"{time} < {moment}"])

    def _bounds(
        self, connection: duckdb.DuckDBPyConnection, table: Table, span: Span
    ) -> tuple[int | str, int | str]:
        step = _COARSE.get(table.types[table.time], 1)
        return table.bounds(span) if _counted(table) else (_up(span.start, step), _up(span.end, step))

    def _merge(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Table,
        labels: Sequence[int | str | None],
        rows: Columns,
    ) -> None:
        times = table.stored(rows.times) if _counted(table) else _exact(table, rows.times)
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
        where = [self._inside(table)]
        if table.mapping is not None:
            where.append(f"coalesce({', '.join([*map(quoted, table.columns), 'NULL'])}) IS NOT NULL")
        moment = time if _counted(table) else f"epoch_ms({time}::TIMESTAMP)"
        found = connection.execute(
            f"SELECT {moment}::DOUBLE AS t, {', '.join(columns)} "
            f"FROM {table.relation} WHERE {' AND '.join(where)} ORDER BY t",
            [*table.values(series, series_id), *self._bounds(connection, table, span)],
        ).fetchnumpy()
        return table.restored(
            series.dataset, np.column_stack([np.ma.filled(line, np.nan) for line in found.values()])
        )


def _place(name: str) -> list[str]:
    schema, _, table = name.rpartition(".")
    return [schema or "main", table]


def _counted(table: Table) -> bool:
    """Tell whether time is a number, whose unit the mapping knows."""
    return "INT" in table.types[table.time]


def _exact(table: Table, times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the times; raises SinkError where the type of the column would cut off a part of one."""
    kind = table.types[table.time]
    if np.any(times % _COARSE.get(kind, 1)):
        raise SinkError(
            f"{table.name}.{table.time} is {kind}, which is too coarse for this dataset; make it TIMESTAMP"
        )
    return times


def _up(ms: int, step: int) -> int:
    """Return the first multiple of a step at or after a moment."""
    return -(-ms // step) * step


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
