"""The PostgreSQL store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, LiteralString

import attrs
from psycopg_pool import ConnectionPool

from marketfetch.common.type_checks import is_text, is_whole
from marketfetch.errors import ConfigurationError, SinkError
from marketfetch.protocols import Writer
from marketfetch.redaction import Secret, redact
from marketfetch.sinks.postgres import statements
from marketfetch.sinks.postgres.board import PostgresBoard
from marketfetch.sinks.postgres.connections import Connections, connections_of
from marketfetch.sinks.postgres.coverage_tables import PostgresCoverageTables, lock
from marketfetch.sinks.postgres.reader import read, read_newest
from marketfetch.sinks.postgres.schema import versions as formats
from marketfetch.sinks.postgres.schema.layouts import Layout, lock_name
from marketfetch.sinks.postgres.schema.mapped import MappedTable
from marketfetch.sinks.postgres.schema.own import OwnTables
from marketfetch.sinks.postgres.schema.privileges import check_schema, check_session
from marketfetch.sinks.postgres.schema.tables import PostgresTable
from marketfetch.sinks.postgres.session import Connection, PostgresSession
from marketfetch.sinks.postgres.writer import BatchWriter
from marketfetch.sinks.table_mapping import Name, TableMapping, mapping_or_none
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["PostgresSink"]


# A write can be interrupted. Other transactions cannot: they wait two seconds for a lock, then are retried.
_BRIEFLY = "SELECT set_config('lock_timeout', '2s', true) WHERE current_setting('lock_timeout') = '0'"
_READING = (
    "SELECT set_config('transaction_read_only', 'on', true), "
    "CASE current_setting('lock_timeout') WHEN '0' THEN set_config('lock_timeout', '2s', true) END"
)


@attrs.frozen(init=False, repr=False)
class PostgresSink:
    """Stores rows and coverage in PostgreSQL 14 or newer.

    `dsn` is a URL or `key=value` text as libpq reads it. A service may pass its connection pool instead, a
    `psycopg_pool.ConnectionPool`, as `pool`, and the service opens and closes the pool. Each transaction
    borrows one connection from the pool and returns the connection as it was.

    Without `table`, each dataset has a table in `schema`, and a view in the first schema of the search path:
    `SELECT exchange, symbol, interval, open_time, ... FROM ohlcv`. `views=False` makes no views. With
    `table`, rows go into a table of yours, and `schema` holds only the coverage. Either way NULL never
    overwrites a value, identical rows are left untouched, and many processes may write at once.

    `max_writers` writers work side by side, each on its own connection; more writers than the server has
    cores do not help. No state stays on the server between transactions, so PgBouncer in transaction mode
    will do.

    Nothing is opened before it is used. Raises ConfigurationError for a DSN that cannot be read.

    >>> PostgresSink("postgresql://ann:hunter2@db.example/market")
    PostgresSink('postgresql://db.example/market')
    """

    _connections: Connections
    table: TableMapping | None = attrs.field(validator=mapping_or_none)
    max_writers: int
    schema: str
    views: bool

    def __init__(  # noqa: PLR0913  # what each does is independent of the others
        self,
        dsn: str | Secret | None = None,
        *,
        pool: ConnectionPool[Any] | None = None,
        table: TableMapping | None = None,
        max_writers: int = 2,
        schema: str = "marketfetch",
        views: bool = True,
    ) -> None:
        # Debuggers show the local variables of a frame that raises: `dsn` is bound anew.
        connections, dsn = connections_of(dsn, pool), None
        if isinstance(connections, ConfigurationError):
            raise connections
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue]
            connections, table, max_writers, schema, views
        )

    def __attrs_post_init__(self) -> None:
        if not is_whole(self.max_writers) or self.max_writers < 1:
            raise ConfigurationError(
                f"max_writers: {redact(repr(self.max_writers))} writers write nothing; take at least 1"
            )
        if not is_text(self.schema):
            raise ConfigurationError(f"schema: {self.schema!r} is not a name; write one as text")

    @property
    def batch_rows(self) -> int:
        """12,000 rows in a transaction: more are only a little faster, and several batches are in memory."""
        return 12_000

    @classmethod
    def from_url(cls, url: str) -> PostgresSink:
        """Make the sink that a `postgresql://` URL of the command line names."""
        dsn, url = Secret(url), ""  # debuggers show the values that a raising frame holds
        return cls(dsn)

    def prepare(self, datasets: Sequence[Dataset]) -> None:
        """Make the tables and views that the datasets need, or check the user's table; see Sink.

        Raises SinkUnavailable if the server cannot be reached, SinkError if it refuses or if another relation
        has the name of a table or view, ConfigurationError if the user's table is not fit for a dataset.
        """
        with self._transaction("prepare the tables") as connection:
            check_session(connection)
            check_schema(connection, self.schema)
            lock(connection, f"{self.schema} prepare")
            formats.prepare(connection, self.schema)
            self._layout.prepare(connection, datasets)

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Open a writer, which connects with the first batch; see Sink.

        After a SinkUnavailable it connects anew, and the same batch may be written again.
        """
        with closing(PostgresSession(self._connections)) as session:
            yield BatchWriter(session, self._layout, PostgresCoverageTables(self.schema))

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        """Return the coverage of each of the given series; see Store.

        Raises ConfigurationError if two series, given or stored, would share rows of a mapped table.
        """
        with self._reading("read what is covered") as (connection, ledger):
            stored: Mapping[Series, Coverage] = {}
            others: Iterable[Series] = ()
            if ledger is not None:
                target = self._layout.target(connection)
                stored = ledger.coverage(connection, target, list(dict.fromkeys(series)))
                if self.table is not None:
                    others = ledger.series_of_datasets(connection, target, {one.dataset for one in series})
            if self.table is not None:
                MappedTable(self.table).refuse_collisions(connection, [*others, *series])
        return {one: stored.get(one, Coverage()) for one in series}

    def ledger(self) -> Mapping[Series, Coverage]:
        """Return the coverage of every series held whose dataset marketfetch itself knows; see Store."""
        with self._reading("read what is covered") as (connection, ledger):
            if ledger is None:
                return {}
            return dict(ledger.all(connection, self._layout.target(connection)))

    def read(self, series: Series, span: Span) -> Columns:
        """Return the stored rows of a series inside a span, sorted by time; see Store.

        Columns that are not mapped are NaN; rows of a mapped table without a value of this dataset are left
        out.
        """
        with self._reading(f"read {series}") as (connection, ledger):
            series_id = self._id(connection, ledger, series)
            if series_id is None:
                return Columns.empty(series.dataset)
            table = self._layout.table(connection, series.dataset)
            return read(connection, table, table.label_values(series, series_id), series.dataset, span)

    def series(self) -> Collection[Series]:
        """Return every series that has coverage and a dataset which marketfetch knows; see SupportsLatest."""
        with self._reading("read which series there are") as (connection, ledger):
            return [] if ledger is None else ledger.series(connection, self._layout.target(connection))

    def latest(self, series: Collection[Series], limit: int) -> Mapping[Series, Columns]:
        """Return the newest rows of each series, from the end of an index; see SupportsLatest."""
        newest: dict[Series, Columns] = {}
        with self._reading("read the newest rows") as (connection, ledger):
            for one in series:
                newest[one] = Columns.empty(one.dataset)
                series_id = self._id(connection, ledger, one)
                if series_id is not None:
                    table = self._layout.table(connection, one.dataset)
                    key_values = table.label_values(one, series_id)
                    newest[one] = read_newest(connection, table, key_values, one.dataset, limit)
        return newest

    def rejected(self, series: Series, span: Span) -> Sequence[RejectedRow]:
        """Return the rejected rows of a series whose times lie inside a span; see SupportsRejected."""
        with self._reading(f"read the rejected rows of {series}") as (connection, ledger):
            series_id = self._id(connection, ledger, series)
            if ledger is None or series_id is None:
                return []
            return ledger.rejected(connection, series_id, span)

    def provenance(self, series: Series) -> Sequence[Provenance]:
        """Return the files of archives that rows of a series came from; see SupportsProvenance."""
        with self._reading(f"read the provenance of {series}") as (connection, ledger):
            series_id = self._id(connection, ledger, series)
            return [] if ledger is None or series_id is None else ledger.files(connection, series_id)

    def forget(self, series: Series, spans: SpanSet, *, rows: bool = False) -> None:
        """Remove the coverage of moments of a series, and with `rows=True` the rows; see SupportsForget.

        In a mapped table the columns of this dataset become NULL; a row is deleted if only its key is left.
        Raises SinkError for tables of format 1, which `prepare` migrates.
        """
        with self._transaction(f"forget {series}") as connection:
            ledger = formats.open_ledger(connection, self.schema)
            if ledger is None or not spans:
                return
            if ledger.format < 2:
                raise SinkError(f"schema {self.schema} has format {ledger.format}: call prepare() first")
            table = self._layout.table(connection, series.dataset)
            lock(connection, lock_name(self._layout, table, series))
            series_id = self._id(connection, ledger, series)
            if series_id is None:
                return
            ledger.forget(connection, series_id, spans)
            if rows:
                _delete_rows(connection, table, table.label_values(series, series_id), spans)

    def board(self) -> PostgresBoard:
        """Return the board in this schema: processes that write here share the budgets of addresses."""
        return PostgresBoard.on(self._connections, self.schema)

    @property
    def _layout(self) -> Layout:
        return OwnTables(self.schema, self.views) if self.table is None else MappedTable(self.table)

    @contextmanager
    def _transaction(self, purpose: str, settings: LiteralString = _BRIEFLY) -> Iterator[Connection]:
        with (
            closing(PostgresSession(self._connections)) as session,
            session.transaction(purpose) as connection,
        ):
            connection.execute(settings)
            yield connection

    @contextmanager
    def _reading(self, purpose: str) -> Iterator[tuple[Connection, PostgresCoverageTables | None]]:
        """Open a read-only transaction, and yield its connection and the ledger, None if there is none."""
        with self._transaction(purpose, _READING) as connection:
            yield connection, formats.open_ledger(connection, self.schema)

    def _id(
        self, connection: Connection, ledger: PostgresCoverageTables | None, series: Series
    ) -> int | None:
        return None if ledger is None else ledger.find(connection, self._layout.target(connection), series)

    def __repr__(self) -> str:
        return f"PostgresSink({self._connections!r})"


def _delete_rows(
    connection: Connection, table: PostgresTable, key_values: Sequence[Name], spans: SpanSet
) -> None:
    """Delete rows of a series, and no value that another program wrote into the same table."""
    bound = table.time_codec.bound
    starts, ends = [bound(span.start) for span in spans], [bound(span.end) for span in spans]
    parameters = table.parameters(key_values, starts=starts, ends=ends)
    connection.execute(statements.delete_rows(table), parameters)
    if not table.is_own:
        connection.execute(statements.set_values_null(table), parameters)
