"""Delete rows of a series, and no value that another program wrote into the same table."""

from __future__ import annotations

from psycopg.sql import Identifier

from marketfetch.sinks.postgres import statements
from marketfetch.sinks.postgres.schema.introspection import lookup_table
from marketfetch.sinks.postgres.schema.tables import TableModel
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.table_mapping import Name
from marketfetch.values.spans import SpanSet

__all__ = ["remove"]


def remove(connection: Connection, table: TableModel, key_values: tuple[Name, ...], spans: SpanSet) -> None:
    """Delete the rows of a series in some spans; the caller holds the lock of the series.

    In a table of the user's, a row is deleted if only its key and the columns of this dataset have a value.
    In every other row the columns of the dataset become NULL.
    """
    place = {
        **{f"key{i}": value for i, value in enumerate(key_values)},
        "starts": [table.time_codec.bound(span.start) for span in spans],
        "ends": [table.time_codec.bound(span.end) for span in spans],
    }
    others = () if table.is_own else _others(connection, table)
    connection.execute(statements.remove(table, others), place)
    if not table.is_own:
        connection.execute(statements.clear(table), place)


def _others(connection: Connection, table: TableModel) -> list[str]:
    """Return the columns that may hold values of other datasets or programs."""
    found = lookup_table(connection, Identifier(table.schema, table.name))
    ours = {*table.key, *(column.name for column in table.values)}
    columns = found.columns if found is not None else {}
    return [name for name, column in columns.items() if name not in ours and not column.generated]
