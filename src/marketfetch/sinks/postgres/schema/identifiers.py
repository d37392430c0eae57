"""Text for SQL statements with parameters. Pure: no connection."""

from __future__ import annotations

__all__ = ["escaped"]


def escaped(text: str) -> str:
    """Double each % of a name or type: in a statement with parameters psycopg reads it as a placeholder.

    >>> escaped('"a%b"')
    '"a%%b"'
    """
    return text.replace("%", "%%")
