"""The SQL by which DuckDB writes and finds the rows of a table, as text. Pure: no connection."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import RowsRefused
from marketfetch.sinks.sql.tables import SqlTable, quoted
from marketfetch.values.spans import Span

__all__ = ["MOMENTS", "append", "bounds", "combine", "counted", "exact", "inside", "probe", "select"]

MOMENTS = {
    "TIMESTAMP": "epoch_ms({})",
    "TIMESTAMP WITH TIME ZONE": "make_timestamptz({} * 1000)",
    "TIMESTAMP_NS": "make_timestamp_ns(least({}, 9223372036854) * 1000000)",  # the year 2262
    "TIMESTAMP_MS": "epoch_ms({})::TIMESTAMP_MS",
    "TIMESTAMP_S": "epoch_ms({})::TIMESTAMP_S",
    "DATE": "epoch_ms({})::DATE",
    "BIGINT": "{}",
    "UBIGINT": "{}",
    "INTEGER": "{}",
    "UINTEGER": "{}",
}
"""For each type that a time column may have, how a BIGINT becomes one."""

_COARSE = {"TIMESTAMP_S": 1000, "DATE": 86_400_000}
"""Types that would cut off a part of a time: milliseconds from one value to the next."""


def counted(table: SqlTable) -> bool:
    """Tell whether time is a number, whose unit the mapping knows."""
    return "INT" in table.types[table.time]


def exact(table: SqlTable, times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the times; raises RowsRefused where the type of the column would cut off a part of one."""
    kind = table.types[table.time]
    if np.any(times % _COARSE.get(kind, 1)):
        raise RowsRefused(
            f"{table.name}.{table.time} is {kind}, which is too coarse for this dataset; make it TIMESTAMP"
        )
    return times


def _up(ms: int, step: int) -> int:
    """Return the first multiple of a step at or after a moment."""
    return -(-ms // step) * step


def _moment(table: SqlTable, number: str) -> str:
    return MOMENTS[table.types[table.time]].format(number)


def inside(table: SqlTable) -> str:
    """Write the condition for the rows of a series inside a span: its labels, and then `bounds`."""
    where = [f"{quoted(name)} = ?" for name in table.labels]
    time, moment = quoted(table.time), _moment(table, "?::BIGINT")
    return " AND ".join([*where, f"{time} >= {moment}", f"{time} < {moment}"])


def bounds(table: SqlTable, span: Span) -> tuple[int, int]:
    """Return what stands for the two ends of a span in `inside`."""
    step = _COARSE.get(table.types[table.time], 1)
    return table.bounds(span) if counted(table) else (_up(span.start, step), _up(span.end, step))


def select(table: SqlTable) -> str:
    """Write the query for the rows that `inside` picks: time in milliseconds, then the columns, as DOUBLE."""
    time = quoted(table.time)
    columns = [
        f"{quoted(name)}{_by_text(table, name)}::DOUBLE AS c{place}"
        for place, name in enumerate(table.columns)
    ]
    where = [inside(table)]
    if table.mapping is not None:
        where.append(f"coalesce({', '.join([*map(quoted, table.columns), 'NULL'])}) IS NOT NULL")
    # A cast of TIMESTAMPTZ would give the time of day where the session is, and not that of UTC.
    zoned = table.types[table.time] == "TIMESTAMP WITH TIME ZONE"
    moment = time if counted(table) else f"epoch_ms({time}{'' if zoned else '::TIMESTAMP'})"
    return (
        f"SELECT {moment}::DOUBLE AS t, {', '.join(columns)} "
        f"FROM {table.relation} WHERE {' AND '.join(where)} ORDER BY t"
    )


def _matching(table: SqlTable) -> str:
    """Write the condition that picks the rows of a series between two times, inclusive."""
    label = [f"r.{quoted(name)} = ${place}" for place, name in enumerate(table.labels, 1)]
    first, last = (_moment(table, f"${len(label) + place}::BIGINT") for place in (1, 2))
    return " AND ".join([*label, f"r.{quoted(table.time)} BETWEEN {first} AND {last}"])


def probe(table: SqlTable) -> str:
    """Write the query whether a series has any row between two times."""
    return f"SELECT 1 FROM {table.relation} AS r WHERE {_matching(table)} LIMIT 1"


def _source(table: SqlTable) -> str:
    """Write the query that turns a registered batch into columns of the table's types.

    NaN in an array of NumPy's is NULL to DuckDB.
    """
    values = [
        f"c{place}{_by_text(table, name)}::{table.types[name]} AS c{place}"
        for place, name in enumerate(table.columns)
    ]
    return f"SELECT {_moment(table, 't')} AS t, {', '.join(values)} FROM marketfetch_batch"


def _by_text(table: SqlTable, column: str) -> str:
    """Write the cast to text between a DOUBLE and a DECIMAL: directly, the last digits are not exact."""
    return "::VARCHAR" if table.types[column].startswith("DECIMAL") else ""


def append(table: SqlTable) -> str:
    """Write the statement that adds a registered batch to a table that has none of its rows."""
    columns = ", ".join(map(quoted, (*table.key, *table.columns)))
    labels = ", ".join(f"${place}" for place, _ in enumerate(table.labels, 1))
    return f"INSERT INTO {table.relation} ({columns}) SELECT {labels}, u.* FROM ({_source(table)}) AS u"


def combine(table: SqlTable) -> str:
    """Write the merge with rows that are there: a NULL never overwrites, an equal row is not touched."""
    pairs = [(quoted(name), f"u.c{place}") for place, name in enumerate(table.columns)]
    differs = " OR ".join(f"({new} IS NOT NULL AND {new} IS DISTINCT FROM r.{old})" for old, new in pairs)
    better = ", ".join(f"{old} = coalesce({new}, r.{old})" for old, new in pairs)
    columns = ", ".join(map(quoted, (*table.key, *table.columns)))
    labels = [f"${place}" for place, _ in enumerate(table.labels, 1)]
    return (
        f"MERGE INTO {table.relation} AS r USING ({_source(table)}) AS u "
        f"ON {_matching(table)} AND r.{quoted(table.time)} = u.t "
        f"WHEN MATCHED AND ({differs}) THEN UPDATE SET {better} "
        f"WHEN NOT MATCHED THEN INSERT ({columns}) "
        f"VALUES ({', '.join([*labels, 'u.t', *(new for _, new in pairs)])})"
    )
