"""Removing rows of a series, and nothing of what others wrote into the same table."""

from __future__ import annotations

from psycopg.sql import Identifier

from marketfetch.sinks.postgres import statements
from marketfetch.sinks.postgres.schema.introspection import lookup_table
from marketfetch.sinks.postgres.schema.tables import TableModel
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.table_mapping import Name
from marketfetch.values.spans import SpanSet

__all__ = ["remove"]


def remove(connection: Connection, table: TableModel, labels: tuple[Name, ...], spans: SpanSet) -> None:
    """Remove the rows of a series in some spans; under the lock of the series.

    Of a table of the user's, rows are deleted that have a value in no column but those of the key and of this
    dataset; of the others, the columns of the dataset become NULL.
    """
    place = {
        **{f"label{i}": value for i, value in enumerate(labels)},
        "starts": [table.time_codec.bound(span.start) for span in spans],
        "ends": [table.time_codec.bound(span.end) for span in spans],
    }
    others = () if table.is_own else _others(connection, table)
    connection.execute(statements.remove(table, others), place)
    if not table.is_own:
        connection.execute(statements.clear(table), place)


def _others(connection: Connection, table: TableModel) -> list[str]:
    """Return the columns in which somebody else's values may be."""
    found = lookup_table(connection, Identifier(table.schema, table.name))
    ours = {*table.key, *(field.name for field in table.values)}
    columns = found.columns if found is not None else {}
    return [name for name, column in columns.items() if name not in ours and not column.generated]
