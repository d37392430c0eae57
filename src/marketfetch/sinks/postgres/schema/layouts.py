"""The seam between writing rows and the tables they are in: `OwnTables` or a `MappedTable`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from marketfetch.sinks.postgres.schema.tables import TableModel
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.table_mapping import Name
from marketfetch.values.datasets import Dataset
from marketfetch.values.series import Series

__all__ = ["Layout", "lock_name"]


class Layout(Protocol):
    """Says where the rows of each dataset and series are."""

    def refuse_collisions(self, connection: Connection, series: Iterable[Series]) -> None:
        """Raise ConfigurationError where two of the series would overwrite each other."""
        ...

    def prepare(self, connection: Connection, datasets: Sequence[Dataset]) -> None:
        """Make or check what the datasets need; raises ConfigurationError or SinkError with the remedy."""
        ...

    def table(self, connection: Connection, dataset: Dataset) -> TableModel:
        """Describe the table of a dataset."""
        ...

    def target(self, connection: Connection) -> str:
        """Return what tells our coverage of this table from that of others; see Ledger."""
        ...

    def labels(self, series: Series, series_id: int) -> tuple[Name, ...]:
        """Return the values of `Table.labels` for a series."""
        ...

    def lock(self, series: Series) -> str:
        """Name what writers of the same rows have in common, within the table."""
        ...


def lock_name(layout: Layout, table: TableModel, series: Series) -> str:
    """Return the name of the lock under which whoever changes the rows of a series takes turns."""
    return f"{table.title} {layout.lock(series)}"
