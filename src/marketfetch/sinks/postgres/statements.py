"""The SQL of writing and reading rows, as text. Pure: no connection.

Parameters are named: `label0`, `label1`, ... are the values of `Table.labels`; `first` and `last` bound the
times. In every statement `t` is the table and `u` the staged rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg.sql import SQL, Composable, Composed, Identifier, Placeholder

from marketfetch.sinks.postgres.tables import DOUBLE, TIMESTAMPTZ, Field, Table

__all__ = [
    "copy_in",
    "insert",
    "merge",
    "newest",
    "relation",
    "rows",
    "spelled",
    "stage",
    "staging",
    "update",
]

_STAGED = Identifier("pg_temp", "marketfetch_staged")


def spelled(sql_type: str) -> SQL:
    """Return a type as SQL; only for text that the server's format_type() wrote, or that we did."""
    text: Any = sql_type  # no literal, hence the promise above
    return SQL(text)


def relation(table: Table) -> Identifier:
    """Return the quoted, schema-qualified name of a table."""
    return Identifier(table.schema, table.name)


def copy_in(target: Composable, names: Iterable[str]) -> Composed:
    """Write the statement that takes a binary COPY stream with the named columns."""
    return SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(target, _listed(map(Identifier, names)))


def newest(table: Table) -> Composed:
    """Write the query for the newest stored time between `first` and `last`, in UTC milliseconds or NULL."""
    return SQL("SELECT (extract(epoch FROM max(t.{})) * 1000)::bigint FROM {} AS t WHERE {}").format(
        Identifier(table.time), relation(table), _place(table)
    )


def staging(table: Table) -> Composed:
    """Write the statement that makes the table of staged rows, which is gone when the transaction ends."""
    columns = [(table.time, table.clock.type), *((field.name, field.wire) for field in table.fields)]
    listed = _listed(SQL("{} {}").format(Identifier(name), spelled(kind)) for name, kind in columns)
    return SQL("CREATE TEMP TABLE {} ({}) ON COMMIT DROP").format(_STAGED, listed)


def stage(names: Iterable[str]) -> Composed:
    """Write the statement that takes staged rows as a binary COPY stream."""
    return copy_in(_STAGED, names)


def merge(table: Table) -> Composed:
    """Write the MERGE of staged rows into a table that only we write, under the lock of the series.

    It reads the stored rows once, but fails if somebody else inserts one of them meanwhile.
    """
    return SQL(
        "MERGE INTO {table} AS t USING {staged} AS u ON {place} AND t.{time} = u.{time} "
        "WHEN MATCHED AND ({differs}) THEN UPDATE SET {changes} "
        "WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})"
    ).format(**_parts(table))


def update(table: Table) -> Composed:
    """Write the UPDATE of stored rows that a staged row adds something to; others keep their version."""
    return SQL(
        "UPDATE {table} AS t SET {changes} FROM {staged} AS u "
        "WHERE {place} AND t.{time} = u.{time} AND ({differs})"
    ).format(**_parts(table))


def insert(table: Table) -> Composed:
    """Write the INSERT of staged rows that are not stored; one that somebody inserts meanwhile is updated.

    In the order of time: who else inserts in this order can wait for us, but not cross us.
    """
    return SQL(
        "INSERT INTO {table} AS t ({names}) SELECT {values} FROM {staged} AS u "
        "WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {place} AND t.{time} = u.{time}) ORDER BY u.{time} "
        "ON CONFLICT ({key}) DO UPDATE SET {late_changes} WHERE {late_differs}"
    ).format(**_parts(table))


def rows(table: Table, limit: int) -> Composed:
    """Write the query for the oldest stored rows from `first` on and before `last`: one row of byte strings.

    There is one for the times and one for each field, the packed big-endian 64-bit values of all rows. It
    takes the server no longer than COPY, and the client a hundredth of the time. NULL is NaN.
    """
    time = Identifier(table.time)
    fields = [
        SQL("coalesce(t.{0}::double precision, 'NaN') AS {0}").format(Identifier(field.name))
        for field in table.fields
    ]
    packed = [SQL("string_agg(float8send({}), '')").format(Identifier(field.name)) for field in table.fields]
    # In a row that datasets share, this one has a part only where one of its fields has a value.
    part = SQL(" OR ").join(SQL("t.{} IS NOT NULL").format(Identifier(field.name)) for field in table.fields)
    # The limit also keeps the aggregates out of parallel workers, which would mix up the order.
    return SQL(
        "SELECT string_agg({send}({time}), ''), {packed} FROM (SELECT t.{time}, {fields} FROM {table} AS t "
        "WHERE {labels} AND t.{time} >= %(first)s AND t.{time} < %(last)s AND ({part}) "
        "ORDER BY t.{time} LIMIT {limit}) AS sorted"
    ).format(
        send=SQL("timestamptz_send") if table.clock.type == TIMESTAMPTZ else SQL("int8send"),
        packed=_listed(packed),
        time=time,
        fields=_listed(fields),
        table=relation(table),
        labels=_labels(table),
        part=SQL("true") if table.own else part,
        limit=limit,
    )


def _parts(table: Table) -> dict[str, Composable]:
    fields = table.fields
    values: list[Composable] = [
        _cast(Placeholder(f"label{i}"), label.type) for i, label in enumerate(table.labels)
    ]
    values += [SQL("u.{}").format(Identifier(table.time)), *map(_staged_value, fields)]
    return {
        "table": relation(table),
        "staged": _STAGED,
        "place": _place(table),
        "time": Identifier(table.time),
        "key": _listed(map(Identifier, table.key)),
        "names": _listed(map(Identifier, (*table.key, *(field.name for field in fields)))),
        "values": _listed(values),
        "changes": _changes((field, _staged_value(field)) for field in fields),
        "differs": _differs((field, _staged_value(field)) for field in fields),
        "late_changes": _changes((field, _excluded(field)) for field in fields),
        "late_differs": _differs((field, _excluded(field)) for field in fields),
    }


def _staged_value(field: Field) -> Composable:
    """Return the staged value in the type of the field."""
    value = SQL("u.{}").format(Identifier(field.name))
    if field.type == field.wire:
        return value
    # Through its shortest text: 0.1 becomes the number 0.1, not the 0.1000000000000000055 that a float is.
    exact = SQL("{}::text").format(value) if field.wire == DOUBLE else value
    return _cast(exact, field.type)


def _excluded(field: Field) -> Composable:
    return SQL("EXCLUDED.{}").format(Identifier(field.name))


def _changes(pairs: Iterable[tuple[Field, Composable]]) -> Composed:
    return _listed(
        SQL("{0} = coalesce({1}, t.{0})").format(Identifier(field.name), value) for field, value in pairs
    )


def _differs(pairs: Iterable[tuple[Field, Composable]]) -> Composed:
    return SQL(" OR ").join(
        SQL("{1} IS NOT NULL AND {1} IS DISTINCT FROM t.{0}").format(Identifier(field.name), value)
        for field, value in pairs
    )


def _labels(table: Table) -> Composed:
    return SQL(" AND ").join(
        SQL("t.{} = {}").format(Identifier(label.name), _cast(Placeholder(f"label{i}"), label.type))
        for i, label in enumerate(table.labels)
    )


def _place(table: Table) -> Composed:
    """Return the condition for the stored rows of the series between `first` and `last`."""
    times = SQL("t.{} BETWEEN %(first)s AND %(last)s").format(Identifier(table.time))
    return SQL("{} AND {}").format(_labels(table), times)


def _cast(value: Composable, sql_type: str) -> Composed:
    return SQL("{}::{}").format(value, spelled(sql_type))


def _listed(items: Iterable[Composable]) -> Composed:
    return SQL(", ").join(items)
