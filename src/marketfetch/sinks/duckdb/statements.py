"""SQL statements, as text, with which DuckDB writes and reads the rows of a table. Pure: no connection."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import RowsRefused
from marketfetch.sinks.sql.file_tables import FileTable
from marketfetch.sinks.sql.identifiers import quoted
from marketfetch.sinks.sql.statements import last, merge
from marketfetch.values.spans import Span

__all__ = [
    "MOMENTS",
    "append",
    "bounds",
    "combine",
    "combine_all",
    "counted",
    "exact",
    "inside",
    "probe_all",
    "probe_each",
    "select",
]

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
"""For each type of a time column, the expression that turns UTC milliseconds into it."""

_COARSE = {"TIMESTAMP_S": 1000, "DATE": 86_400_000}
"""Types that cut a part of a time off: the milliseconds from one value to the next."""


def counted(table: FileTable) -> bool:
    """Tell whether the time column is an integer, in the `time_unit` of the mapping."""
    return "INT" in table.types[table.time]


def exact(table: FileTable, times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the times; raises RowsRefused where the type of the column would cut a part of a time off."""
    kind = table.types[table.time]
    if np.any(times % _COARSE.get(kind, 1)):
        raise RowsRefused(
            f"{table.title}.{table.time} is {kind}, which is too coarse for this dataset; make it TIMESTAMP"
        )
    return times


def _up(ms: int, step: int) -> int:
    """Round a moment up to a multiple of a step."""
    return -(-ms // step) * step


def _moment(table: FileTable, number: str) -> str:
    return MOMENTS[table.types[table.time]].format(number)


def inside(table: FileTable) -> str:
    """Write the condition for the rows of a series in a span; its parameters are labels and `bounds`."""
    return table.inside(_moment(table, "?::BIGINT"))


def bounds(table: FileTable, span: Span) -> tuple[int, int]:
    """Return the two last parameters of `inside` for a span."""
    step = _COARSE.get(table.types[table.time], 1)
    return table.bounds(span) if counted(table) else (_up(span.start, step), _up(span.end, step))


def select(table: FileTable, newest: int | None = None) -> str:
    """Write the query for the rows of `inside`: time in milliseconds, then the columns, as DOUBLE.

    With `newest` it returns at most so many rows from the end, the last one first.
    """
    time = quoted(table.time)
    columns = [
        f"{quoted(name)}{_by_text(table, name)}::DOUBLE AS c{place}"
        for place, name in enumerate(table.columns)
    ]
    where = table.with_values(_moment(table, "?::BIGINT"))
    # A cast of TIMESTAMPTZ to TIMESTAMP would give the local time of the session instead of UTC.
    zoned = table.types[table.time] == "TIMESTAMP WITH TIME ZONE"
    moment = time if counted(table) else f"epoch_ms({time}{'' if zoned else '::TIMESTAMP'})"
    return (
        f"SELECT {moment}::DOUBLE AS t, {', '.join(columns)} FROM {table.relation} WHERE {where} "
        f"ORDER BY t{last(newest)}"
    )


def _matching(table: FileTable, before: int = 0) -> str:
    """Write the condition for the rows of a series between two times, inclusive.

    Its parameters are the labels and the two times, after `before` others.
    """
    label = [f"t.{quoted(name)} = ${place}" for place, name in enumerate(table.labels, before + 1)]
    first, last = (_moment(table, f"${before + len(label) + place}::BIGINT") for place in (1, 2))
    return " AND ".join([*label, f"t.{quoted(table.time)} BETWEEN {first} AND {last}"])


def probe_each(table: FileTable, count: int) -> str:
    """Write the query for the places of parts, from 0 on, that have any row between two times of theirs.

    Its parameters are those of `combine` for each part. The times are constants, so that DuckDB skips what
    the table has of other times.
    """
    width = len(table.labels) + 2
    return " UNION ALL ".join(
        f"(SELECT {place} FROM {table.relation} AS t WHERE {_matching(table, place * width)} LIMIT 1)"
        for place in range(count)
    )


def probe_all(table: FileTable) -> str:
    """Write the query for the numbers of parts, from 1 on, that have any row between two times of theirs.

    Its parameters: the labels of the parts as for `append`, the first and the last time of all parts, and
    lists of the first and the last times of each.
    """
    count = len(table.labels)
    labels = [
        f"unnest(${place}::{table.types[name]}[]) AS l{place}" for place, name in enumerate(table.labels, 1)
    ]
    times = [f"unnest(${count + place}::BIGINT[]) AS {name}" for place, name in ((3, "first"), (4, "last"))]
    between = f"{_moment(table, 'w.first')} AND {_moment(table, 'w.last')}"
    return (
        f"SELECT DISTINCT w.number FROM (SELECT {', '.join([*labels, *times])}, "
        f"generate_subscripts(${count + 3}::BIGINT[], 1) AS number) AS w JOIN {table.relation} AS t "
        f"ON {_same_labels(table, 'w')} AND t.{quoted(table.time)} BETWEEN {between} WHERE {_in_reach(table)}"
    )


def _same_labels(table: FileTable, parts: str) -> str:
    """Write the condition that the labels of a row are those of a part."""
    equal = [f"t.{quoted(name)} = {parts}.l{place}" for place, name in enumerate(table.labels, 1)]
    return " AND ".join(equal) or "true"


def _in_reach(table: FileTable) -> str:
    """Write the condition that a row lies between the first and the last time of all parts."""
    first, last = (_moment(table, f"${len(table.labels) + place}::BIGINT") for place in (1, 2))
    return f"t.{quoted(table.time)} BETWEEN {first} AND {last}"


def _values(table: FileTable) -> str:
    """Write time and columns of the registered rows, cast to the types of the table, with their source.

    DuckDB reads NaN in a NumPy array as NULL.
    """
    values = [
        f"c{place}{_by_text(table, name)}::{table.types[name]} AS c{place}"
        for place, name in enumerate(table.columns)
    ]
    return f"{_moment(table, 't')} AS t, {', '.join(values)} FROM marketfetch_batch"


def _by_text(table: FileTable, column: str) -> str:
    """Write a cast to text, for between DOUBLE and DECIMAL: a direct cast changes the last digits."""
    return "::VARCHAR" if table.types[column].startswith("DECIMAL") else ""


def append(table: FileTable) -> str:
    """Write the statement that inserts registered parts into a table that has no row of their times.

    Its parameters are lists: for each label column, the label of each part.
    """
    columns = ", ".join(map(quoted, (*table.key, *table.columns)))
    return f"INSERT INTO {table.relation} ({columns}) SELECT {', '.join(_labels(table))}, {_values(table)}"


def _labels(table: FileTable) -> list[str]:
    """Write the labels of a registered row; the parameters are those of `append`."""
    return [f"(${place}::{table.types[name]}[])[part]" for place, name in enumerate(table.labels, 1)]


def combine(table: FileTable) -> str:
    """Write the upsert of a registered batch: NULL never overwrites, and an equal row is not written."""
    time = quoted(table.time)
    key = {**{quoted(name): f"${place}" for place, name in enumerate(table.labels, 1)}, time: "u.t"}
    new = {quoted(name): f"u.c{place}" for place, name in enumerate(table.columns)}
    on = f"{_matching(table)} AND t.{time} = u.t"
    return merge(table.relation, f"(SELECT {_values(table)})", on, key, new)


def combine_all(table: FileTable) -> str:
    """Write the same for several registered parts; its parameters are those of `probe_all` but the lists."""
    time = quoted(table.time)
    labels = [f"{label} AS l{place}" for place, label in enumerate(_labels(table), 1)]
    key = {quoted(name): f"u.l{place}" for place, name in enumerate(table.labels, 1)} | {time: "u.t"}
    new = {quoted(name): f"u.c{place}" for place, name in enumerate(table.columns)}
    on = f"{_same_labels(table, 'u')} AND t.{time} = u.t AND {_in_reach(table)}"
    return merge(table.relation, f"(SELECT {', '.join([*labels, _values(table)])})", on, key, new)
