"""Describe tables and views from the server's catalogue."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.sql.identifiers import quoted

__all__ = ["ColumnInfo", "IndexInfo", "TableInfo", "known_tables", "lookup_table"]


# A domain may be based on a domain: the last one of the chain, whose base is no domain, has the length.
_COLUMNS = """
WITH RECURSIVE found AS (
    SELECT a.*, a.atttypid AS base, a.atttypmod AS modifier, false AS not_null
    FROM pg_attribute AS a WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
), chain AS (
    SELECT attnum, base, modifier, not_null, 0 AS depth FROM found
    UNION ALL
    SELECT c.attnum, t.typbasetype, CASE WHEN t.typtypmod = -1 THEN c.modifier ELSE t.typtypmod END,
           c.not_null OR (t.typnotnull AND t.typdefault IS NULL), c.depth + 1
    FROM chain AS c JOIN pg_type AS t ON t.oid = c.base WHERE t.typtype = 'd'
), ends AS (
    SELECT DISTINCT ON (attnum) attnum, base, modifier, not_null FROM chain ORDER BY attnum, depth DESC
)
SELECT a.attname, format_type(a.atttypid, a.atttypmod), format_type(e.base, e.modifier),
       format_type(e.base, -1), t.typcategory IN ('S', 'E'),
       ARRAY(SELECT l.enumlabel::text FROM pg_enum AS l WHERE l.enumtypid = e.base ORDER BY l.enumsortorder),
       CASE WHEN NOT l.collisdeterministic THEN format('text COLLATE %%I.%%I', n.nspname, l.collname)
            WHEN t.typname = 'citext' THEN format_type(e.base, -1) END,
       (a.attnotnull OR e.not_null) AND NOT a.atthasdef AND a.attidentity = '', a.attgenerated <> ''
FROM found AS a JOIN ends AS e USING (attnum) JOIN pg_type AS t ON t.oid = e.base
LEFT JOIN pg_collation AS l ON l.oid = a.attcollation LEFT JOIN pg_namespace AS n ON n.oid = l.collnamespace
ORDER BY a.attnum
"""


@attrs.frozen
class ColumnInfo:
    """A column: its type as format_type() writes it, and what an INSERT must know.

    For a domain, `base` is the type that it is based on, with its length or precision: `character
    varying(10)`. `plain` is the base without them: `character varying`.
    """

    type: str
    base: str
    plain: str
    text: bool
    """Whether a string can be stored: a string or enum type."""
    labels: tuple[str, ...]
    """The values of an enum type; none for other types."""
    folded: str | None
    """citext, or text of a nondeterministic collation, which takes BTC and btc for equal; else None."""
    required: bool
    """Whether an INSERT must give it a value: NOT NULL without a default."""
    generated: bool
    """Whether the server computes it, so that it cannot be written."""


@attrs.frozen
class IndexInfo:
    """The key columns of a valid index over all rows, in order."""

    columns: tuple[str, ...]
    unique: bool
    """Whether each key occurs once at any time, not only at the end of a transaction: for ON CONFLICT."""


@attrs.frozen
class TableInfo:
    """A table or view that exists."""

    schema: str
    name: str
    kind: str
    """`r` table, `p` partitioned table, `v` view, and others of pg_class."""
    comment: str | None
    guarded: bool
    """Whether a rule or a BEFORE trigger may change a row or keep it out."""
    columns: Mapping[str, ColumnInfo]
    indexes: tuple[IndexInfo, ...]

    @property
    def title(self) -> str:
        """The name with its schema, for messages."""
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        """The quoted name with its schema, for a statement that a person types."""
        return quoted(self.schema, self.name)


def lookup_table(connection: Connection, name: str) -> TableInfo | None:
    """Look up a relation by its quoted name; None if there is none.

    A name without a schema is looked up through the search path.
    """
    row = connection.execute(
        "SELECT c.oid, n.nspname, c.relname, c.relkind::text, obj_description(c.oid, 'pg_class'), "
        "EXISTS (SELECT FROM pg_rewrite AS r WHERE r.ev_class = c.oid AND r.ev_type IN ('2', '3')) "
        "OR EXISTS (SELECT FROM pg_trigger AS g WHERE (g.tgrelid = c.oid "
        "OR g.tgrelid IN (SELECT relid FROM pg_partition_tree(c.oid))) "
        "AND NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgtype & 2 <> 0 AND g.tgtype & 20 <> 0) "
        "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)",
        [name],
    ).fetchone()
    if row is None:
        return None
    oid, schema, relation, kind, comment, guarded = row
    columns = connection.execute(_COLUMNS, [oid]).fetchall()
    indexes = connection.execute(
        "SELECT array_agg(a.attname::text ORDER BY k.position), i.indisunique AND i.indimmediate "
        "FROM pg_index AS i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(attnum, position) "
        "JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum "
        "WHERE i.indrelid = %s AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL "
        "AND k.position <= i.indnkeyatts GROUP BY i.indexrelid, i.indisunique, i.indimmediate",
        [oid],
    ).fetchall()
    return TableInfo(
        schema,
        relation,
        kind,
        comment,
        guarded,
        {
            column: ColumnInfo(kind, base, plain, text, tuple(labels), *rest)
            for column, kind, base, plain, text, labels, *rest in columns
        },
        tuple(IndexInfo(tuple(names), unique) for names, unique in indexes),
    )


def known_tables(connection: Connection, schema: str | None) -> list[str]:
    """Return the names of the tables in a schema, or without a schema those on the search path."""
    found = connection.execute(
        "SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') "
        "AND (n.nspname = %(schema)s OR %(schema)s::text IS NULL AND pg_table_is_visible(c.oid))",
        {"schema": schema},
    ).fetchall()
    return [name for (name,) in found]
