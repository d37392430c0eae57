"""Tables of our own: one for each dataset, with a view and a function that show names for ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from marketfetch.errors import SinkError
from marketfetch.sinks.postgres.coverage_tables import PostgresCoverageTables
from marketfetch.sinks.postgres.schema import views
from marketfetch.sinks.postgres.schema.introspection import lookup_table
from marketfetch.sinks.postgres.schema.privileges import Access, check_access, check_schema
from marketfetch.sinks.postgres.schema.tables import DOUBLE, KeyColumn, PostgresTable
from marketfetch.sinks.postgres.schema.time_codecs import BIGINT, TIMESTAMPTZ, TimestampCodec
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.sql.identifiers import quoted
from marketfetch.sinks.sql.tables import OwnTypes
from marketfetch.values.datasets import Dataset
from marketfetch.values.series import Series

__all__ = ["OwnTables"]

_TYPES = OwnTypes(TIMESTAMPTZ, series_id="integer", whole=BIGINT, real=DOUBLE)


@attrs.frozen
class OwnTables:
    """A table `(series_id, open_time, <columns>)` for each dataset, in a schema that only marketfetch writes.

    Each table has a view and a function of its name in the first schema of the search path, which mostly is
    `public`, unless `views` is False.
    """

    schema: str
    views: bool = True

    def target(self, connection: Connection) -> str:
        """See Layout."""
        return ""

    def lock(self, series: Series) -> str:
        """See Layout."""
        return str(series)

    def refuse_collisions(self, connection: Connection, series: Iterable[Series]) -> None:
        """See Layout: each series has an id of its own."""

    def table(self, connection: Connection, dataset: Dataset) -> PostgresTable:
        """See Layout."""
        return PostgresTable.own(
            dataset,
            dataset.name,
            _TYPES,
            schema=self.schema,
            time_codec=TimestampCodec(),
            keys=(KeyColumn("series_id", _TYPES.series_id),),
            ordered=True,
        )

    def prepare(self, connection: Connection, datasets: Sequence[Dataset]) -> None:
        """Make missing tables and views, and add columns that a dataset has got since.

        Raises SinkError if another relation has the name of one, or if a table is gone whose rows the ledger
        says are present.
        """
        for dataset in datasets:
            table = self.table(connection, dataset)
            if lookup_table(connection, table.relation) is None and self._counts_on(connection, dataset):
                raise SinkError(
                    f"there is no table {table.title}, and the ledger counts on its rows; restore it from a "
                    "copy, or have them fetched anew after: marketfetch forget --to DSN --dataset "
                    f"{dataset.name}"
                )
            self._prepare_table(connection, table)
            inserted = [*table.key, *table.columns]
            check_access(connection, Access(table.schema, table.name, inserted, table.columns, copies=True))
            if self.views:
                views.prepare(connection, table)

    def _counts_on(self, connection: Connection, dataset: Dataset) -> bool:
        """Tell whether the ledger says that rows of a dataset are present."""
        ledger = PostgresCoverageTables(self.schema)
        stored_series = ledger.series_of_datasets(connection, "", [dataset])
        return any(known.present for known in ledger.coverage(connection, "", stored_series).values())

    def _prepare_table(self, connection: Connection, table: PostgresTable) -> None:
        columns = {name: f"{quoted(name)} {kind}" for name, kind in table.types.items()}
        found = lookup_table(connection, table.relation)
        if found is None:
            check_schema(connection, self.schema, create=True)
            key = ", ".join(map(quoted, table.key))
            listed = ", ".join(columns.values())
            connection.execute(f"CREATE TABLE {table.relation} ({listed}, PRIMARY KEY ({key}))".encode())
            return
        table.check({name: column.type for name, column in found.columns.items()})
        for name, column in columns.items():
            if name not in found.columns:
                connection.execute(f"ALTER TABLE {table.relation} ADD COLUMN {column}".encode())
