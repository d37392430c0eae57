"""Delete rows of a series, and no value that another program wrote into the same table."""

from __future__ import annotations

from marketfetch.sinks.postgres import statements
from marketfetch.sinks.postgres.schema.tables import PostgresTable
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.table_mapping import Name
from marketfetch.values.spans import SpanSet

__all__ = ["remove"]


def remove(
    connection: Connection, table: PostgresTable, key_values: tuple[Name, ...], spans: SpanSet
) -> None:
    """Delete the rows of a series in some spans; the caller holds the lock of the series.

    In a table of the user's, a row is deleted if only its key and the columns of this dataset have a value.
    In every other row the columns of the dataset become NULL.
    """
    place = table.parameters(
        key_values,
        starts=[table.time_codec.bound(span.start) for span in spans],
        ends=[table.time_codec.bound(span.end) for span in spans],
    )
    connection.execute(statements.remove(table), place)
    if not table.is_own:
        connection.execute(statements.clear(table), place)
