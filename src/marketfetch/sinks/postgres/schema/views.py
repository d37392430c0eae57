"""Make a view of all series of a table, and a function for one series, which show names instead of ids.

The view `ohlcv` serves every query. The function serves one series, with the same columns. Example: for
`SELECT * FROM ohlcv('binance-usdm', 'BTCUSDT', '1m') ORDER BY open_time DESC LIMIT 100` the server looks the
id of the series up first, and reads 100 rows from the end of an index. In the view the id comes out of a
join, after which the server sorts: it reads every row of the series.
"""

from __future__ import annotations

from psycopg.sql import Literal

from marketfetch.errors import SinkError
from marketfetch.sinks.postgres.schema.introspection import lookup_table
from marketfetch.sinks.postgres.schema.privileges import check_schema
from marketfetch.sinks.postgres.schema.tables import PostgresTable
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.sql.identifiers import quoted
from marketfetch.sinks.sql.statements import SERIES_NAMES, view_query

__all__ = ["prepare"]

_ARGUMENTS = "(text, text, text)"


def prepare(connection: Connection, table: PostgresTable) -> None:
    """Make view and function if they are missing, or older than this marketfetch or the table.

    Raises SinkError if another relation or function has the name.
    """
    schema = _view_schema(connection, table)
    name = quoted(schema, table.name)
    found, old = lookup_table(connection, name), f"marketfetch: view of {table.title}"
    mark = _mark("view", table)
    if found is not None and (found.kind != "v" or found.comment not in {old, mark}):
        raise SinkError(
            f"{found.title} exists and is not the view of {table.title}; rename it, map it with table=, "
            "or pass views=False"
        )
    missing = {*SERIES_NAMES, *table.types} - {"series_id"} - set(found.columns if found else ())
    function = _has_function(connection, name, table)
    if not missing and function and found is not None and found.comment == mark:
        return
    if not missing and not _may_replace(connection, name, schema):
        return  # the view of an earlier marketfetch returns the same rows, only more slowly
    if found is None:
        check_schema(connection, schema, create=True)
    statements = [
        f"CREATE OR REPLACE VIEW {name} AS {_view_query(table)}",
        f"COMMENT ON VIEW {name} IS {_text(mark)}",
        f"DROP FUNCTION {name}{_ARGUMENTS}" if function else "",
        _function(table, name),
        f"COMMENT ON FUNCTION {name}{_ARGUMENTS} IS {_text(_mark('function', table))}",
    ]
    for statement in filter(None, statements):
        connection.execute(statement.encode())


def _view_schema(connection: Connection, table: PostgresTable) -> str:
    """Return the first schema of the search path."""
    row = connection.execute("SELECT current_schema()").fetchone()
    schema = row[0] if row else None
    if schema is None or schema == table.schema:
        raise SinkError(
            f"there is no schema for the view {table.name}: the search_path leads to {schema or 'none'}; "
            "set it to one of yours, or pass views=False"
        )
    return str(schema)


def _mark(kind: str, table: PostgresTable) -> str:
    return f"marketfetch: {kind} of {table.title}, format 2"


def _has_function(connection: Connection, name: str, table: PostgresTable) -> bool:
    """Tell whether the function exists; raises SinkError if marketfetch did not make it."""
    spelling = f"{name}{_ARGUMENTS}"
    row = connection.execute(
        "SELECT obj_description(oid, 'pg_proc') FROM pg_proc WHERE oid = to_regprocedure(%s)", [spelling]
    ).fetchone()
    if row is not None and row[0] != _mark("function", table):
        raise SinkError(
            f"function {spelling} exists and does not read {table.title}; rename it, or pass views=False"
        )
    return row is not None


def _may_replace(connection: Connection, name: str, schema: str) -> bool:
    row = connection.execute(
        "SELECT pg_has_role(relowner, 'USAGE') AND has_schema_privilege(%s, 'CREATE') "
        "FROM pg_class WHERE oid = to_regclass(%s)",
        [schema, name],
    ).fetchone()
    return row is not None and bool(row[0])


def _view_query(table: PostgresTable) -> str:
    # Together with table_name and dataset the names are a unique key: the server expects one series.
    query = view_query(table.relation, _series(table), "r.open_time", map(quoted, table.columns))
    return f"{query} WHERE s.table_name = '' AND s.dataset = {_text(table.name)}"


def _function(table: PostgresTable, name: str) -> str:
    types = {**dict.fromkeys(SERIES_NAMES, "text"), **table.types}
    returned = ", ".join(
        f"{quoted(column)} {kind}" for column, kind in types.items() if column != "series_id"
    )
    columns = ", ".join(f"r.{quoted(column)}" for column in (table.time, *table.columns))
    body = (
        f"SELECT $1, $2, $3, {columns} FROM {table.relation} AS r "
        f"WHERE r.series_id = (SELECT s.id FROM {_series(table)} AS s "
        "WHERE (s.table_name, s.exchange, s.dataset, s.symbol, s.interval) "
        f"= ('', $1, {_text(table.name)}, $2, $3))"
    )
    # Neither SECURITY DEFINER nor STRICT: else the server would not inline it into the calling query.
    return (
        f"CREATE FUNCTION {name}{_ARGUMENTS} RETURNS TABLE ({returned}) "
        f"LANGUAGE sql STABLE PARALLEL SAFE AS {_text(body)}"
    )


def _series(table: PostgresTable) -> str:
    return quoted(table.schema, "series")


def _text(text: str) -> str:
    return Literal(text).as_string()
