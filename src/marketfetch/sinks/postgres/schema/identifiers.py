"""Quoted names for SQL. Pure: no connection."""

from __future__ import annotations

from psycopg.sql import Identifier

__all__ = ["escaped", "quoted"]


def quoted(*names: str) -> str:
    """Quote a name and its qualifiers for a statement that a person types.

    >>> quoted("public", "Candles")
    '"public"."Candles"'
    """
    return Identifier(*names).as_string()


def escaped(*names: str) -> Identifier:
    """Return an identifier for a statement with parameters, where psycopg reads a single % as a placeholder.

    >>> escaped("a%b").as_string()
    '"a%%b"'
    """
    return Identifier(*(name.replace("%", "%%") for name in names))
