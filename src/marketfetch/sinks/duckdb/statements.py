"""SQL statements, as text, with which DuckDB writes and reads the rows of a table. Pure: no connection."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import RowsRefused
from marketfetch.sinks.sql.file_tables import FileTable
from marketfetch.sinks.sql.identifiers import quoted
from marketfetch.sinks.sql.statements import limit_clause, merge_statement
from marketfetch.values.spans import DAY, SECOND, Span

__all__ = [
    "TIME_EXPRESSIONS",
    "bounds",
    "check_time_resolution",
    "has_integer_time",
    "insert_parts",
    "inside",
    "merge_part",
    "merge_parts",
    "probe_all",
    "probe_each",
    "select",
]

TIME_EXPRESSIONS = {
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

_RESOLUTIONS = {"TIMESTAMP_S": SECOND, "DATE": DAY}
"""Types that cut a part of a time off: the milliseconds from one value to the next."""


def has_integer_time(table: FileTable) -> bool:
    """Tell whether the time column is an integer, in the `time_unit` of the mapping."""
    return "INT" in table.types[table.time]


def check_time_resolution(table: FileTable, times: NDArray[np.int64]) -> None:
    """Raise RowsRefused where the type of the time column would cut a part of a time off."""
    kind = table.types[table.time]
    if np.any(times % _RESOLUTIONS.get(kind, 1)):
        raise RowsRefused(
            f"{table.title}.{table.time} is {kind}, which is too coarse for this dataset; make it TIMESTAMP"
        )


def _round_up(ms: int, step: int) -> int:
    """Round a moment up to a multiple of a step."""
    return -(-ms // step) * step


def _moment(table: FileTable, number: str) -> str:
    return TIME_EXPRESSIONS[table.types[table.time]].format(number)


def inside(table: FileTable) -> str:
    """Write the condition for the rows of a series in a span; its parameters are labels and `bounds`."""
    return table.inside(_moment(table, "?::BIGINT"))


def bounds(table: FileTable, span: Span) -> tuple[int, int]:
    """Return the two last parameters of `inside` for a span."""
    step = _RESOLUTIONS.get(table.types[table.time], 1)
    return (
        table.bounds(span)
        if has_integer_time(table)
        else (_round_up(span.start, step), _round_up(span.end, step))
    )


def select(table: FileTable, newest_limit: int | None = None) -> str:
    """Write the query for the rows of `inside`: time in milliseconds, then the columns, as DOUBLE.

    With `newest_limit` it returns at most so many rows from the end, the last one first.
    """
    time = quoted(table.time)
    columns = [
        f"{quoted(name)}{_by_text(table, name)}::DOUBLE AS c{index}"
        for index, name in enumerate(table.columns)
    ]
    where = table.with_values(_moment(table, "?::BIGINT"))
    # A cast of TIMESTAMPTZ to TIMESTAMP would give the local time of the session instead of UTC.
    zoned = table.types[table.time] == "TIMESTAMP WITH TIME ZONE"
    moment = time if has_integer_time(table) else f"epoch_ms({time}{'' if zoned else '::TIMESTAMP'})"
    return (
        f"SELECT {moment}::DOUBLE AS t, {', '.join(columns)} FROM {table.relation} WHERE {where} "
        f"ORDER BY t{limit_clause(newest_limit)}"
    )


def _match_condition(table: FileTable, before: int = 0) -> str:
    """Write the condition for the rows of a series between two times, inclusive.

    Its parameters are the labels and the two times, after `before` others.
    """
    label = [f"t.{quoted(name)} = ${index}" for index, name in enumerate(table.labels, before + 1)]
    first, last = (_moment(table, f"${before + len(label) + index}::BIGINT") for index in (1, 2))
    return " AND ".join([*label, f"t.{quoted(table.time)} BETWEEN {first} AND {last}"])


def probe_each(table: FileTable, count: int) -> str:
    """Write the query for the indexes of parts, from 0 on, that have any row between two times of theirs.

    Its parameters are those of `merge_part` for each part. The times are constants, so that DuckDB skips what
    the table has of other times.
    """
    width = len(table.labels) + 2
    return " UNION ALL ".join(
        f"(SELECT {index} FROM {table.relation} AS t WHERE {_match_condition(table, index * width)} LIMIT 1)"
        for index in range(count)
    )


def probe_all(table: FileTable) -> str:
    """Write the query for the numbers of parts, from 1 on, that have any row between two times of theirs.

    Its parameters: the labels of the parts as for `insert_parts`, the first and the last time of all parts,
    and lists of the first and the last times of each.
    """
    count = len(table.labels)
    labels = [
        f"unnest(${index}::{table.types[name]}[]) AS l{index}" for index, name in enumerate(table.labels, 1)
    ]
    times = [f"unnest(${count + index}::BIGINT[]) AS {name}" for index, name in ((3, "first"), (4, "last"))]
    between = f"{_moment(table, 'w.first')} AND {_moment(table, 'w.last')}"
    return (
        f"SELECT DISTINCT w.number FROM (SELECT {', '.join([*labels, *times])}, "
        f"generate_subscripts(${count + 3}::BIGINT[], 1) AS number) AS w JOIN {table.relation} AS t "
        f"ON {_same_labels(table, 'w')} AND t.{quoted(table.time)} BETWEEN {between} "
        f"WHERE {_in_time_range(table)}"
    )


def _same_labels(table: FileTable, parts: str) -> str:
    """Write the condition that the labels of a row are those of a part."""
    equal = [f"t.{quoted(name)} = {parts}.l{index}" for index, name in enumerate(table.labels, 1)]
    return " AND ".join(equal) or "true"


def _in_time_range(table: FileTable) -> str:
    """Write the condition that a row lies between the first and the last time of all parts."""
    first, last = (_moment(table, f"${len(table.labels) + index}::BIGINT") for index in (1, 2))
    return f"t.{quoted(table.time)} BETWEEN {first} AND {last}"


def _values(table: FileTable) -> str:
    """Write time and columns of the registered rows, cast to the types of the table, with their source.

    DuckDB reads NaN in a NumPy array as NULL.
    """
    values = [
        f"c{index}{_by_text(table, name)}::{table.types[name]} AS c{index}"
        for index, name in enumerate(table.columns)
    ]
    return f"{_moment(table, 't')} AS t, {', '.join(values)} FROM marketfetch_batch"


def _by_text(table: FileTable, column: str) -> str:
    """Write a cast to text, for between DOUBLE and DECIMAL: a direct cast changes the last digits."""
    return "::VARCHAR" if table.types[column].startswith("DECIMAL") else ""


def insert_parts(table: FileTable) -> str:
    """Write the statement that inserts registered parts into a table that has no row of their times.

    Its parameters are lists: for each label column, the label of each part.
    """
    columns = ", ".join(map(quoted, (*table.key, *table.columns)))
    return f"INSERT INTO {table.relation} ({columns}) SELECT {', '.join(_labels(table))}, {_values(table)}"


def _labels(table: FileTable) -> list[str]:
    """Write the labels of a registered row; the parameters are those of `insert_parts`."""
    return [f"(${index}::{table.types[name]}[])[part]" for index, name in enumerate(table.labels, 1)]


def merge_part(table: FileTable) -> str:
    """Write the upsert of a registered batch: NULL never overwrites, and an equal row is not written."""
    time = quoted(table.time)
    key = {**{quoted(name): f"${index}" for index, name in enumerate(table.labels, 1)}, time: "u.t"}
    new = {quoted(name): f"u.c{index}" for index, name in enumerate(table.columns)}
    on = f"{_match_condition(table)} AND t.{time} = u.t"
    return merge_statement(table.relation, f"(SELECT {_values(table)})", on, key, new)


def merge_parts(table: FileTable) -> str:
    """Write the same for several registered parts; its parameters are those of `probe_all` but the lists."""
    time = quoted(table.time)
    labels = [f"{label} AS l{index}" for index, label in enumerate(_labels(table), 1)]
    key = {quoted(name): f"u.l{index}" for index, name in enumerate(table.labels, 1)} | {time: "u.t"}
    new = {quoted(name): f"u.c{index}" for index, name in enumerate(table.columns)}
    on = f"{_same_labels(table, 'u')} AND t.{time} = u.t AND {_in_time_range(table)}"
    return merge_statement(table.relation, f"(SELECT {', '.join([*labels, _values(table)])})", on, key, new)
