"""Names of tables and columns in SQL. Pure."""

from __future__ import annotations

__all__ = ["escaped", "quoted", "relation", "schema_and_table"]


def escaped(text: str) -> str:
    """Double each % of a name or type: in a statement with parameters psycopg reads it as a placeholder.

    >>> escaped('"a%b"')
    '"a%%b"'
    """
    return text.replace("%", "%%")


def quoted(*names: str) -> str:
    """Quote each part of a name of a table, column or schema for SQL, and join the parts with dots.

    >>> print(quoted("open interest"), quoted("public", "Candles"))
    "open interest" "public"."Candles"
    """
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def relation(name: str) -> str:
    """Write the name of a table, which may have a schema, so that SQL takes it as it is.

    >>> relation("main.my candles")
    '"main"."my candles"'
    """
    return quoted(*name.split("."))


def schema_and_table(name: str) -> tuple[str, str]:
    """Divide the name of a table from its schema, which is `main` where none is named.

    >>> schema_and_table("candles"), schema_and_table("market.candles")
    (('main', 'candles'), ('market', 'candles'))
    """
    schema, _, table = name.rpartition(".")
    return schema or "main", table
