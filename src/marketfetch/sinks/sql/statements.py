"""The parts of SQL statements that are the same in every database. Pure: no connection.

All names and expressions are given as SQL. `new` has, for each column, the expression of its new value, and
`old` is the name of the table with the stored rows. NULL never overwrites a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = [
    "SERIES_NAMES",
    "difference_condition",
    "limit_clause",
    "merge_statement",
    "on_conflict",
    "set_clause",
    "set_null_clause",
    "view_query",
]

SERIES_NAMES = ("exchange", "symbol", "interval")
"""The columns by which a view names a series."""


def set_clause(new: Mapping[str, str], old: str) -> str:
    """Write the assignments of an UPDATE that merges new values into a stored row.

    >>> set_clause({"close": "u.close"}, "t")
    'close = coalesce(u.close, t.close)'
    """
    return ", ".join(f"{column} = coalesce({value}, {old}.{column})" for column, value in new.items())


def difference_condition(new: Mapping[str, str], old: str, unlike: str = "IS DISTINCT FROM") -> str:
    """Write the condition that `set_clause` would change a stored row.

    >>> difference_condition({"close": "u.close"}, "t")
    '(u.close IS NOT NULL AND u.close IS DISTINCT FROM t.close)'
    """
    return " OR ".join(
        f"({value} IS NOT NULL AND {value} {unlike} {old}.{column})" for column, value in new.items()
    )


def on_conflict(
    key: Iterable[str], columns: Iterable[str], old: str, unlike: str = "IS DISTINCT FROM"
) -> str:
    """Write the end of an INSERT that merges a row into a stored row of the same key."""
    new = {column: f"excluded.{column}" for column in columns}
    return (
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {set_clause(new, old)} "
        f"WHERE {difference_condition(new, old, unlike)}"
    )


def merge_statement(table: str, source: str, on: str, key: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Write the MERGE of the rows `u` of a source into the rows `t` of a table; `on` finds equal keys."""
    inserted = {**key, **new}
    return (
        f"MERGE INTO {table} AS t USING {source} AS u ON {on} "
        f"WHEN MATCHED AND ({difference_condition(new, 't')}) THEN UPDATE SET {set_clause(new, 't')} "
        f"WHEN NOT MATCHED THEN INSERT ({', '.join(inserted)}) VALUES ({', '.join(inserted.values())})"
    )


def set_null_clause(columns: Iterable[str]) -> str:
    """Write the assignments of an UPDATE that takes values away.

    >>> set_null_clause(["open", "close"])
    'open = NULL, close = NULL'
    """
    return ", ".join(f"{column} = NULL" for column in columns)


def limit_clause(count: int | None) -> str:
    """Write what follows ORDER BY to get the last rows instead of all, the last one first; see `newest`.

    >>> f"ORDER BY open_time{limit_clause(100)}"
    'ORDER BY open_time DESC LIMIT 100'
    """
    return "" if count is None else f" DESC LIMIT {count}"


def view_query(table: str, series: str, time: str, columns: Iterable[str]) -> str:
    """Write the query of a view: the rows `r` of our own table, with the names of their series `s`."""
    names = ", ".join(f"s.{name}" for name in SERIES_NAMES)
    values = ", ".join(f"r.{column}" for column in columns)
    return (
        f"SELECT {names}, {time} AS open_time, {values} "
        f"FROM {table} AS r JOIN {series} AS s ON s.id = r.series_id"
    )
