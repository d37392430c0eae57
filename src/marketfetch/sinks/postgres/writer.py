"""Write a batch atomically: rows and coverage in one transaction, under the advisory lock of the series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray
from psycopg.errors import CheckViolation

from marketfetch.errors import ConfigurationError, RowsRefused
from marketfetch.sinks.postgres import statements
from marketfetch.sinks.postgres.copy_binary import WireColumn, copy_body
from marketfetch.sinks.postgres.coverage_tables import PostgresCoverageTables
from marketfetch.sinks.postgres.errors import missing_partition
from marketfetch.sinks.postgres.reader import read_page
from marketfetch.sinks.postgres.schema.layouts import Layout, lock_name
from marketfetch.sinks.postgres.schema.tables import PostgresTable
from marketfetch.sinks.postgres.session import Connection, PostgresSession
from marketfetch.sinks.table_mapping import Name
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span

__all__ = ["BatchWriter"]

_MERGE_SINCE = 150_000
_PIECE = 2048

# The planner has no statistics of the staged rows: without this it may look up each row by itself where it
# should read the stored rows in one go. A role may have another default than the shortest text of floats.
_SETTINGS = "SELECT set_config('enable_nestloop', %s, true), set_config('extra_float_digits', '1', true)"


@attrs.define
class BatchWriter:
    """Writes batches through one session; used by one thread at a time.

    Writers of the same rows wait for each other at the lock of the series. A transaction writes one series
    and takes one such lock, so writers cannot deadlock. A batch that was committed may be written again.
    """

    _session: PostgresSession
    _layout: Layout
    _ledger: PostgresCoverageTables
    _tables: dict[Dataset, PostgresTable] = attrs.field(factory=dict, init=False)
    _written: set[Series] = attrs.field(factory=set, init=False)
    _target: str | None = attrs.field(default=None, init=False)
    _texts: dict[tuple[object, ...], bytes] = attrs.field(factory=dict, init=False)

    def __call__(self, batch: Batch) -> None:
        """Make a batch durable; raises SinkError, or SinkUnavailable where the same batch may work later."""
        series = batch.series
        with self._session.transaction(f"write {series}") as connection:
            table = self._table(connection, series.dataset)
            if self._target is None:
                self._target = self._layout.target(connection)
            new = (
                not table.is_own
                and series not in self._written
                and self._ledger.find(connection, self._target, series) is None
            )
            series_id = self._ledger.lock_and_get_series_id(
                connection, lock_name(self._layout, table, series), self._target, series
            )
            if new:
                self._refuse_collisions(connection, self._target, series)
            key_values = table.label_values(series, series_id)
            table.check_key_values(series, key_values)
            if len(batch.columns):
                self._write(_Rows(connection, table, key_values, self._texts), batch)
            self._ledger.unite(connection, {series_id: batch})
        self._written.add(series)

    def _refuse_collisions(self, connection: Connection, target: str, series: Series) -> None:
        """Raise RowsRefused if the series would overwrite one that another process has begun meanwhile."""
        stored_series = self._ledger.series_of_datasets(connection, target, [series.dataset])
        try:
            self._layout.refuse_collisions(connection, [*stored_series, series])
        except ConfigurationError as error:
            raise RowsRefused(str(error)) from error

    def _write(self, rows: _Rows, batch: Batch) -> None:
        try:
            rows.write(Columns.join([batch.columns]))
        except CheckViolation as error:
            if error.diag.source_function != "ExecFindPartition":
                raise
            times = batch.columns.times
            span = batch.coverage.covered.hull or Span(int(times.min()), int(times.max()) + 1)
            raise RowsRefused(missing_partition(batch.series, rows.table, span)) from None

    def interrupt(self) -> None:
        """Cancel the write that is under way; see SupportsInterrupt."""
        self._session.interrupt()

    def _table(self, connection: Connection, dataset: Dataset) -> PostgresTable:
        if dataset not in self._tables:
            self._tables[dataset] = self._layout.table(connection, dataset)
        return self._tables[dataset]


@attrs.frozen
class _Rows:
    """The rows of one series in a transaction that holds the lock of the series."""

    connection: Connection
    table: PostgresTable
    key_values: tuple[Name, ...]
    texts: dict[tuple[object, ...], bytes]
    """A cache of statements as bytes: composing one takes longer than sending it."""

    def write(self, columns: Columns) -> None:
        """Write one or more sorted rows: copy the new ones, merge those that differ from a stored row."""
        if self.table.is_own:
            columns = self._add_new(columns)
        if len(columns):
            self._merge(columns)

    def _add_new(self, columns: Columns) -> Columns:
        """Copy the rows that are not stored; return the rows that would change a stored one.

        The lock of the series keeps other writers out, so the rows read here stay as they are. Reading is
        cheaper than staging, and rows that are stored already leave no trace, not even in the catalogue.

        1. All rows are later than the newest stored one: copy them.
        2. Far more rows are stored than given: copy the later rows, and leave the others to the merge.
        3. Else compare with the stored rows: copy the new ones, and leave those that differ to the merge.
        """
        cut = int(np.searchsorted(columns.times, self._newest(columns), side="right"))
        below, above = columns.take(slice(cut)), columns.take(slice(cut, None))
        if not cut:
            self._append(above)
            return below
        stored = self._stored(below)
        if stored is None:
            if len(above):
                self._append(above)
            return below
        new, changed = _diff_rows(below, stored)
        fresh = Columns.join([below.take(new), above])
        if len(fresh):
            self._append(fresh)
        return below.take(changed)

    def _stored(self, columns: Columns) -> Columns | None:
        """Return the stored rows from the first given row to the last; None if there are far more of them."""
        span = Span(int(columns.times[0]), int(columns.times[-1]) + 1)
        limit = 4 * len(columns)
        stored = read_page(self.connection, self.table, self.key_values, span, limit)
        return stored if len(stored) < limit else None

    def _newest(self, columns: Columns) -> int:
        """Return the newest stored time between the first row and the last, or a time before the first."""
        row = self.connection.execute(
            self._text(statements.newest_time), self._parameters(columns)
        ).fetchone()
        assert row is not None
        newest_time, types = row
        # COPY BINARY sends bytes, which a column of another type would read as other values.
        self.table.check(dict(zip(self.table.types, types, strict=True)))
        return int(columns.times[0]) - 1 if newest_time is None else int(newest_time)

    def _append(self, columns: Columns) -> None:
        table, filled = self.table, self.table.filled(columns)
        names = (*table.labels, *table.names(filled))

        def wire_columns(rows: Columns) -> list[WireColumn]:
            keys = [WireColumn(np.full(len(rows), value, np.int32)) for value in self.key_values]
            return [*keys, *table.wire_columns(rows, filled)]

        self._copy(self._text(statements.copy_rows, names), map(wire_columns, _pieces(columns)))

    def _merge(self, columns: Columns) -> None:
        table, parameters = self.table, self._parameters(columns)
        filled = table.filled(columns)
        wire = (table.wire_columns(rows, filled) for rows in _pieces(columns))
        self.connection.execute(statements.create_staging_table(table))
        self._copy(statements.copy_into_staging(table.names(filled)), wire)
        self.connection.execute(_SETTINGS, ["off" if table.ordered else "on"])
        mergeable = table.is_own and self.connection.info.server_version >= _MERGE_SINCE
        self.connection.execute(
            (statements.merge_staged if mergeable else statements.upsert_staged)(table), parameters
        )
        if table.guarded:
            unstored = self.connection.execute(statements.first_unstored_row(table), parameters).fetchone()
            if unstored is not None:
                raise RowsRefused(
                    f"{table.title}: a trigger or rule of it keeps the row of {unstored[0]} out, or changes "
                    "it; drop the trigger or rule, or have it let rows through as they are"
                )

    def _parameters(self, columns: Columns) -> dict[str, object]:
        """Return the parameters of the statements for rows of these times."""
        first, last = (self.table.time_codec.bound(int(columns.times[i])) for i in (0, -1))
        return self.table.parameters(self.key_values, first=first, last=last)

    def _text(self, write: Callable[..., bytes], *arguments: object) -> bytes:
        key = (write, self.table.title, *arguments)
        if key not in self.texts:
            self.texts[key] = write(self.table, *arguments)
        return self.texts[key]

    def _copy(self, statement: bytes, pieces: Iterable[Sequence[WireColumn]]) -> None:
        with self.connection.cursor().copy(statement) as copy:
            for piece in copy_body(pieces):
                copy.write(piece)


def _pieces(columns: Columns) -> Iterator[Columns]:
    """Cut rows into pieces that fit the processor's cache; the server works on one during the next."""
    for start in range(0, len(columns), _PIECE):
        yield columns.take(slice(start, start + _PIECE))


def _diff_rows(given: Columns, stored: Columns) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return two masks over the given rows: whether a row is new, and whether it changes a stored row.

    Both arguments are sorted by time. A NULL changes nothing, and neither does the sign of a zero.

    >>> given = Columns(np.array([0, 1, 2]), np.array([[5.0, np.nan, 7.0]]))
    >>> stored = Columns(np.array([0, 1]), np.array([[4.0, 6.0]]))
    >>> [mask.tolist() for mask in _diff_rows(given, stored)]
    [[False, False, True], [True, False, False]]
    """
    if not len(stored):
        return np.ones(len(given), np.bool_), np.zeros(len(given), np.bool_)
    at = np.minimum(np.searchsorted(stored.times, given.times), len(stored) - 1)
    new = stored.times[at] != given.times
    changed = ((given.values != stored.values[:, at]) & ~np.isnan(given.values)).any(axis=0)
    return new, changed & ~new
