"""The common part of the stores in one database file, DuckDB and SQLite."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self, TypeVar

import attrs

from marketfetch.common.platforms import command_text
from marketfetch.errors import ConfigurationError, RowsRefused, SinkError
from marketfetch.protocols import GroupWriter, Writer
from marketfetch.redaction import Secret
from marketfetch.sinks.files.fork_guard import OPEN_FILES
from marketfetch.sinks.files.paths import check_folder, file_identity, file_path, path_from_uri
from marketfetch.sinks.remedies import newer_format_error
from marketfetch.sinks.sql.coverage_schema import FORMAT, PREFIX, DbConnection
from marketfetch.sinks.sql.coverage_tables import FileCoverageTables
from marketfetch.sinks.sql.file_dialect import FileDialect
from marketfetch.sinks.sql.file_tables import (
    FileTable,
    LabelledRows,
    RowQuery,
    first_equal_names,
    mapped_table,
)
from marketfetch.sinks.sql.identifiers import quoted
from marketfetch.sinks.sql.newest import covered_series, look_back, newest_present_end
from marketfetch.sinks.sql.statements import SERIES_NAMES, set_null_clause, view_query
from marketfetch.sinks.sql.tables import OwnTypes
from marketfetch.sinks.table_mapping import Name, TableMapping, mapping_or_none
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Batch, Columns, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import HOUR, Span, SpanSet

__all__ = ["SqlFileStore"]

_C = TypeVar("_C", bound=DbConnection)


@attrs.frozen(repr=False)
class SqlFileStore(FileDialect[_C]):
    """A store in one file, which each call and each writer opens anew.

    A subclass opens the file, translates its errors, and merges and reads rows.
    """

    path: Path = attrs.field(converter=file_path)
    table: TableMapping | None = attrs.field(default=None, kw_only=True, validator=mapping_or_none)

    @classmethod
    def from_url(cls, text: str | Secret) -> Self:
        """Make the store that `scheme:path` names; raises ConfigurationError where there is no path."""
        text = Secret.of(text)  # under the same name: debuggers show the values that a raising frame holds
        return cls(path_from_uri(text))

    @property
    def max_writers(self) -> int:
        """One writer: the file takes one transaction at a time."""
        return 1

    def prepare(self, datasets: Sequence[Dataset]) -> None:
        """Make the file, tables and views that the datasets need, or check the user's table; see Sink.

        Raises ConfigurationError if the folder does not exist or the user's table is not fit for a dataset,
        SinkError if the file cannot be used or has a newer format, and SinkUnavailable while another process
        holds it. A ledger of an older format is migrated in the same transaction.
        """
        check_folder(self.path)
        with self._writing() as connection, self._transaction(connection):
            if self._types(connection, f"{PREFIX}coverage"):
                version = self._format(connection)
                if version < FORMAT:
                    self._ledger.migrate(connection, version)
            self._ledger.prepare(connection)
            for dataset in datasets:
                if self.table is None:
                    self._prepare_own(connection, self._table(connection, dataset), dataset)
                else:
                    self._prepare_mapped(connection, self._table(connection, dataset), dataset)

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Open a writer, whose connection is closed at the end; see Sink.

        After a SinkUnavailable the same batch may be written again.
        """
        with self.group_writer() as write:
            yield lambda batch: write([batch])

    @contextmanager
    def group_writer(self) -> Iterator[GroupWriter]:
        """Open a writer that commits several batches in one transaction; see SupportsGroupCommit.

        It raises SinkError if the file was deleted or replaced meanwhile: then the rows are in no file.
        """
        with self._connected() as connection:
            opened = file_identity(self.path)

            def write(batches: Sequence[Batch]) -> None:
                OPEN_FILES.refuse_inherited(self.path)
                self._write(connection, batches)
                self._require_same(opened)

            yield write

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        """Return the coverage of each of the given series; see Store.

        Raises ConfigurationError if two series, given or held, would overwrite each other in a mapped table.
        """
        held: Mapping[Series, Coverage] = {}
        with self._reading() as connection:
            if connection is not None:
                held = self._ledger.coverage(connection, series, self._format(connection))
                self._refuse_collisions(connection, series)
            elif self.table is not None:
                self.table.refuse_collisions(series)
        return {one: held.get(one, Coverage()) for one in series}

    def ledger(self) -> Mapping[Series, Coverage]:
        """Return the coverage of every stored series whose dataset is registered; see Store.

        Raises ConfigurationError if there is no file.
        """
        self._require_file()
        with self._reading() as connection:
            return {} if connection is None else dict(self._ledger.all(connection, self._format(connection)))

    def read(self, series: Series, span: Span) -> Columns:
        """Return the stored rows of a series inside a span, sorted by time; see Store.

        Columns that are not mapped are NaN; rows of a mapped table without a value of this dataset are left
        out.
        """
        with self._reading() as connection:
            series_id = None if connection is None else self._find_series(connection, series)
            if connection is None or series_id is None:
                return Columns.empty(series.dataset)
            table = self._table(connection, series.dataset)
            return self._rows(connection, table, RowQuery(series, series_id, span))

    def series(self) -> Collection[Series]:
        """Return every stored series that has coverage; see SupportsLatest.

        Raises ConfigurationError if there is no file.
        """
        self._require_file()
        with self._reading() as connection:
            if connection is None:
                return []
            self._format(connection)
            return covered_series(connection, self._ledger.target)

    def latest(self, series: Collection[Series], limit: int) -> Mapping[Series, Columns]:
        """Return the newest rows of each series; see SupportsLatest."""
        with self._reading() as connection:
            return {one: self._newest_rows(connection, one, limit) for one in series}

    def rejected(self, series: Series, span: Span) -> Sequence[RejectedRow]:
        """Return the rejected rows of a series whose times lie inside a span; see SupportsRejected."""
        with self._reading() as connection:
            if connection is None or self._format(connection) == 1:  # which had no table for them
                return []
            series_id = self._ledger.find(connection, series)
            return [] if series_id is None else self._ledger.rejected(connection, series_id, span)

    def provenance(self, series: Series) -> Sequence[Provenance]:
        """Return the files of archives that rows of a series came from; see SupportsProvenance."""
        with self._reading() as connection:
            if connection is None or self._format(connection) < 3:  # which had no table for them
                return []
            series_id = self._ledger.find(connection, series)
            return [] if series_id is None else self._ledger.files(connection, series_id)

    def forget(self, series: Series, spans: SpanSet, *, rows: bool = False) -> None:
        """Remove the coverage of spans of a series, and with `rows` its rows; see SupportsForget.

        In a table of yours the values of the dataset become NULL, and a row without any other value beside
        its key is deleted: values of other datasets, and your own, stay. Raises ConfigurationError if
        there is no file.
        """
        self._require_file()
        with self._writing() as connection, self._transaction(connection):
            version = self._require_format(connection)
            series_id = self._ledger.forget(connection, series, spans, version)
            if rows and series_id is not None:
                table = self._table(connection, series.dataset)
                labels = table.values(series, series_id)
                for span in spans:
                    self._remove(connection, table, [*labels, *self._bounds(connection, table, span)])

    @property
    def _ledger(self) -> FileCoverageTables:
        return FileCoverageTables("" if self.table is None else self.table.table, clustered=self._clustered)

    def _is_there(self) -> bool:
        """Tell whether there is a file; raises SinkError where that cannot be seen."""
        try:
            self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise SinkError(
                f"{self.path}: {error.strerror}; grant the right to look into its folder, or name another "
                "file"
            ) from error
        return True

    def _require_file(self) -> None:
        if not self._is_there():
            raise ConfigurationError(f"{self.path} does not exist; correct the path, or fetch into it first")

    def _require_same(self, opened: tuple[int, int] | None) -> None:
        """Raise SinkError if the file is no longer the one that was opened: the rows are in no file then."""
        if file_identity(self.path) != opened:
            raise SinkError(
                f"{self.path} was deleted, moved or replaced while it was open; leave it there, and run again"
            )

    def _format(self, connection: _C) -> int:
        """Return the format of a ledger; raises SinkError for one of a newer version."""
        if not self._types(connection, f"{PREFIX}format"):
            return 1
        return self._require_format(connection)

    def _require_format(self, connection: _C) -> int:
        """Return the format of a ledger that has one, for a writer; raises SinkError for a newer one."""
        version = self._ledger.version(connection)
        if version is None or version > FORMAT:
            raise newer_format_error(self.path, version, FORMAT, ", or name another file")
        return version

    def _find_series(self, connection: _C, series: Series) -> int | None:
        """Return the id of a series, to read its rows: they are the same in every known format."""
        self._format(connection)
        return self._ledger.find(connection, series)

    def _newest_rows(self, connection: _C | None, series: Series, limit: int) -> Columns:
        """Return the newest rows of a series, from the shortest of some spans that has enough of them.

        SQLite needs no spans, since it reads an index from its end. DuckDB has none: it skips the parts of
        the table that are older than the span.
        """
        rows = Columns.empty(series.dataset)
        series_id = None if connection is None else self._find_series(connection, series)
        if connection is None or series_id is None:
            return rows
        table = self._table(connection, series.dataset)
        step = HOUR if series.interval.is_event else series.interval.typical
        for span in look_back(
            newest_present_end(connection, series_id, self._format(connection)), limit * step
        ):
            rows = self._rows(connection, table, RowQuery(series, series_id, span, newest_limit=limit))
            if len(rows) == limit:
                break
        return rows

    def _refuse_collisions(self, connection: _C, series: Collection[Series]) -> None:
        """Raise ConfigurationError if two series, given or held, would overwrite each other."""
        if self.table is not None:
            # The labels of held series are computed anew: the ledger has their symbols only.
            every = [*self._ledger.series_of_datasets(connection, {one.dataset for one in series}), *series]
            self.table.refuse_collisions(every, self._folded(connection, self.table, every))

    def _folded(
        self, connection: _C, mapping: TableMapping, series: Iterable[Series]
    ) -> dict[str, dict[Name, Name]]:
        """Return, for each key column, the first of equal names; see `first_equal_names`."""
        names: dict[str, set[str]] = {}
        for one in series:
            with suppress(RowsRefused):  # no row of it can be written
                for column, name in mapping.key_values(one).items():
                    names.setdefault(column, set()).add(str(name))
        if not self._types(connection, mapping.table).keys() >= names.keys():
            return {}
        return {
            column: dict(connection.execute(first_equal_names(mapping, column, found)).fetchall())
            for column, found in names.items()
        }

    @contextmanager
    def _reading(self) -> Iterator[_C | None]:
        """Open the file to read; None where there is no file or no ledger, and none is made."""
        if not self._is_there():
            yield None
            return
        with self._connected_to_read() as connection, self._translated():
            yield connection if self._types(connection, f"{PREFIX}coverage") else None

    def _write(self, connection: _C, batches: Sequence[Batch]) -> None:
        """Write rows and coverage of one or several batches in one transaction."""
        with self._transaction(connection):
            self._require_format(connection)
            self._refuse_new_collisions(connection, [batch.series for batch in batches])
            ids = self._ledger.add(connection, batches)
            for dataset in dict.fromkeys(batch.series.dataset for batch in batches if batch.rows):
                table = self._table(connection, dataset)
                parts = [
                    self._label_rows(table, batch, ids[batch.series])
                    for batch in batches
                    if batch.rows and batch.series.dataset == dataset
                ]
                self._merge(connection, table, parts)

    def _refuse_new_collisions(self, connection: _C, series: Sequence[Series]) -> None:
        """Raise RowsRefused for a new series whose rows would overwrite those of another series.

        Another process may have added the other series since this run read the coverage.
        """
        if self.table is None:
            return
        new = [one for one in series if self._ledger.find(connection, one) is None]
        if not new:
            return
        try:
            self._refuse_collisions(connection, new)
        except ConfigurationError as error:
            raise RowsRefused(str(error)) from error

    @staticmethod
    def _label_rows(table: FileTable, batch: Batch, series_id: int) -> LabelledRows:
        rows = Columns.join([batch.columns])
        table.check(batch.series, rows)
        return LabelledRows(table.values(batch.series, series_id), rows)

    def _remove(self, connection: _C, table: FileTable, inside: Sequence[int | str | None]) -> None:
        """Delete rows; in a table of the user's only rows without other values, and set the rest to NULL."""
        where, columns = self._inside(table), [quoted(name) for name in table.columns]
        if table.mapping is not None:
            unused = [f"{quoted(name)} IS NULL" for name in table.others]
            # Before the UPDATE: a NOT NULL column does not prevent a DELETE.
            connection.execute(f"DELETE FROM {table.relation} WHERE {' AND '.join([where, *unused])}", inside)
            connection.execute(
                f"UPDATE {table.relation} SET {set_null_clause(columns)} WHERE {where}", inside
            )
        else:
            connection.execute(f"DELETE FROM {table.relation} WHERE {where}", inside)

    def _table(self, connection: _C, dataset: Dataset) -> FileTable:
        if self.table is None:
            return FileTable.own(dataset, PREFIX + dataset.name, OwnTypes(self._time_type), typed=self._typed)
        types = self._types(connection, self.table.table)
        return mapped_table(self.table, dataset, types, typed=self._typed)

    def _prepare_mapped(self, connection: _C, table: FileTable, dataset: Dataset) -> None:
        lacking = self._required(connection, table.title) - {*table.key, *table.columns}
        if lacking:
            raise ConfigurationError(
                f"{table.title}.{min(lacking)} must not be NULL, but rows of {dataset} have nothing for it; "
                "give it a default, or map it"
            )
        self._check(connection, table)

    def _prepare_own(self, connection: _C, table: FileTable, dataset: Dataset) -> None:
        found = self._types(connection, table.title)
        if not found:
            if self._ledger.counts_on(connection, dataset):
                forget = ["forget", "--to", f"{self._scheme}:{self.path}", "--dataset", dataset.name]
                raise SinkError(
                    f"{self.path} has no {table.title}, and the ledger counts on its rows; restore the file "
                    f"from a copy, or have them fetched anew after: {command_text(['marketfetch', *forget])}"
                )
            columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in table.types.items())
            connection.execute(self._create(table, columns))
        else:  # a newer version of the dataset may have more columns
            for name in table.types.keys() - found.keys():
                connection.execute(f"ALTER TABLE {table.title} ADD COLUMN {quoted(name)} {table.types[name]}")
        self._prepare_view(connection, table)

    def _prepare_view(self, connection: _C, table: FileTable) -> None:
        view = table.title.removeprefix(PREFIX)
        wanted = [*SERIES_NAMES, "open_time", *table.columns, *self._view_columns]
        found = set(self._types(connection, view))
        if found and not (found <= set(wanted) and self._is_view(connection, view)):
            raise SinkError(
                f"{self.path} has a {view} that marketfetch did not make; rename it, map it with table=, "
                "or choose another file"
            )
        columns = [quoted(name) for name in table.columns]
        columns += [f"{shown} AS {name}" for name, shown in self._view_columns.items()]
        query = view_query(table.title, f"{PREFIX}series", self._view_time(), columns)
        # With all five names a series is unique: SQLite then sorts nothing to find its newest rows.
        statement = f"CREATE VIEW {quoted(view)} AS {query} WHERE s.target = '' AND s.dataset = '{view}'"
        if found == set(wanted) and self._is_made_by(connection, view, statement):
            return
        connection.execute(f"DROP VIEW IF EXISTS {quoted(view)}")
        connection.execute(statement)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"
