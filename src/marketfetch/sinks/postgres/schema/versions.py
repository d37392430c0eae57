"""Make the tables of the ledger, tell their format, and migrate tables of an earlier format.

Format 2 had no table `files`. Format 1 had one row of `coverage` for each series: each batch read and wrote
the whole coverage.
"""

from __future__ import annotations

from typing import Any, LiteralString

from psycopg import Cursor
from psycopg.sql import SQL, Identifier

from marketfetch.errors import SinkError
from marketfetch.sinks.postgres.coverage_tables import (
    FORMAT,
    TABLES,
    PostgresCoverageTables,
    render_sql,
)
from marketfetch.sinks.postgres.schema.multirange import load_multirange
from marketfetch.sinks.postgres.schema.privileges import Access, check_access, make_schema
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.provenance import FILE_COLUMNS
from marketfetch.sinks.remedies import newer_format_error
from marketfetch.sinks.sql.coverage_segments import SEGMENT_SPANS, split
from marketfetch.values.coverage import Coverage

__all__ = ["open_ledger", "prepare"]

_IDENTITY = ("exchange", "dataset", "symbol", "interval")
_COLUMNS = {
    "format": {"version"},
    "series": {"id", "table_name", *_IDENTITY},
    "coverage": {"series_id", "start_time", "covered", "empty", "unusable"},
    "rejected": {"series_id", "time", "reason", "raw"},
    "files": {"series_id", *FILE_COLUMNS},
}
_COLUMNS_1 = {"series": {"id", "target", *_IDENTITY}, "coverage": {"series_id", "covered", "empty"}}
_INSERTED_AND_UPDATED = {
    "series": (("table_name", *_IDENTITY), ("table_name",)),
    "coverage": (
        ("series_id", "start_time", "covered", "empty", "unusable"),
        ("covered", "empty", "unusable"),
    ),
    "rejected": (("series_id", "time", "reason", "raw"), ()),
    "files": (("series_id", *FILE_COLUMNS), FILE_COLUMNS),
}
"""The columns of each table that are read and inserted, and the columns that are updated; see `Access`."""

_RIGHTS = {
    "format": ("SELECT",),
    "series": ("SELECT", "INSERT", "UPDATE"),
    "coverage": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "rejected": ("SELECT", "INSERT", "DELETE"),
    "files": ("SELECT", "INSERT", "UPDATE", "DELETE"),
}
"""The privileges of a role that writes; a role that reads needs the first one of each table."""

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
    # `number` is in the key because a rejected text may be too long for an index.
    "rejected": (
        "CREATE TABLE IF NOT EXISTS {rejected} (series_id integer NOT NULL REFERENCES {series} "
        "ON DELETE CASCADE, time bigint NOT NULL, number bigint GENERATED ALWAYS AS IDENTITY, "
        "reason text NOT NULL, raw text NOT NULL, PRIMARY KEY (series_id, time, number))"
    ),
    "files": (
        "CREATE TABLE IF NOT EXISTS {files} (series_id integer NOT NULL REFERENCES {series} "
        "ON DELETE CASCADE, file_key text NOT NULL, start_time bigint NOT NULL, end_time bigint NOT NULL, "
        "size bigint NOT NULL, modified bigint NOT NULL, digest text NOT NULL, verified boolean NOT NULL, "
        "PRIMARY KEY (series_id, file_key))"
    ),
}

# Tables are altered, not replaced: they keep their grants, and the users' views of them.
_TO_SEGMENTS: tuple[LiteralString, ...] = (
    "ALTER TABLE {coverage} ADD COLUMN start_time bigint",
    "ALTER TABLE {coverage} ADD COLUMN unusable int8multirange NOT NULL DEFAULT '{{}}'",
    "DELETE FROM {coverage} WHERE lower(covered) IS NULL",  # nothing is known
    "UPDATE {coverage} SET start_time = lower(covered)",
    "ALTER TABLE {coverage} ALTER COLUMN start_time SET NOT NULL, ADD PRIMARY KEY (series_id, start_time)",
)


def open_ledger(connection: Connection, schema: str) -> PostgresCoverageTables | None:
    """Return the ledger of a schema for reading, of whichever format; None if there is none.

    Raises SinkError for tables of a newer marketfetch. Changes nothing, and needs only the right to read.
    """
    found = _format(connection, schema)
    if found == 1:
        # A migration waits until this transaction has read, or this one waits for the migration.
        _run(connection, schema, "LOCK TABLE {series} IN ACCESS SHARE MODE")
        found = _format(connection, schema)
    return None if found is None else PostgresCoverageTables(schema, found)


def prepare(connection: Connection, schema: str) -> None:
    """Make the schema and its tables if they are missing, and migrate tables of an earlier format.

    Raises SinkError if other tables have their names, if a newer marketfetch made them, or if the role lacks
    a privilege, with the statement that grants it.
    """
    found = _format(connection, schema)
    if found is not None and found < FORMAT:
        _migrate(connection, schema, found)
    elif found is None:
        make_schema(connection, schema)
        _create(connection, schema)
    elif set(TABLES) - _tables(connection, schema).keys():
        _create(connection, schema)  # a user has dropped one, in order to forget its content
    _check_rights(connection, schema)


def _format(connection: Connection, schema: str) -> int | None:
    """Return the format of the tables, None if there are none; raises SinkError for an unknown one."""
    tables = _tables(connection, schema)
    if "version" in tables.get("format", ()):
        row = _run(connection, schema, "SELECT max(version) FROM {format}").fetchone()
        found = row[0] if row is not None and row[0] is not None else FORMAT
        if found > FORMAT:
            raise newer_format_error(f"schema {schema}", found, FORMAT)
        expected = _COLUMNS
    else:
        found = 1 if tables else None
        expected = _COLUMNS_1
    for name, columns in tables.items():
        if not expected.get(name, {name}) <= columns:
            raise SinkError(f"{schema}.{name} was not made by marketfetch; choose another schema=")
    return found


def _tables(connection: Connection, schema: str) -> dict[str, set[str]]:
    """Return the columns of each table of the ledger that exists."""
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


def _migrate(connection: Connection, schema: str, found: int) -> None:
    """Migrate tables of an earlier format, in the transaction of the caller."""
    _check_owner(connection, schema, found)
    tables = _tables(connection, schema)  # a user may have dropped one, to forget its content
    if found > 1:
        # Waits for the batches under way; the next ones see the new version.
        _run(connection, schema, "LOCK TABLE {format} IN ACCESS EXCLUSIVE MODE")
    elif "series" in tables:
        # A process of format 1 that still runs reads `target`, and so fails at its first statement. Else it
        # would take one segment of a series for the whole coverage.
        _run(connection, schema, "ALTER TABLE {series} RENAME COLUMN target TO table_name")
    if found == 1 and "coverage" in tables:
        _drop_key(connection, schema)
        for statement in _TO_SEGMENTS:
            _run(connection, schema, statement)
    _create(connection, schema)
    _run(connection, schema, "UPDATE {format} SET version = %s", FORMAT)
    if found == 1:
        _split_large_coverage(connection, schema)
    _grant(connection, schema)


def _check_owner(connection: Connection, schema: str, found: int) -> None:
    """Refuse a role that may not alter the tables, before anything is altered."""
    rows = connection.execute(
        "SELECT c.relname::text, pg_get_userbyid(c.relowner)::text, current_user::text, "
        "pg_has_role(c.relowner, 'USAGE'), has_schema_privilege(n.oid, 'CREATE') "
        "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = ANY(%s) ORDER BY c.relname",
        [schema, list(TABLES)],
    ).fetchall()
    for name, owner, role, owned, creating in rows:
        prefix = (
            f"{schema}.{name} has format {found} and must be brought to format {FORMAT}, "
            f"which {role} may not do"
        )
        if not owned:
            grant = _spell_out(connection, "GRANT {} TO {}", owner, role)
            raise SinkError(f"{prefix}: call prepare() once as {owner}, or {grant}; nothing was changed")
        if not creating:
            grant = _spell_out(connection, "GRANT CREATE ON SCHEMA {} TO {}", schema, role)
            raise SinkError(f"{prefix}: {grant}; nothing was changed")


def _drop_key(connection: Connection, schema: str) -> None:
    """Drop the primary key of the coverage, whatever its name."""
    table = Identifier(schema, "coverage")
    keys = connection.execute(
        "SELECT conname::text FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p'",
        [table.as_string(connection)],
    ).fetchall()
    for (key,) in keys:
        connection.execute(SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, Identifier(key)))


def _split_large_coverage(connection: Connection, schema: str) -> None:
    """Split coverage of more spans than a segment has, one series at a time to save memory."""
    ledger = PostgresCoverageTables(schema)
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
    """Grant roles that could read or write the coverage the same for all tables of the ledger."""
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
    """Refuse a role that may not write all tables: it would fail later, in the middle of a run."""
    for name, (inserted, updated) in _INSERTED_AND_UPDATED.items():
        deletes = "DELETE" in _RIGHTS[name]
        check_access(connection, Access(schema, name, inserted, updated, deletes=deletes))


def _run(
    connection: Connection, schema: str, text: LiteralString, *parameters: object
) -> Cursor[tuple[Any, ...]]:
    """Execute a statement about the tables of a schema."""
    return connection.execute(render_sql(text, schema), parameters)


def _spell_out(connection: Connection, text: LiteralString, *parts: str | SQL) -> str:
    """Write a statement for a person to type."""
    named = (part if isinstance(part, SQL) else Identifier(part) for part in parts)
    return SQL(text).format(*named).as_string(connection)
