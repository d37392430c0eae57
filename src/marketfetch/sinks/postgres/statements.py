"""The SQL text that writes and reads rows. Pure: no connection.

Parameters are named: `key0`, `key1`, ... are the values of the key columns; `first` and `last` bound the
times. In every statement `t` is the table and `u` the staged rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg.sql import SQL, Composable, Composed, Identifier, Placeholder

from marketfetch.sinks.postgres.schema.identifiers import escaped
from marketfetch.sinks.postgres.schema.tables import DOUBLE, TableModel, ValueColumn

__all__ = [
    "clear",
    "copy_in",
    "copy_rows",
    "kept_out",
    "merge",
    "newest",
    "relation",
    "remove",
    "rows",
    "spelled",
    "stage",
    "staging",
    "upsert",
]

_STAGED = Identifier("pg_temp", "marketfetch_staged")


def spelled(sql_type: str) -> SQL:
    """Return a type as SQL; only for text that the server's format_type() or this package wrote."""
    text: Any = sql_type  # not a literal, which SQL() asks for
    return SQL(text)


def relation(table: TableModel) -> Identifier:
    """Return the quoted, schema-qualified name of a table."""
    return Identifier(table.schema, table.name)


def copy_in(target: Composable, names: Iterable[str]) -> Composed:
    """Write the statement that takes a binary COPY stream with the named columns."""
    return SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(target, _listed(map(Identifier, names)))


def copy_rows(table: TableModel, names: Iterable[str]) -> Composed:
    """Write the statement that takes rows of a table as a binary COPY stream."""
    return copy_in(relation(table), names)


def newest(table: TableModel) -> Composed:
    """Write the query for the newest stored time between `first` and `last`, in UTC milliseconds or NULL.

    Beside it are the types that the columns of `TableModel.types` have now. They stay the same until the
    transaction ends: the lock of a reader keeps other transactions from altering the table.
    """
    types = _listed(
        SQL("pg_typeof((NULL::{}).{})").format(_table(table), escaped(name)) for name in table.types
    )
    return SQL(
        "SELECT (extract(epoch FROM max(t.{})) * 1000)::bigint, ARRAY[{}]::text[] FROM {} AS t WHERE {}"
    ).format(escaped(table.time), types, _table(table), _place(table))


def staging(table: TableModel) -> Composed:
    """Write the statement that makes the table of staged rows, which ends with the transaction."""
    columns = [(table.time, table.time_codec.type), *((column.name, column.wire) for column in table.values)]
    listed = _listed(SQL("{} {}").format(Identifier(name), spelled(kind)) for name, kind in columns)
    return SQL("CREATE TEMP TABLE {} ({}) ON COMMIT DROP").format(_STAGED, listed)


def stage(names: Iterable[str]) -> Composed:
    """Write the statement that takes staged rows as a binary COPY stream."""
    return copy_in(_STAGED, names)


def merge(table: TableModel) -> Composed:
    """Write the MERGE of staged rows into a table of our own, under the lock of the series.

    It reads the stored rows once, but fails if another program inserts one of the rows meanwhile.
    """
    return SQL(
        "MERGE INTO {table} AS t USING {staged} AS u ON {place} AND t.{time} = u.{time} "
        "WHEN MATCHED AND ({differs}) THEN UPDATE SET {changes} "
        "WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})"
    ).format(**_parts(table))


def upsert(table: TableModel) -> Composed:
    """Write the INSERT of staged rows that are new or change a stored row; other stored rows stay unlocked.

    1. It is correct even if other writers change the same rows meanwhile.
    2. It takes rows in the order of time: two writers of the same rows wait for each other, without deadlock.
    3. Where no index leads from a series to its times, each row is looked up by itself. A join would read the
       rows of all other symbols, too.
    """
    at_once = SQL("{table} AS t ON {place} AND t.{time} = u.{time}")
    one_by_one = SQL(
        "LATERAL (SELECT * FROM {table} AS t WHERE {series} AND t.{time} = u.{time} OFFSET 0) AS t ON true"
    )
    parts = _parts(table)
    known = (at_once if table.ordered else one_by_one).format(**parts)
    return SQL(
        "INSERT INTO {table} AS t ({names}) SELECT {values} FROM {staged} AS u LEFT JOIN {known} "
        "WHERE t.{time} IS NULL OR {differs} ORDER BY u.{time} "
        "ON CONFLICT ({key}) DO UPDATE SET {late_changes} WHERE {late_differs}"
    ).format(**parts, known=known)


def kept_out(table: TableModel) -> Composed:
    """Write the query for the first staged row that is not stored as it is.

    A column that is not `checked` may have rounded its value.
    """
    checked = [(column, _staged_value(column)) for column in table.values if column.checked]
    return SQL(
        "SELECT u.{time}::text FROM {staged} AS u WHERE NOT EXISTS (SELECT FROM {table} AS t "
        "WHERE {place} AND t.{time} = u.{time} AND NOT coalesce({differs}, false)) ORDER BY u.{time} LIMIT 1"
    ).format(**{**_parts(table), "differs": _differs(checked) if checked else SQL("false")})


def rows(table: TableModel, limit: int) -> Composed:
    """Write the query for the oldest stored rows from `first` on and before `last`: one row of byte strings.

    The times are one byte string, and so is each column: the big-endian 64-bit values of all rows. The server
    needs no longer than for COPY, and the client a hundredth of the time. NULL is NaN.
    """
    time = escaped(table.time)
    numbers = [
        SQL("coalesce(t.{0}::double precision, 'NaN') AS {0}").format(escaped(column.name))
        for column in table.values
    ]
    packed = [SQL("string_agg(float8send({}), '')").format(escaped(column.name)) for column in table.values]
    # Datasets may share a row: it is a row of this dataset if one of its columns has a value.
    filled = SQL(" OR ").join(SQL("t.{} IS NOT NULL").format(escaped(column.name)) for column in table.values)
    # The limit also keeps the aggregates out of parallel workers, which would mix up the order.
    return SQL(
        "SELECT string_agg({send}, ''), {packed} FROM (SELECT t.{time}, {numbers} FROM {table} AS t "
        "WHERE {series} AND t.{time} >= %(first)s AND t.{time} < %(last)s AND ({filled}) "
        "ORDER BY t.{time} LIMIT {limit}) AS sorted"
    ).format(
        send=SQL(table.time_codec.send).format(time),
        packed=_listed(packed),
        time=time,
        numbers=_listed(numbers),
        table=_table(table),
        series=_same_series(table),
        filled=SQL("true") if table.is_own else filled,
        limit=limit,
    )


def remove(table: TableModel, others: Iterable[str]) -> Composed:
    """Write the DELETE of the rows of a series in the spans `starts` and `ends`, if `others` are all NULL."""
    empty = SQL("").join(SQL(" AND t.{} IS NULL").format(escaped(other)) for other in others)
    return SQL("DELETE FROM {} AS t USING {} WHERE {}{}").format(
        _table(table), _spans(table), _in_spans(table), empty
    )


def clear(table: TableModel) -> Composed:
    """Write the UPDATE that makes the value columns NULL in the spans `starts` and `ends`."""
    nothing = _listed(SQL("{} = NULL").format(escaped(column.name)) for column in table.values)
    something = SQL(" OR ").join(
        SQL("t.{} IS NOT NULL").format(escaped(column.name)) for column in table.values
    )
    return SQL("UPDATE {} AS t SET {} FROM {} WHERE {} AND ({})").format(
        _table(table), nothing, _spans(table), _in_spans(table), something
    )


def _spans(table: TableModel) -> Composed:
    kind = spelled(table.time_codec.type)
    return SQL("unnest(%(starts)s::{}[], %(ends)s::{}[]) AS span(start, stop)").format(kind, kind)


def _in_spans(table: TableModel) -> Composed:
    times = SQL("t.{0} >= span.start AND t.{0} < span.stop").format(escaped(table.time))
    return SQL("{} AND {}").format(_same_series(table), times)


def _table(table: TableModel) -> Identifier:
    return escaped(table.schema, table.name)


def _parts(table: TableModel) -> dict[str, Composable]:
    columns = table.values
    # No cast to the type of the key column: a cast cuts a text that is too long, an assignment refuses it.
    values: list[Composable] = [
        _cast(Placeholder(f"key{i}"), key.compared) for i, key in enumerate(table.keys)
    ]
    values += [SQL("u.{}").format(escaped(table.time)), *map(_staged_value, columns)]
    return {
        "table": _table(table),
        "staged": _STAGED,
        "series": _same_series(table),
        "place": _place(table),
        "time": escaped(table.time),
        "key": _listed(map(escaped, table.key)),
        "names": _listed(map(escaped, (*table.key, *(column.name for column in columns)))),
        "values": _listed(values),
        "changes": _changes((column, _staged_value(column)) for column in columns),
        "differs": _differs((column, _staged_value(column)) for column in columns),
        "late_changes": _changes((column, _excluded(column)) for column in columns),
        "late_differs": _differs((column, _excluded(column)) for column in columns),
    }


def _staged_value(column: ValueColumn) -> Composable:
    """Return the staged value in the type of its column."""
    value = SQL("u.{}").format(escaped(column.name))
    if column.type == column.wire:
        return value
    # Through its shortest text: 0.1 becomes the number 0.1, not the 0.1000000000000000055 that a float is.
    exact = SQL("{}::text").format(value) if column.wire == DOUBLE else value
    return _cast(exact, column.type)


def _excluded(column: ValueColumn) -> Composable:
    return SQL("EXCLUDED.{}").format(escaped(column.name))


def _changes(pairs: Iterable[tuple[ValueColumn, Composable]]) -> Composed:
    return _listed(
        SQL("{0} = coalesce({1}, t.{0})").format(escaped(column.name), value) for column, value in pairs
    )


def _differs(pairs: Iterable[tuple[ValueColumn, Composable]]) -> Composed:
    return SQL(" OR ").join(
        SQL("{1} IS NOT NULL AND {1} IS DISTINCT FROM t.{0}").format(escaped(column.name), value)
        for column, value in pairs
    )


def _same_series(table: TableModel) -> Composed:
    return SQL(" AND ").join(
        SQL("t.{} = {}").format(escaped(key.name), _cast(Placeholder(f"key{i}"), key.compared))
        for i, key in enumerate(table.keys)
    )


def _place(table: TableModel) -> Composed:
    """Return the condition for the stored rows of the series between `first` and `last`."""
    times = SQL("t.{} BETWEEN %(first)s AND %(last)s").format(escaped(table.time))
    return SQL("{} AND {}").format(_same_series(table), times)


def _cast(value: Composable, sql_type: str) -> Composed:
    return SQL("{}::{}").format(value, spelled(sql_type.replace("%", "%%")))  # see `escaped`


def _listed(items: Iterable[Composable]) -> Composed:
    return SQL(", ").join(items)
