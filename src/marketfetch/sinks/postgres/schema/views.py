"""Make a view of all series of a table, and a function for one series, which show names instead of ids.

The view `ohlcv` serves every query. The function serves one series, with the same columns. Example: for
`SELECT * FROM ohlcv('binance-usdm', 'BTCUSDT', '1m') ORDER BY open_time DESC LIMIT 100` the server looks the
id of the series up first, and reads 100 rows from the end of an index. In the view the id comes out of a
join, after which the server sorts: it reads every row of the series.
"""

from __future__ import annotations

from psycopg.sql import SQL, Composed, Identifier, Literal

from marketfetch.errors import SinkError
from marketfetch.sinks.postgres.schema.introspection import lookup_table
from marketfetch.sinks.postgres.schema.privileges import check_schema
from marketfetch.sinks.postgres.schema.tables import TableModel
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.postgres.statements import relation, spelled

__all__ = ["prepare"]

_NAMES = ("exchange", "symbol", "interval")
_ARGUMENTS = SQL("(text, text, text)")


def prepare(connection: Connection, table: TableModel) -> None:
    """Make view and function if they are missing, or older than this marketfetch or the table.

    Raises SinkError if another relation or function has the name.
    """
    home = _home(connection, table)
    name = Identifier(home, table.name)
    found, old, mark = (
        lookup_table(connection, name),
        f"marketfetch: view of {table.title}",
        _mark("view", table),
    )
    if found is not None and (found.kind != "v" or found.comment not in {old, mark}):
        raise SinkError(
            f"{found.title} exists and is not the view of {table.title}; rename it, map it with table=, "
            "or pass views=False"
        )
    lacking = {*_NAMES, *table.types} - {"series_id"} - set(found.columns if found else ())
    function = _found_function(connection, name, table)
    if not lacking and function and found is not None and found.comment == mark:
        return
    if not lacking and not _may_replace(connection, name, home):
        return  # the view of an earlier marketfetch returns the same rows, only more slowly
    if found is None:
        check_schema(connection, home, create=True)
    connection.execute(_view(table, name))
    connection.execute(SQL("COMMENT ON VIEW {} IS {}").format(name, Literal(mark)))
    if function:
        connection.execute(SQL("DROP FUNCTION {}{}").format(name, _ARGUMENTS))
    connection.execute(_function(table, name))
    comment = SQL("COMMENT ON FUNCTION {}{} IS {}")
    connection.execute(comment.format(name, _ARGUMENTS, Literal(_mark("function", table))))


def _home(connection: Connection, table: TableModel) -> str:
    """Return the first schema of the search path."""
    row = connection.execute("SELECT current_schema()").fetchone()
    home = row[0] if row else None
    if home is None or home == table.schema:
        raise SinkError(
            f"there is no schema for the view {table.name}: the search_path leads to {home or 'none'}; "
            "set it to one of yours, or pass views=False"
        )
    return str(home)


def _mark(kind: str, table: TableModel) -> str:
    return f"marketfetch: {kind} of {table.title}, format 2"


def _found_function(connection: Connection, name: Identifier, table: TableModel) -> bool:
    """Tell whether the function exists; raises SinkError if marketfetch did not make it."""
    spelling = f"{name.as_string(connection)}(text, text, text)"
    row = connection.execute(
        "SELECT obj_description(oid, 'pg_proc') FROM pg_proc WHERE oid = to_regprocedure(%s)", [spelling]
    ).fetchone()
    if row is not None and row[0] != _mark("function", table):
        raise SinkError(
            f"function {spelling} exists and does not read {table.title}; rename it, or pass views=False"
        )
    return row is not None


def _may_replace(connection: Connection, name: Identifier, home: str) -> bool:
    row = connection.execute(
        "SELECT pg_has_role(relowner, 'USAGE') AND has_schema_privilege(%s, 'CREATE') "
        "FROM pg_class WHERE oid = to_regclass(%s)",
        [home, name.as_string(connection)],
    ).fetchone()
    return row is not None and bool(row[0])


def _view(table: TableModel, name: Identifier) -> Composed:
    # Together with table_name and dataset the names are a unique key: the server expects one series.
    return SQL(
        "CREATE OR REPLACE VIEW {} AS SELECT {}, {} FROM {} AS r JOIN {} AS s ON s.id = r.series_id "
        "WHERE s.table_name = '' AND s.dataset = {}"
    ).format(
        name,
        SQL(", ").join(SQL("s.{}").format(Identifier(column)) for column in _NAMES),
        _columns(table),
        relation(table),
        Identifier(table.schema, "series"),
        Literal(table.name),
    )


def _function(table: TableModel, name: Identifier) -> Composed:
    types = {**dict.fromkeys(_NAMES, "text"), **table.types}
    body = SQL(
        "SELECT $1, $2, $3, {} FROM {} AS r WHERE r.series_id = (SELECT s.id FROM {} AS s WHERE "
        "(s.table_name, s.exchange, s.dataset, s.symbol, s.interval) = ('', $1, {}, $2, $3))"
    ).format(_columns(table), relation(table), Identifier(table.schema, "series"), Literal(table.name))
    # Neither SECURITY DEFINER nor STRICT: else the server would not inline it into the calling query.
    return SQL("CREATE FUNCTION {}{} RETURNS TABLE ({}) LANGUAGE sql STABLE PARALLEL SAFE AS {}").format(
        name,
        _ARGUMENTS,
        SQL(", ").join(
            SQL("{} {}").format(Identifier(column), spelled(kind))
            for column, kind in types.items()
            if column != "series_id"
        ),
        Literal(body.as_string()),
    )


def _columns(table: TableModel) -> Composed:
    """Return the time and value columns, in the order of the view."""
    columns = (table.time, *(field.name for field in table.values))
    return SQL(", ").join(SQL("r.{}").format(Identifier(column)) for column in columns)
