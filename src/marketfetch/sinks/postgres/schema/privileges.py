"""Check, before anything is fetched, that the role of a connection has all privileges to write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

import attrs
from psycopg.sql import SQL, Identifier

from marketfetch.errors import SinkError
from marketfetch.sinks.postgres.session import Connection

__all__ = ["Access", "check_access", "check_schema", "check_session", "make_schema"]

_COMMANDS: dict[LiteralString, str] = {"SELECT": "r", "INSERT": "a", "UPDATE": "w"}
"""The commands that a writer sends, and their letters in pg_policy."""

_MISSING_PRIVILEGES = """
SELECT a.attname, r.command FROM unnest(%(commands)s::text[]) AS r(command), pg_attribute AS a
WHERE a.attrelid = to_regclass(%(table)s) AND a.attname = ANY(%(columns)s)
      AND NOT has_column_privilege(a.attrelid, a.attnum, r.command)
ORDER BY r.command, a.attnum
"""

# Without a policy for a command, row-level security shows no row and takes none.
_COMMANDS_WITHOUT_POLICY = """
SELECT r.command FROM unnest(%(commands)s::text[], %(letters)s::text[]) AS r(command, letter)
WHERE row_security_active(to_regclass(%(table)s)) AND NOT EXISTS (
    SELECT FROM pg_policy AS p, unnest(p.polroles) AS held(role)
    WHERE p.polrelid = to_regclass(%(table)s) AND p.polpermissive AND p.polcmd IN ('*', r.letter::"char")
          AND (held.role = 0 OR pg_has_role(held.role, 'USAGE'))
)
"""


@attrs.frozen
class Access:
    """How a writer uses a table.

    It selects and inserts the columns `inserted`, and updates the columns `updated`. It uses COPY if it
    `copies`, which row-level security never allows, and DELETE if it `deletes`.
    """

    schema: str
    name: str
    inserted: Sequence[str]
    updated: Sequence[str]
    copies: bool = False
    deletes: bool = False


def check_session(connection: Connection) -> None:
    """Raise SinkError, with the statement to type, if a session may not write or stage rows."""
    row = connection.execute(
        "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', "
        "has_database_privilege(current_database(), 'TEMP'), current_user, current_database()"
    ).fetchone()
    assert row is not None
    standby, read_only, temporary, user, database = row
    if standby:
        raise SinkError(f"{database}: this server is a standby and only read; connect to the primary server")
    if read_only:
        remedy = SQL("ALTER ROLE {} SET default_transaction_read_only = off").format(Identifier(user))
        raise SinkError(
            f"{database}: transactions of {user} only read; {remedy.as_string(connection)}, or the same with "
            "ALTER DATABASE"
        )
    if not temporary:
        remedy = SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(Identifier(database), Identifier(user))
        raise SinkError(
            f"{database}: {user} may not make the temporary table that rows are merged from; "
            f"{remedy.as_string(connection)}"
        )


def check_schema(connection: Connection, schema: str, *, create: bool = False) -> None:
    """Raise SinkError if the role may not use an existing schema, or with `create` make tables in it."""
    right = "CREATE" if create else "USAGE"
    row = connection.execute(
        "SELECT current_user FROM pg_namespace WHERE nspname = %s AND NOT has_schema_privilege(oid, %s)",
        [schema, right],
    ).fetchone()
    if row is not None:
        remedy = SQL("GRANT {} ON SCHEMA {} TO {}").format(SQL(right), Identifier(schema), Identifier(row[0]))
        what, other = "use", ""
        if create:
            what, other = "make tables or views in", ", or have its owner call prepare() once"
        raise SinkError(
            f"{schema}: {row[0]} may not {what} this schema; {remedy.as_string(connection)}{other}"
        )


def make_schema(connection: Connection, schema: str) -> None:
    """Make a schema if it is missing; raises SinkError if the role may not make tables in it."""
    # IF NOT EXISTS needs the right to make a schema, even if the schema exists.
    row = connection.execute(
        "SELECT to_regnamespace(%(schema)s) IS NOT NULL, current_user, current_database(), "
        "has_database_privilege(current_database(), 'CREATE')",
        {"schema": Identifier(schema).as_string(connection)},
    ).fetchone()
    assert row is not None
    exists, user, database, allowed = row
    if exists:
        check_schema(connection, schema, create=True)
    elif allowed:
        connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(schema)))
    else:
        remedy = SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(Identifier(schema), Identifier(user))
        raise SinkError(f"{database}: {user} may not make a schema; {remedy.as_string(connection)}")


def check_access(connection: Connection, access: Access) -> None:
    """Raise SinkError, with the statement to type, if the role may not write rows of a table."""
    table = Identifier(access.schema, access.name)
    parameters = {"table": table.as_string(connection)}
    title = f"{access.schema}.{access.name}"
    missing = connection.execute(
        _MISSING_PRIVILEGES, {**parameters, "commands": ["SELECT", "INSERT"], "columns": [*access.inserted]}
    ).fetchall()
    missing += connection.execute(
        _MISSING_PRIVILEGES, {**parameters, "commands": ["UPDATE"], "columns": [*access.updated]}
    ).fetchall()
    (user,) = connection.execute("SELECT current_user").fetchone() or ("",)
    tables = connection.execute(
        "SELECT r.command FROM unnest(%(commands)s::text[]) AS r(command) "
        "WHERE NOT has_table_privilege(to_regclass(%(table)s), r.command)",
        {**parameters, "commands": ["DELETE"] if access.deletes else []},
    ).fetchall()
    if missing or tables:
        grants = [
            SQL("{} ({})").format(
                SQL(command),
                SQL(", ").join(Identifier(column) for column, other in missing if other == command),
            )
            for command in _COMMANDS
            if any(other == command for _, other in missing)
        ]
        grants += [SQL("{}").format(SQL(command)) for (command,) in tables]
        remedy = SQL("GRANT {} ON {} TO {}").format(SQL(", ").join(grants), table, Identifier(user))
        raise SinkError(f"{title}: {user} lacks rights; {remedy.as_string(connection)}")
    if access.copies:
        _check_copy(connection, table, title, user)
        return
    commands = connection.execute(
        _COMMANDS_WITHOUT_POLICY, {**parameters, "commands": [*_COMMANDS], "letters": [*_COMMANDS.values()]}
    ).fetchall()
    if commands:
        remedy = SQL("CREATE POLICY marketfetch ON {} FOR ALL TO {} USING (true) WITH CHECK (true)").format(
            table, Identifier(user)
        )
        raise SinkError(
            f"{title} has row-level security and no policy that lets {user} "
            f"{' or '.join(command for (command,) in commands)}; {remedy.as_string(connection)}"
        )


def _check_copy(connection: Connection, table: Identifier, title: str, user: str) -> None:
    secured = connection.execute(
        "SELECT 1 WHERE row_security_active(to_regclass(%s))", [table.as_string(connection)]
    ).fetchone()
    if secured is not None:
        remedy = SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY").format(table)
        bypass = SQL("ALTER ROLE {} BYPASSRLS").format(Identifier(user))
        raise SinkError(
            f"{title} has row-level security, through which no rows can be copied; "
            f"{remedy.as_string(connection)}, or {bypass.as_string(connection)}"
        )
