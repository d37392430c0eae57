"""The protocol between the writer and the kinds of tables: `OwnTables` or a `MappedTable`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from marketfetch.sinks.postgres.schema.tables import PostgresTable
from marketfetch.sinks.postgres.session import Connection
from marketfetch.values.datasets import Dataset
from marketfetch.values.series import Series

__all__ = ["Layout", "lock_name"]


class Layout(Protocol):
    """Tells in which table, and under which key, the rows of a series are."""

    def refuse_collisions(self, connection: Connection, series: Iterable[Series]) -> None:
        """Raise ConfigurationError if two of the series would overwrite each other."""
        ...

    def prepare(self, connection: Connection, datasets: Sequence[Dataset]) -> None:
        """Make or check the tables of datasets; raises ConfigurationError or SinkError with the remedy."""
        ...

    def table(self, connection: Connection, dataset: Dataset) -> PostgresTable:
        """Describe the table of a dataset."""
        ...

    def target(self, connection: Connection) -> str:
        """Return the `table_name` of the series in this table; see PostgresCoverageTables."""
        ...

    def lock(self, series: Series) -> str:
        """Return a name that is the same for all series whose rows are the same in the table."""
        ...


def lock_name(layout: Layout, table: PostgresTable, series: Series) -> str:
    """Return the name of the lock that is held by a transaction which changes the rows of a series."""
    return f"{table.title} {layout.lock(series)}"
