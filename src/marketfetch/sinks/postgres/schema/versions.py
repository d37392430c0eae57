"""Making the ledger's tables, telling their format, and bringing those of an earlier one up to date.

Format 1 had one row of `coverage` for each series: whoever learnt a little of one read and wrote all of it.
"""

from __future__ import annotations

from typing import Any, LiteralString

from psycopg import Cursor
from psycopg.sql import SQL, Identifier

from marketfetch.errors import SinkError
from marketfetch.sinks.postgres.coverage_tables import FORMAT, TABLES, CoverageTables, newer, written
from marketfetch.sinks.postgres.schema.multirange import load_multirange
from marketfetch.sinks.postgres.schema.privileges import Access, check_access, make_schema
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.sql.coverage_segments import SEGMENT_SPANS, split
from marketfetch.values.coverage import Coverage

__all__ = ["opened", "prepare"]

_IDENTITY = ("exchange", "dataset", "symbol", "interval")
_COLUMNS = {
    "format": {"version"},
    "series": {"id", "table_name", *_IDENTITY},
    "coverage": {"series_id", "start_time", "covered", "empty", "unusable"},
    "rejected": {"series_id", "time", "reason", "raw"},
}
_COLUMNS_1 = {"series": {"id", "target", *_IDENTITY}, "coverage": {"series_id", "covered", "empty"}}
_WRITTEN = {
    "series": (("table_name", *_IDENTITY), ("table_name",)),
    "coverage": (
        ("series_id", "start_time", "covered", "empty", "unusable"),
        ("covered", "empty", "unusable"),
    ),
    "rejected": (("series_id", "time", "reason", "raw"), ()),
}
"""The columns of each table that are read and inserted, and those that are updated; see `Access`."""

_RIGHTS = {
    "format": ("SELECT",),
    "series": ("SELECT", "INSERT", "UPDATE"),
    "coverage": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "rejected": ("SELECT", "INSERT", "DELETE"),
}
"""What a role needs that writes; the first of them is for those that read."""

_CREATE: dict[str, LiteralString] = {
    "format": "CREATE TABLE IF NOT EXISTS {format} (version integer PRIMARY KEY)",
    "series": (
        "CREATE TABLE IF NOT EXISTS {series} (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
        "table_name text NOT NULL, exchange text NOT NULL, dataset text NOT NULL, symbol text NOT NULL, "
        "interval text NOT NULL, UNIQUE ({identity}))"
    ),
    "coverage": (
        "CREATE TABLE IF NOT EXISTS {coverage} (series_id integer NOT NULL REFERENCES {series} "
        "ON DELETE CASCADE, start_time bigint NOT NULL, covered int8multirange NOT NULL, "
        "empty int8multirange NOT NULL, unusable int8multirange NOT NULL DEFAULT '{{}}', "
        "PRIMARY KEY (series_id, start_time))"
    ),
    # Any text may be among the rejected, also one that is too long for an index; hence the number.
    "rejected": (
        "CREATE TABLE IF NOT EXISTS {rejected} (series_id integer NOT NULL REFERENCES {series} "
        "ON DELETE CASCADE, time bigint NOT NULL, number bigint GENERATED ALWAYS AS IDENTITY, "
        "reason text NOT NULL, raw text NOT NULL, PRIMARY KEY (series_id, time, number))"
    ),
}

# What is altered keeps its grants, and the users' views of it.
_SEGMENTED: tuple[LiteralString, ...] = (
    "ALTER TABLE {coverage} ADD COLUMN start_time bigint",
    "ALTER TABLE {coverage} ADD COLUMN unusable int8multirange NOT NULL DEFAULT '{{}}'",
    "DELETE FROM {coverage} WHERE lower(covered) IS NULL",  # nothing is known
    "UPDATE {coverage} SET start_time = lower(covered)",
    "ALTER TABLE {coverage} ALTER COLUMN start_time SET NOT NULL, ADD PRIMARY KEY (series_id, start_time)",
)


def opened(connection: Connection, schema: str) -> CoverageTables | None:
    """Return the ledger of a schema for reading, whichever its format; None if there is none.

    Raises SinkError for tables of a newer marketfetch. Changes nothing, and needs no right but to read.
    """
    found = _format(connection, schema)
    if found == 1:
        # Whoever migrates it waits until we have read, or we until it is migrated.
        _run(connection, schema, "LOCK TABLE {series} IN ACCESS SHARE MODE")
        found = _format(connection, schema)
    return None if found is None else CoverageTables(schema, found)


def prepare(connection: Connection, schema: str) -> None:
    """Make schema and tables where they are missing, and bring those of an earlier format up to date.

    Raises SinkError where others are in their place or a newer marketfetch made them, and where the role
    lacks a right: it says which statement grants it.
    """
    found = _format(connection, schema)
    if found == 1:
        _migrate(connection, schema)
    elif found is None:
        make_schema(connection, schema)
        _create(connection, schema)
    elif set(TABLES) - _tables(connection, schema).keys():
        _create(connection, schema)  # somebody has dropped one, in order to forget what it held
    _check_rights(connection, schema)


def _format(connection: Connection, schema: str) -> int | None:
    """Tell the format of the tables; raises SinkError for one that is not known."""
    tables = _tables(connection, schema)
    if "version" in tables.get("format", ()):
        row = _run(connection, schema, "SELECT max(version) FROM {format}").fetchone()
        found = row[0] if row is not None and row[0] is not None else FORMAT
        if found > FORMAT:
            raise newer(schema, found)
        expected = _COLUMNS
    else:
        found = 1 if tables else None
        expected = _COLUMNS_1
    for name, columns in tables.items():
        if not expected.get(name, {name}) <= columns:
            raise SinkError(f"{schema}.{name} was not made by marketfetch; choose another schema=")
    return found


def _tables(connection: Connection, schema: str) -> dict[str, set[str]]:
    """Return the columns of each of the ledger's tables that exists."""
    rows = connection.execute(
        "SELECT c.relname::text, array_agg(a.attname::text) FROM pg_class AS c "
        "JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "WHERE n.nspname = %s AND c.relname = ANY(%s) GROUP BY c.relname",
        [schema, list(TABLES)],
    )
    return {name: set(columns) for name, columns in rows}


def _create(connection: Connection, schema: str) -> None:
    for statement in _CREATE.values():
        _run(connection, schema, statement)
    insert: LiteralString = "INSERT INTO {format} (version) SELECT %s WHERE NOT EXISTS (SELECT FROM {format})"
    _run(connection, schema, insert, FORMAT)


def _migrate(connection: Connection, schema: str) -> None:
    """Bring tables of format 1 up to date, in the transaction of the caller."""
    _check_owner(connection, schema)
    tables = _tables(connection, schema)  # somebody may have dropped one, in order to forget what it held
    if "series" in tables:
        # A process of format 1 that still runs asks for `target`, and fails at its first statement: it would
        # take the last segment of a series for all that is known of it.
        _run(connection, schema, "ALTER TABLE {series} RENAME COLUMN target TO table_name")
    if "coverage" in tables:
        _drop_key(connection, schema)
        for statement in _SEGMENTED:
            _run(connection, schema, statement)
    _create(connection, schema)
    _cut(connection, schema)
    _grant(connection, schema)


def _check_owner(connection: Connection, schema: str) -> None:
    """Refuse a role that may not alter the tables, before anything is altered."""
    rows = connection.execute(
        "SELECT c.relname::text, pg_get_userbyid(c.relowner)::text, current_user::text, "
        "pg_has_role(c.relowner, 'USAGE'), has_schema_privilege(n.oid, 'CREATE') "
        "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = ANY(%s) ORDER BY c.relname",
        [schema, list(_COLUMNS_1)],
    ).fetchall()
    for name, owner, role, owned, creating in rows:
        said = f"{schema}.{name} has format 1 and must be brought to format {FORMAT}, which {role} may not do"
        if not owned:
            grant = _spelled(connection, "GRANT {} TO {}", owner, role)
            raise SinkError(f"{said}: call prepare() once as {owner}, or {grant}; nothing was changed")
        if not creating:
            grant = _spelled(connection, "GRANT CREATE ON SCHEMA {} TO {}", schema, role)
            raise SinkError(f"{said}: {grant}; nothing was changed")


def _drop_key(connection: Connection, schema: str) -> None:
    """Take the primary key of the coverage away, whatever it is called."""
    table = Identifier(schema, "coverage")
    keys = connection.execute(
        "SELECT conname::text FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p'",
        [table.as_string(connection)],
    ).fetchall()
    for (key,) in keys:
        connection.execute(SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, Identifier(key)))


def _cut(connection: Connection, schema: str) -> None:
    """Cut what has more spans than a segment, one series after the other: there may be many."""
    ledger = CoverageTables(schema)
    large = _run(
        connection,
        schema,
        "SELECT series_id FROM {coverage} WHERE (SELECT count(*) FROM unnest(covered)) "
        "+ (SELECT count(*) FROM unnest(empty)) > %s",
        SEGMENT_SPANS,
    ).fetchall()
    for (series_id,) in large:
        row = _run(
            connection,
            schema,
            "SELECT start_time, covered::text, empty::text FROM {coverage} WHERE series_id = %s",
            series_id,
        ).fetchone()
        assert row is not None
        start, covered, empty = row
        whole = Coverage(load_multirange(covered), load_multirange(empty))
        ledger.replace(connection, series_id, {start: whole}, split(whole))


def _grant(connection: Connection, schema: str) -> None:
    """Let those who could read and write the ledger go on, with all its tables."""
    rows = connection.execute(
        "SELECT CASE WHEN a.grantee = 0 THEN NULL ELSE pg_get_userbyid(a.grantee)::text END, "
        "bool_or(a.privilege_type = 'INSERT') "
        "FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a "
        "WHERE c.oid = %s::regclass AND a.grantee <> c.relowner "
        "AND a.privilege_type IN ('SELECT', 'INSERT') GROUP BY a.grantee",
        [Identifier(schema, "coverage").as_string(connection)],
    ).fetchall()
    for role, writes in rows:
        grantee = SQL("PUBLIC") if role is None else Identifier(role)
        for name, rights in _RIGHTS.items():
            connection.execute(
                SQL("GRANT {} ON {} TO {}").format(
                    SQL(", ").join(map(SQL, rights if writes else rights[:1])),
                    Identifier(schema, name),
                    grantee,
                )
            )


def _check_rights(connection: Connection, schema: str) -> None:
    """Refuse a role that may not write all of it: it would fail later, in the midst of a run."""
    for name, (read, changed) in _WRITTEN.items():
        shortened = "DELETE" in _RIGHTS[name]
        check_access(connection, Access(schema, name, read, changed, shortened=shortened))


def _run(
    connection: Connection, schema: str, text: LiteralString, *parameters: object
) -> Cursor[tuple[Any, ...]]:
    """Execute a statement about the tables of a schema."""
    return connection.execute(written(text, schema), parameters)


def _spelled(connection: Connection, text: LiteralString, *parts: str | SQL) -> str:
    """Write a statement for people to run."""
    named = (part if isinstance(part, SQL) else Identifier(part) for part in parts)
    return SQL(text).format(*named).as_string(connection)
