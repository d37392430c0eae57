"""What the server's catalogue says of a relation."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from psycopg.sql import Identifier

from marketfetch.sinks.postgres.session import Connection

__all__ = ["Attribute", "Found", "Index", "find", "known_tables"]


@attrs.frozen
class Attribute:
    """A column: its type as format_type() spells it, and what an INSERT must know."""

    type: str
    text: bool
    """Whether a string can be stored: a string or enum type."""
    required: bool
    """Whether an INSERT must give it a value: NOT NULL without a default."""
    generated: bool
    """Whether the server computes it, so that nobody can write it."""


@attrs.frozen
class Index:
    """The key columns of a valid index over all rows, in order."""

    columns: tuple[str, ...]
    unique: bool
    """Whether it holds each key once at any time, as ON CONFLICT needs."""


@attrs.frozen
class Found:
    """A table or view that exists."""

    schema: str
    name: str
    kind: str
    """`r` table, `p` partitioned table, `v` view, and others of pg_class."""
    comment: str | None
    columns: Mapping[str, Attribute]
    indexes: tuple[Index, ...]

    @property
    def title(self) -> str:
        """The name with its schema, for people."""
        return f"{self.schema}.{self.name}"


def find(connection: Connection, name: Identifier) -> Found | None:
    """Look up a relation, through the search path if the name has no schema; None if there is none."""
    row = connection.execute(
        "SELECT c.oid, n.nspname, c.relname, c.relkind::text, obj_description(c.oid, 'pg_class') "
        "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)",
        [name.as_string(connection)],
    ).fetchone()
    if row is None:
        return None
    oid, schema, relation, kind, comment = row
    columns = connection.execute(
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typcategory IN ('S', 'E'), "
        "a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', a.attgenerated <> '' "
        "FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid "
        "WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        [oid],
    ).fetchall()
    indexes = connection.execute(
        "SELECT array_agg(a.attname::text ORDER BY k.position), i.indisunique AND i.indimmediate "
        "FROM pg_index AS i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(attnum, position) "
        "JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum "
        "WHERE i.indrelid = %s AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL "
        "AND k.position <= i.indnkeyatts GROUP BY i.indexrelid, i.indisunique, i.indimmediate",
        [oid],
    ).fetchall()
    return Found(
        schema,
        relation,
        kind,
        comment,
        {column: Attribute(*rest) for column, *rest in columns},
        tuple(Index(tuple(names), unique) for names, unique in indexes),
    )


def known_tables(connection: Connection, schema: str | None) -> list[str]:
    """Return the names of the tables in a schema, or without one of those that the search path shows."""
    found = connection.execute(
        "SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') "
        "AND (n.nspname = %(schema)s OR %(schema)s::text IS NULL AND pg_table_is_visible(c.oid))",
        {"schema": schema},
    ).fetchall()
    return [name for (name,) in found]
