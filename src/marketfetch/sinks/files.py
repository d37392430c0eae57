"""A store that is one database file: everything that does not depend on the database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

import attrs

from marketfetch.errors import ConfigurationError, SinkError
from marketfetch.protocols import Writer
from marketfetch.sinks.books import Books, Connection, Names, names
from marketfetch.sinks.mapping import TableMapping
from marketfetch.sinks.relational import Found, Table, label_values, quoted
from marketfetch.values.datasets import Dataset, datasets
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Coverage, Series
from marketfetch.values.spans import Span

__all__ = ["DatabaseFile"]

C = TypeVar("C", bound=Connection)


@attrs.frozen
class DatabaseFile(ABC, Generic[C]):
    """Keeps rows and coverage in a file, with one writer at a time.

    A subclass says how the database is opened, described and written to, and what its errors mean.
    """

    path: Path = attrs.field(converter=Path)
    table: TableMapping | None = attrs.field(default=None, kw_only=True)

    _begin: ClassVar[str]
    """Starts a transaction that may write."""

    @classmethod
    def from_url(cls, text: str) -> Self:
        """Make the sink for the path that stands after the scheme."""
        return cls(text)

    @property
    def lanes(self) -> int:
        """One writer: the file takes turns anyway."""
        return 1

    def prepare(self, datasets: Sequence[Dataset]) -> None:
        """Make the file, tables and views that the datasets need, or check the user's table; see Sink.

        Raises ConfigurationError if the path leads nowhere or the user's table is not fit for a dataset,
        SinkError if something else is in the place of file, table or view, SinkUnavailable while another
        process is in the way.
        """
        self._check_place()
        with self._connection(create=True) as connection, self._transaction(connection, "prepare"):
            self._make_schema(connection)
            self._books.prepare(connection)
            for dataset in datasets:
                if self.table is not None:
                    self._locate(connection, dataset)
                else:
                    self._make_table(connection, self._own(dataset))
                    self._make_view(connection, dataset)

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Open a writer, which keeps the file open until it is closed; see Sink.

        After a SinkUnavailable the same batch may be written again.
        """
        with self._connection(create=False) as connection:
            tables: dict[Dataset, Table] = {}

            def write(batch: Batch) -> None:
                series = batch.series
                with self._transaction(connection, f"write {series}"):
                    if series.dataset not in tables:
                        tables[series.dataset] = self._locate(connection, series.dataset)
                    series_id = self._books.identify(connection, series)
                    self._books.add(connection, series_id, batch.coverage)
                    if batch.rows:
                        labels = label_values(self.table, series, series_id)
                        columns = Columns.join([batch.columns])
                        self._write(connection, tables[series.dataset], labels, columns)

            yield write

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        """Return what is known of each of the given series; nothing if there is no file yet.

        Raises ConfigurationError if two series, given or held, would overwrite each other in a mapped table.
        """
        held = self._held()
        if self.table is not None:
            self.table.refuse_collisions([*_by_series(held), *series])
        return {one: held.get(names(one), Coverage()) for one in series}

    def ledger(self) -> Mapping[Series, Coverage]:
        """Return the coverage of every series held whose dataset marketfetch itself knows; see Store.

        Raises ConfigurationError if there is no file.
        """
        if not self.path.exists():
            raise ConfigurationError(f"{self.path} does not exist; correct the path, or fetch into it first")
        return _by_series(self._held())

    def read(self, series: Series, span: Span) -> Columns:
        """Return the stored rows of a series inside a span, sorted by time; none if there is no file yet.

        Columns that are not mapped are NaN; rows of a mapped table without a value of this dataset are left
        out.
        """
        if not self.path.exists():
            return Columns.empty(series.dataset)
        purpose = f"read {series}"
        with self._connection(create=False) as connection, self._transaction(connection, purpose, "BEGIN"):
            if not self._is_prepared(connection):
                return Columns.empty(series.dataset)
            series_id = self._books.find(connection, series)
            if series_id is None:
                return Columns.empty(series.dataset)
            table = self._locate(connection, series.dataset)
            place = (*label_values(self.table, series, series_id), *table.clock.bounds(span))
            return self._read(connection, table, place, series.dataset)
