"""The SQL text that writes and reads rows. Pure: no connection.

Parameters are named: `key0`, `key1`, ... are the values of the key columns; `first` and `last` bound the
times. In every statement `t` is the table and `u` the staged rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from marketfetch.sinks.postgres.schema.tables import DOUBLE, PostgresTable, wire_type
from marketfetch.sinks.sql.identifiers import escaped, quoted
from marketfetch.sinks.sql.statements import (
    difference_condition,
    merge_statement,
    on_conflict,
    set_null_clause,
)
from marketfetch.sinks.sql.tables import ValueColumn

__all__ = [
    "copy_into_staging",
    "copy_rows",
    "create_staging_table",
    "delete_rows",
    "first_unstored_row",
    "merge_staged",
    "newest_rows",
    "newest_time",
    "oldest_rows",
    "set_values_null",
    "upsert_staged",
]

_STAGED = '"pg_temp"."marketfetch_staged"'


def copy_rows(table: PostgresTable, names: Iterable[str]) -> bytes:
    """Write the statement that takes rows of a table as a binary COPY stream with the named columns."""
    return _copy_in(table.relation, names)


def newest_time(table: PostgresTable) -> bytes:
    """Write the query for the newest stored time between `first` and `last`, in UTC milliseconds or NULL.

    Beside it are the types that the columns of `types` have now. They stay the same until the transaction
    ends: the lock of a reader keeps other transactions from altering the table.
    """
    relation = _table(table)
    types = ", ".join(f"pg_typeof((NULL::{relation}).{_name(name)})" for name in table.types)
    return (
        f"SELECT (extract(epoch FROM max(t.{_name(table.time)})) * 1000)::bigint, ARRAY[{types}]::text[] "
        f"FROM {relation} AS t WHERE {_in_range(table)}"
    ).encode()


def create_staging_table(table: PostgresTable) -> bytes:
    """Write the statement that makes the table of staged rows, which ends with the transaction."""
    columns = [(table.time, table.time_codec.type)]
    columns += [(column.name, wire_type(column)) for column in table.value_columns]
    listed = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns)
    return f"CREATE TEMP TABLE {_STAGED} ({listed}) ON COMMIT DROP".encode()


def copy_into_staging(names: Iterable[str]) -> bytes:
    """Write the statement that takes staged rows as a binary COPY stream."""
    return _copy_in(_STAGED, names)


def merge_staged(table: PostgresTable) -> bytes:
    """Write the MERGE of staged rows into a table of our own, under the lock of the series.

    It reads the stored rows once, but fails if another program inserts one of the rows meanwhile.
    """
    on = f"{_in_range(table)} AND {_same_time(table)}"
    return merge_statement(
        _table(table), _STAGED, on, _staged_key(table), _staged_values(table.value_columns)
    ).encode()


def upsert_staged(table: PostgresTable) -> bytes:
    """Write the INSERT of staged rows that are new or change a stored row; other stored rows stay unlocked.

    1. It is correct even if other writers change the same rows meanwhile.
    2. It takes rows in the order of time: two writers of the same rows wait for each other, without deadlock.
    3. Where no index leads from a series to its times, each row is looked up by itself. A join would read the
       rows of all other symbols, too.
    """
    relation, time = _table(table), _name(table.time)
    key, new = _staged_key(table), _staged_values(table.value_columns)
    if table.ordered:
        known = f"{relation} AS t ON {_in_range(table)} AND {_same_time(table)}"
    else:
        found = f"SELECT * FROM {relation} AS t WHERE {_same_series(table)} AND {_same_time(table)} OFFSET 0"
        known = f"LATERAL ({found}) AS t ON true"
    return (
        f"INSERT INTO {relation} AS t ({', '.join([*key, *new])}) "
        f"SELECT {', '.join([*key.values(), *new.values()])} FROM {_STAGED} AS u LEFT JOIN {known} "
        f"WHERE t.{time} IS NULL OR {difference_condition(new, 't')} "
        f"ORDER BY u.{time} {on_conflict(key, new, 't')}"
    ).encode()


def first_unstored_row(table: PostgresTable) -> bytes:
    """Write the query for the first staged row that is not stored as it is.

    A column that may round has perhaps rounded its value.
    """
    time = _name(table.time)
    changed = "false" if table.may_round else difference_condition(_staged_values(table.value_columns), "t")
    return (
        f"SELECT u.{time}::text FROM {_STAGED} AS u WHERE NOT EXISTS (SELECT FROM {_table(table)} AS t "
        f"WHERE {_in_range(table)} AND {_same_time(table)} AND NOT coalesce({changed}, false)) "
        f"ORDER BY u.{time} LIMIT 1"
    ).encode()


def oldest_rows(table: PostgresTable, limit: int) -> bytes:
    """Write the query for the oldest stored rows from `first` on and before `last`: one row of byte strings.

    The times are one byte string, and so is each column: the big-endian 64-bit values of all rows. The server
    needs no longer than for COPY, and the client a hundredth of the time. NULL is NaN.
    """
    time = _name(table.time)
    inside = f" AND t.{time} >= %(first)s AND t.{time} < %(last)s"
    return _select_packed(table, inside, f"ORDER BY t.{time} LIMIT {limit}")


def newest_rows(table: PostgresTable, limit: int) -> bytes:
    """Write the query for the newest stored rows before `last`, the last one first, as `oldest_rows` does."""
    time = _name(table.time)
    return _select_packed(table, f" AND t.{time} < %(last)s", f"ORDER BY t.{time} DESC LIMIT {limit}")


def delete_rows(table: PostgresTable) -> bytes:
    """Write the DELETE of the rows of a series in the spans `starts` and `ends`, if `others` are NULL."""
    empty = "".join(f" AND t.{_name(other)} IS NULL" for other in table.others)
    return f"DELETE FROM {_table(table)} AS t USING {_in_spans(table)}{empty}".encode()


def set_values_null(table: PostgresTable) -> bytes:
    """Write the UPDATE that makes the value columns NULL in the spans `starts` and `ends`."""
    columns = [*map(_name, table.columns)]
    return (
        f"UPDATE {_table(table)} AS t SET {set_null_clause(columns)} "
        f"FROM {_in_spans(table)} AND ({_has_value(columns)})"
    ).encode()


def _select_packed(table: PostgresTable, inside: str, order: str) -> bytes:
    """Write the query for rows of a series in the form of `oldest_rows`."""
    time, columns = _name(table.time), [*map(_name, table.columns)]
    numbers = ", ".join(f"coalesce(t.{name}::double precision, 'NaN') AS {name}" for name in columns)
    packed = ", ".join(f"string_agg(float8send({name}), '')" for name in columns)
    # Datasets may share a row: it is a row of this dataset if one of its columns has a value.
    filled = "true" if table.is_own else _has_value(columns)
    # The limit also keeps the aggregates out of parallel workers, which would mix up the order.
    return (
        f"SELECT string_agg({table.time_codec.send.format(time)}, ''), {packed} "
        f"FROM (SELECT t.{time}, {numbers} FROM {_table(table)} AS t "
        f"WHERE {_same_series(table)}{inside} AND ({filled}) {order}) AS sorted"
    ).encode()


def _copy_in(target: str, names: Iterable[str]) -> bytes:
    return f"COPY {target} ({', '.join(map(quoted, names))}) FROM STDIN (FORMAT BINARY)".encode()


def _name(column: str) -> str:
    return escaped(quoted(column))


def _table(table: PostgresTable) -> str:
    return escaped(table.relation)


def _has_value(columns: Sequence[str]) -> str:
    return " OR ".join(f"t.{name} IS NOT NULL" for name in columns)


def _in_spans(table: PostgresTable) -> str:
    kind, time = table.time_codec.type, _name(table.time)
    return (
        f"unnest(%(starts)s::{kind}[], %(ends)s::{kind}[]) AS span(start, stop) "
        f"WHERE {_same_series(table)} AND t.{time} >= span.start AND t.{time} < span.stop"
    )


def _staged_key(table: PostgresTable) -> dict[str, str]:
    # No cast to the type of the key column: a cast cuts a text that is too long, an assignment refuses it.
    key = {_name(key.name): f"%(key{i})s::{escaped(key.compared)}" for i, key in enumerate(table.keys)}
    return {**key, _name(table.time): f"u.{_name(table.time)}"}


def _staged_values(columns: Iterable[ValueColumn]) -> dict[str, str]:
    return {_name(column.name): _staged_value(column) for column in columns}


def _staged_value(column: ValueColumn) -> str:
    """Return the staged value in the type of its column."""
    value, wire = f"u.{_name(column.name)}", wire_type(column)
    if column.type == wire:
        return value
    # Through its shortest text: 0.1 becomes the number 0.1, not the 0.1000000000000000055 that a float is.
    exact = f"{value}::text" if wire == DOUBLE else value
    return f"{exact}::{escaped(column.type)}"


def _same_time(table: PostgresTable) -> str:
    return f"t.{_name(table.time)} = u.{_name(table.time)}"


def _same_series(table: PostgresTable) -> str:
    return " AND ".join(
        f"t.{_name(key.name)} = %(key{i})s::{escaped(key.compared)}" for i, key in enumerate(table.keys)
    )


def _in_range(table: PostgresTable) -> str:
    """Return the condition for the stored rows of the series between `first` and `last`."""
    return f"{_same_series(table)} AND t.{_name(table.time)} BETWEEN %(first)s AND %(last)s"
