"""A table of the user's, checked against the server's catalogue before anything is fetched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import attrs

from marketfetch.errors import ConfigurationError, RowsRefused, unknown
from marketfetch.sinks.postgres.schema.introspection import ColumnInfo, TableInfo, known_tables, lookup_table
from marketfetch.sinks.postgres.schema.privileges import Access, check_access, check_schema
from marketfetch.sinks.postgres.schema.tables import DOUBLE, WHOLE, KeyColumn, PostgresTable
from marketfetch.sinks.postgres.schema.time_codecs import (
    BIGINT,
    TIMESTAMP,
    TIMESTAMPTZ,
    DateCodec,
    EpochCodec,
    TimeCodec,
    TimestampCodec,
)
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.sql.identifiers import escaped, quoted
from marketfetch.sinks.sql.tables import mapped_columns
from marketfetch.sinks.table_mapping import Name, StripQuote, TableMapping, identity
from marketfetch.values.datasets import Column, Dataset
from marketfetch.values.series import Series

__all__ = ["MappedTable"]

_FRACTIONAL = (DOUBLE, "real", "numeric")
_LENGTH = re.compile(r"(?:character varying|character)\((\d+)\)")
_PRECISION = re.compile(r"(timestamp)(?:\((\d)\))?( with(?:out)? time zone)")


@attrs.frozen
class MappedTable:
    """The table of a TableMapping, in whose rows other datasets and programs may write, too."""

    mapping: TableMapping

    def target(self, connection: Connection) -> str:
        """See Layout; raises ConfigurationError if the table does not exist."""
        return self._table_info(connection).title

    def lock(self, series: Series) -> str:
        """See Layout: datasets share rows, so the lock has the name of the key without the dataset."""
        return " ".join(map(str, self.mapping.key_values(series).values()))

    def prepare(self, connection: Connection, datasets: Sequence[Dataset]) -> None:
        """Check that the table is fit for the datasets; raises ConfigurationError with the remedy."""
        for dataset in datasets:
            table = self.table(connection, dataset)
            inserted = [*table.key, *table.columns]
            check_access(connection, Access(table.schema, table.name, inserted, table.columns))

    def table(self, connection: Connection, dataset: Dataset) -> PostgresTable:
        """Describe the table for a dataset; raises ConfigurationError if it is not fit for the dataset."""
        mapping, found = self.mapping, self._table_info(connection)
        columns = mapped_columns(mapping, dataset, found.title, found.columns)
        _check_key(found, mapping)
        for name in mapping.labels:
            _check_key_column(found, name, mapping)
        for column, name in columns.items():
            _check_type(found, name, dataset.columns[dataset.index(column)])
        _check_others(found, {*mapping.key, *columns.values()}, dataset)
        table = PostgresTable.mapped(
            mapping,
            dataset,
            {name: column.type for name, column in found.columns.items() if not column.generated},
            bases={name: column.base for name, column in found.columns.items()},
            schema=found.schema,
            name=found.name,
            time_codec=_time_codec(found, mapping),
            keys=tuple(_key_column(name, found.columns[name]) for name in mapping.labels),
            guarded=found.guarded,
            ordered=any(_leads_to_time(index.columns, mapping) for index in found.indexes),
        )
        table.check_digits(dataset, DOUBLE)
        return table

    def refuse_collisions(self, connection: Connection, series: Iterable[Series]) -> None:
        """Raise ConfigurationError if two of the series would share rows, as the key columns compare names.

        Example: in a column of citext, or of a collation that ignores case, BTCUSDT and btcusdt are equal.
        """
        found, every = self._table_info(connection), list(series)
        folded: dict[str, dict[Name, Name]] = {}
        for column in self.mapping.labels:
            column_info = found.columns.get(column)
            if column_info is None or column_info.folded is None:
                continue
            names = sorted({name for one in every if (name := self._name(one, column)) is not None})
            alike = connection.execute(
                f"SELECT name, first_value(name) OVER (PARTITION BY name::{escaped(column_info.folded)} "
                'ORDER BY name COLLATE "C") FROM unnest(%s::text[]) AS given(name)'.encode(),
                [names],
            )
            folded[column] = dict(alike.fetchall())
        self.mapping.refuse_collisions(every, folded)

    def _name(self, series: Series, column: str) -> str | None:
        """Return the text in a key column of a series, None if there is no text."""
        try:
            name = self.mapping.key_values(series)[column]
        except RowsRefused:
            return None
        return name if isinstance(name, str) else None

    def _table_info(self, connection: Connection) -> TableInfo:
        parts = self.mapping.table.split(".")
        if len(parts) > 2 or not all(parts):
            raise ConfigurationError(
                f"table: {self.mapping.table!r} is not a name; write table or schema.table"
            )
        if len(parts) == 2:
            check_schema(connection, parts[0])
        found = lookup_table(connection, quoted(*parts))
        if found is None:
            schema = parts[0] if len(parts) == 2 else None
            error = unknown("table", self.mapping.table, known_tables(connection, schema))
            key = ", ".join(self.mapping.key)
            raise ConfigurationError(f"{error}; or create it, with the primary key ({key})")
        if found.kind not in {"r", "p"}:
            raise ConfigurationError(f"table: {found.title} is not a table; map the table behind it")
        return found


def _time_codec(found: TableInfo, mapping: TableMapping) -> TimeCodec:
    kind, column = found.columns[mapping.time].base, f"{found.title}.{mapping.time}"
    if stamps := _PRECISION.fullmatch(kind):
        digits = 6 if stamps[2] is None else int(stamps[2])
        zoned = TIMESTAMPTZ if stamps[3] == " with time zone" else TIMESTAMP
        return TimestampCodec(zoned, step=10 ** max(0, 3 - digits), column=column)
    if kind == "date":
        return DateCodec(column)
    if kind == BIGINT or (kind == "integer" and mapping.time_unit == "s"):
        return EpochCodec(mapping)
    raise ConfigurationError(
        f"{column} is {kind}, which cannot hold UTC times safely; make it timestamptz, or bigint for "
        "milliseconds, or map it with time_unit='s' where it is integer and counts seconds"
    )


def _key_column(name: str, column_info: ColumnInfo) -> KeyColumn:
    length = _LENGTH.fullmatch(column_info.base)
    return KeyColumn(
        name, column_info.type, column_info.plain, int(length[1]) if length else None, column_info.labels
    )


def _check_key_column(found: TableInfo, name: str, mapping: TableMapping) -> None:
    column_info = found.columns[name]
    if column_info.generated:
        raise ConfigurationError(f"{found.title}.{name} is computed by the server; map another column")
    if column_info.text:
        return
    remedy = "make it text"
    if name == mapping.symbol and column_info.plain in {*WHOLE, "uuid"}:
        if mapping.rename_symbol is not identity and not isinstance(mapping.rename_symbol, StripQuote):
            return
        remedy += ", or pass rename_symbol= that returns its number or UUID for a symbol"
    raise ConfigurationError(f"{found.title}.{name} is {column_info.type} and cannot hold names; {remedy}")


def _check_key(found: TableInfo, mapping: TableMapping) -> None:
    if not any(index.unique and set(index.columns) == set(mapping.key) for index in found.indexes):
        key = ", ".join(map(quoted, mapping.key))
        raise ConfigurationError(
            f"{found.title} has no primary key or unique index on exactly ({key}), by which rows are told "
            f"apart; ALTER TABLE {found.quoted} ADD PRIMARY KEY ({key}), or map the columns of the one it has"
        )


def _check_type(found: TableInfo, name: str, column: Column) -> None:
    kind, base = found.columns[name].type, found.columns[name].base
    if found.columns[name].generated:
        raise ConfigurationError(f"{found.title}.{name} is computed by the server; map another column")
    fit = (*_FRACTIONAL, *WHOLE) if column.integer else _FRACTIONAL
    if base.partition("(")[0] not in fit:
        remedy = "make it bigint or numeric" if column.integer else "make it numeric or double precision"
        raise ConfigurationError(f"{found.title}.{name} is {kind} and cannot hold {column.name}; {remedy}")


def _check_others(found: TableInfo, written: set[str], dataset: Dataset) -> None:
    """Refuse a NOT NULL column for which rows of this dataset have no value."""
    for name, column_info in found.columns.items():
        if column_info.required and name not in written:
            raise ConfigurationError(
                f"{found.title}.{name} must not be NULL, but rows of {dataset.name} have nothing for it; "
                f"ALTER TABLE {found.quoted} ALTER COLUMN {quoted(name)} DROP NOT NULL, or map it"
            )


def _leads_to_time(columns: tuple[str, ...], mapping: TableMapping) -> bool:
    """Tell whether an index holds the rows of a series side by side, sorted by time."""
    key = set(mapping.key)
    return set(columns[: len(key)]) == key and columns[len(key) - 1] == mapping.time
