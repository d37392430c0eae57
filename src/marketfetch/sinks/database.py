"""A store that is one database file: everything that does not depend on the database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

import attrs

from marketfetch.errors import ConfigurationError, SinkError
from marketfetch.protocols import Writer
from marketfetch.sinks.books import Books, Connection, Names, names
from marketfetch.sinks.mapping import TableMapping
from marketfetch.sinks.relational import (
    Clock,
    Found,
    Labels,
    Table,
    label_values,
    mapped_table,
    quoted,
)
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
                    self._make_table(connection, dataset)
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

    @contextmanager
    def _connection(self, *, create: bool) -> Iterator[C]:
        if not create and not self.path.exists():
            raise SinkError(f"{self.path} does not exist; call prepare() first, it makes what is missing")
        with self._translated("open the file"):
            connection = self._open()
        with closing(connection):
            yield connection

    @contextmanager
    def _transaction(self, connection: C, purpose: str, begin: str | None = None) -> Iterator[None]:
        with self._translated(purpose):
            connection.execute(begin or self._begin)
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                # Some errors have undone the transaction already; the first error is the one to tell.
                with suppress(SinkError), self._translated("undo"):
                    connection.execute("ROLLBACK")
                raise

    def _check_place(self) -> None:
        try:
            folder, taken = self.path.absolute().parent.is_dir(), self.path.is_dir()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{self.path}: {error}; choose another path") from error
        if not folder:
            raise ConfigurationError(f"{self.path}: there is no folder {self.path.parent}; make it first")
        if taken:
            raise ConfigurationError(f"{self.path} is a folder; name a file in it")

    def _held(self) -> dict[Names, Coverage]:
        if not self.path.exists():
            return {}
        with (
            self._connection(create=False) as connection,
            self._transaction(connection, "read what is covered", "BEGIN"),
        ):
            return dict(self._books.all(connection)) if self._is_prepared(connection) else {}

    def _is_prepared(self, connection: C) -> bool:
        return self._find(connection, *self._name("coverage")) is not None

    @property
    def _books(self) -> Books:
        target = "" if self.table is None else self.table.table
        return Books(quoted(*self._name("series")), quoted(*self._name("coverage")), target)

    def _locate(self, connection: C, dataset: Dataset) -> Table:
        if self.table is None:
            return self._own(dataset)
        parts = self.table.table.split(".")
        found = self._find(connection, *parts) if len(parts) <= 2 and all(parts) else None
        if found is None:
            key = ", ".join(self.table.key)
            raise ConfigurationError(
                f"table: there is no {self.table.table} in {self.path}; correct the name (table or "
                f"schema.table), or create it, with the primary key ({key})"
            )
        time = found.columns.get(self.table.time)
        clock = None if time is None else self._clock(time.type)
        return mapped_table(quoted(*parts), found, self.table, dataset, clock)

    def _make_table(self, connection: C, dataset: Dataset) -> None:
        table = self._own(dataset)
        found = self._find(connection, *self._name(dataset.name))
        if found is None:
            connection.execute(self._definition(table))
            return
        for field in table.fields:
            if field.name not in found.columns:  # a dataset has got a column since
                connection.execute(
                    f"ALTER TABLE {table.relation} ADD COLUMN {quoted(field.name)} {field.type}"
                )

    def _make_view(self, connection: C, dataset: Dataset) -> None:
        table = self._own(dataset)
        found = self._find(connection, dataset.name)
        if found is not None and not (found.view and "marketfetch" in found.definition):
            raise SinkError(
                f"{dataset.name} in {self.path} was not made by marketfetch; rename it, map it with table=, "
                "or choose another file"
            )
        names = ("exchange", "symbol", "interval", table.time, *dataset.names)
        if found is not None:
            if tuple(found.columns) == names:
                return
            connection.execute(f"DROP VIEW {quoted(dataset.name)}")
        time = f"{self._shown.format(f'r.{quoted(table.time)}')} AS {quoted(table.time)}"
        selected = (
            *(f"s.{quoted(name)}" for name in names[:3]),
            time,
            *(f"r.{quoted(name)}" for name in dataset.names),
        )
        connection.execute(
            f"CREATE VIEW {quoted(dataset.name)} AS SELECT {', '.join(selected)} "
            f"FROM {table.relation} AS r JOIN {self._books.series} AS s ON s.id = r.series_id"
        )

    # What a database is, by its subclass.

    _shown: ClassVar[str] = "{}"
    """SQL that turns the time column into what views show."""

    @abstractmethod
    def _name(self, what: str) -> tuple[str, ...]:
        """Name a table of our own."""

    @abstractmethod
    def _definition(self, table: Table) -> str:
        """Write the statement that creates a table of our own."""

    @abstractmethod
    def _open(self) -> C:
        """Connect to the file, making it if there is none."""

    @abstractmethod
    def _translated(self, purpose: str) -> AbstractContextManager[None]:
        """Turn the database's errors inside the block into ours; they say what the purpose was."""

    @abstractmethod
    def _make_schema(self, connection: C) -> None:
        """Set up what must be there before the first table."""

    @abstractmethod
    def _find(self, connection: C, *name: str) -> Found | None:
        """Look up a table or view; None if there is none."""

    @abstractmethod
    def _own(self, dataset: Dataset) -> Table:
        """Describe our own table of a dataset."""

    @abstractmethod
    def _clock(self, kind: str) -> Clock | None:
        """Say how a mapped time column of a type holds times; None if it does not."""

    @abstractmethod
    def _write(self, connection: C, table: Table, labels: Labels, columns: Columns) -> None:
        """Merge one or more sorted rows of a series into a table."""

    @abstractmethod
    def _read(self, connection: C, table: Table, place: Labels, dataset: Dataset) -> Columns:
        """Return the rows that `table.query` selects at a place."""


def _by_series(held: Mapping[Names, Coverage]) -> dict[Series, Coverage]:
    known = datasets()
    return {
        Series.of(exchange, known[dataset], symbol, interval): coverage
        for (exchange, dataset, symbol, interval), coverage in held.items()
        if dataset in known
    }
