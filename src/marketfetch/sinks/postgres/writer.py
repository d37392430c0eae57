"""Making a batch durable: rows and coverage in one transaction, under the lock of the series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date

import attrs
import numpy as np
from psycopg.errors import CheckViolation
from psycopg.sql import Composed

from marketfetch.errors import ConfigurationError, RowsRefused
from marketfetch.sinks.postgres import statements
from marketfetch.sinks.postgres.copy_binary import WireColumn, copy_body
from marketfetch.sinks.postgres.coverage_tables import CoverageTables
from marketfetch.sinks.postgres.diff import diff_rows
from marketfetch.sinks.postgres.errors import missing_partition
from marketfetch.sinks.postgres.reader import read_page
from marketfetch.sinks.postgres.schema.layouts import Layout, lock_name
from marketfetch.sinks.postgres.schema.tables import TableModel
from marketfetch.sinks.postgres.session import Connection, Session
from marketfetch.sinks.table_mapping import Name
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span

__all__ = ["BatchWriter"]

_MERGE_SINCE = 150_000
_PIECE = 2048

# The planner knows nothing of the staged rows, and must not look up each where reading the stored ones in one
# go is best. Shortest text of floats is the default, but a role may have another.
_SETTINGS = "SELECT set_config('enable_nestloop', %s, true), set_config('extra_float_digits', '1', true)"


@attrs.define
class BatchWriter:
    """Writes batches through one session; used by one thread at a time.

    Whoever writes the same rows takes turns, one series per transaction: nobody waits for two locks, so that
    there are no deadlocks among us. What was committed before an error may be written again.
    """

    _session: Session
    _layout: Layout
    _ledger: CoverageTables
    _tables: dict[Dataset, TableModel] = attrs.field(factory=dict, init=False)
    _met: set[Series] = attrs.field(factory=set, init=False)
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
                and series not in self._met
                and self._ledger.find(connection, self._target, series) is None
            )
            series_id = self._ledger.claim(
                connection, lock_name(self._layout, table, series), self._target, series
            )
            if new:
                self._refuse_collisions(connection, self._target, series)
            labels = self._layout.labels(series, series_id)
            table.check_labels(series, labels)
            if len(batch.columns):
                self._write(_Rows(connection, table, labels, self._texts), batch)
            self._ledger.add(connection, series_id, batch)
        self._met.add(series)

    def _refuse_collisions(self, connection: Connection, target: str, series: Series) -> None:
        """Raise RowsRefused where another process has begun a series since we asked what is covered."""
        held = [
            Series.of(exchange, series.dataset, symbol, interval)
            for exchange, _, symbol, interval in self._ledger.held(connection, target, [series.dataset.name])
        ]
        try:
            self._layout.refuse_collisions(connection, [*held, series])
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
        """Have the write that is under way fail; see SupportsInterrupt."""
        self._session.interrupt()

    def _table(self, connection: Connection, dataset: Dataset) -> TableModel:
        if dataset not in self._tables:
            self._tables[dataset] = self._layout.table(connection, dataset)
        return self._tables[dataset]


@attrs.frozen
class _Rows:
    """The rows of one series in a transaction that holds their lock."""

    connection: Connection
    table: TableModel
    labels: tuple[Name, ...]
    texts: dict[tuple[object, ...], bytes]
    """Statements as they are sent: writing one takes longer than sending it."""

    def write(self, columns: Columns) -> None:
        """Write one or more sorted rows: as they are where nothing is stored, else what differs."""
        if self.table.is_own:
            columns = self._add_new(columns)
        if len(columns):
            self._merge(columns)

    def _add_new(self, columns: Columns) -> Columns:
        """Add the rows that are not stored; return those that would change a stored one.

        Under the lock of the series nobody else writes here: what is read stays true. Reading is cheaper than
        staging, and rows that are there already leave no trace, not even in the catalogues.
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
        new, changed = diff_rows(below, stored)
        fresh = Columns.join([below.take(new), above])
        if len(fresh):
            self._append(fresh)
        return below.take(changed)

    def _stored(self, columns: Columns) -> Columns | None:
        """Return the stored rows between the first given row and the last; None if they are far more."""
        span = Span(int(columns.times[0]), int(columns.times[-1]) + 1)
        limit = 4 * len(columns)
        stored = read_page(self.connection, self.table, self.labels, span, limit)
        return stored if len(stored) < limit else None

    def _newest(self, columns: Columns) -> int:
        """Return the newest stored time between the first row and the last, or a time before the first."""
        row = self.connection.execute(self._text(statements.newest), self._place(columns)).fetchone()
        assert row is not None
        newest, types = row
        # Rows travel as bytes, of which each type makes something else.
        self.table.check(dict(zip(self.table.types, types, strict=True)))
        return int(columns.times[0]) - 1 if newest is None else int(newest)

    def _append(self, columns: Columns) -> None:
        table, filled = self.table, self.table.filled(columns)
        names = (*(label.name for label in table.keys), *table.names(filled))

        def strips(rows: Columns) -> list[WireColumn]:
            labels = [WireColumn(np.full(len(rows), value, np.int32)) for value in self.labels]
            return [*labels, *table.strips(rows, filled)]

        self._copy(self._text(statements.copy_rows, names), map(strips, _pieces(columns)))

    def _merge(self, columns: Columns) -> None:
        table, place = self.table, self._place(columns)
        filled = table.filled(columns)
        strips = (table.strips(rows, filled) for rows in _pieces(columns))
        self.connection.execute(statements.staging(table))
        self._copy(statements.stage(table.names(filled)).as_bytes(self.connection), strips)
        self.connection.execute(_SETTINGS, ["off" if table.ordered else "on"])
        mergeable = table.is_own and self.connection.info.server_version >= _MERGE_SINCE
        self.connection.execute((statements.merge if mergeable else statements.upsert)(table), place)
        if table.guarded:
            lost = self.connection.execute(statements.kept_out(table), place).fetchone()
            if lost is not None:
                raise RowsRefused(
                    f"{table.title}: a trigger or rule of it keeps the row of {lost[0]} out, or changes it; "
                    "drop the trigger or rule, or have it let rows through as they are"
                )

    def _place(self, columns: Columns) -> dict[str, Name | date]:
        """Return the parameters of the statements for rows of these times."""
        first, last = (self.table.time_codec.bound(int(columns.times[i])) for i in (0, -1))
        return {"first": first, "last": last, **{f"label{i}": value for i, value in enumerate(self.labels)}}

    def _text(self, write: Callable[..., Composed], *arguments: object) -> bytes:
        key = (write, self.table.title, *arguments)
        if key not in self.texts:
            self.texts[key] = write(self.table, *arguments).as_bytes(self.connection)
        return self.texts[key]

    def _copy(self, statement: bytes, pieces: Iterable[Sequence[WireColumn]]) -> None:
        with self.connection.cursor().copy(statement) as copy:
            for piece in copy_body(pieces):
                copy.write(piece)


def _pieces(columns: Columns) -> Iterator[Columns]:
    """Cut rows into pieces that fit the processor's cache; the server is at work on one meanwhile."""
    for start in range(0, len(columns), _PIECE):
        yield columns.take(slice(start, start + _PIECE))
