"""A table of the user's: checked against the catalogue before anything is fetched."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from psycopg.sql import Identifier

from marketfetch.errors import ConfigurationError, unknown
from marketfetch.sinks.mapping import TableMapping
from marketfetch.sinks.postgres.catalogue import Found, find, known_tables
from marketfetch.sinks.postgres.session import Connection
from marketfetch.sinks.postgres.tables import BIGINT, TIMESTAMPTZ, Field, Integers, Label, Table, Timestamps
from marketfetch.values.datasets import Column, Dataset
from marketfetch.values.series import Series

__all__ = ["MappedTable"]

_WHOLE = (BIGINT, "integer", "smallint")
_FRACTIONAL = ("double precision", "real", "numeric")


@attrs.frozen
class MappedTable:
    """The table of a TableMapping, whose rows several datasets and other programs may write as well."""

    mapping: TableMapping

    def target(self, connection: Connection) -> str:
        """See Layout; raises ConfigurationError if the table does not exist."""
        return self._found(connection).title

    def labels(self, series: Series, series_id: int) -> tuple[str, ...]:
        """See Layout."""
        return tuple(self.mapping.labels(series).values())

    def lock(self, series: Series) -> str:
        """See Layout: datasets share rows, so all of a symbol's writers take turns."""
        return " ".join(self.mapping.labels(series).values())

    def prepare(self, connection: Connection, datasets: Sequence[Dataset]) -> None:
        """Check that the table is fit for the datasets; raises ConfigurationError with the remedy."""
        for dataset in datasets:
            self.table(connection, dataset)

    def table(self, connection: Connection, dataset: Dataset) -> Table:
        """Describe the table for a dataset; raises ConfigurationError where it is not fit for it."""
        mapping = self.mapping
        columns = mapping.of(dataset)
        found = self._found(connection)
        for name in (*mapping.key, *columns.values()):
            if name not in found.columns:
                raise unknown(f"column of {found.title}", name, found.columns)
        _check_key(found, mapping)
        for name in mapping.key:
            if name != mapping.time and not found.columns[name].text:
                raise ConfigurationError(
                    f"{found.title}.{name} is {found.columns[name].type} and cannot hold names; make it text"
                )
        for column, name in columns.items():
            _check_type(found, name, dataset.columns[dataset.index(column)])
        _check_others(found, {*mapping.key, *columns.values()}, dataset)
        types = {name: attribute.type for name, attribute in found.columns.items()}
        return Table(
            schema=found.schema,
            name=found.name,
            time=mapping.time,
            clock=_clock(found, mapping),
            labels=tuple(Label(name, types[name]) for name in mapping.key if name != mapping.time),
            fields=tuple(Field(name, types[name], dataset.index(column)) for column, name in columns.items()),
            own=False,
            ordered=any(_leads_to_time(index.columns, mapping) for index in found.indexes),
        )

    def _found(self, connection: Connection) -> Found:
        parts = self.mapping.table.split(".")
        if len(parts) > 2 or not all(parts):
            raise ConfigurationError(
                f"table: {self.mapping.table!r} is not a name; write table or schema.table"
            )
        found = find(connection, Identifier(*parts))
        if found is None:
            schema = parts[0] if len(parts) == 2 else None
            error = unknown("table", self.mapping.table, known_tables(connection, schema))
            key = ", ".join(self.mapping.key)
            raise ConfigurationError(f"{error}; or create it, with the primary key ({key})")
        if found.kind not in {"r", "p"}:
            raise ConfigurationError(f"table: {found.title} is not a table; map the table behind it")
        return found


def _clock(found: Found, mapping: TableMapping) -> Timestamps | Integers:
    kind = found.columns[mapping.time].type
    if kind == TIMESTAMPTZ:
        return Timestamps()
    if kind == BIGINT:
        return Integers(mapping)
    raise ConfigurationError(
        f"{found.title}.{mapping.time} is {kind}, which cannot hold UTC times safely; "
        "make it timestamptz, or bigint for milliseconds"
    )


def _check_key(found: Found, mapping: TableMapping) -> None:
    if not any(index.unique and set(index.columns) == set(mapping.key) for index in found.indexes):
        key = ", ".join(f'"{name}"' for name in mapping.key)
        raise ConfigurationError(
            f"{found.title} has no primary key or unique index on exactly ({key}), by which rows are told "
            f"apart; ALTER TABLE {found.title} ADD PRIMARY KEY ({key}), or map the columns of the one it has"
        )


def _check_type(found: Found, name: str, column: Column) -> None:
    kind = found.columns[name].type
    if found.columns[name].generated:
        raise ConfigurationError(f"{found.title}.{name} is computed by the server; map another column")
    fit = (*_FRACTIONAL, *_WHOLE) if column.integer else _FRACTIONAL
    if kind.partition("(")[0] not in fit:
        remedy = "make it bigint or numeric" if column.integer else "make it numeric or double precision"
        raise ConfigurationError(f"{found.title}.{name} is {kind} and cannot hold {column.name}; {remedy}")


def _check_others(found: Found, written: set[str], dataset: Dataset) -> None:
    """Refuse columns that every row needs and that rows of this dataset would not have."""
    for name, attribute in found.columns.items():
        if attribute.required and name not in written:
            raise ConfigurationError(
                f"{found.title}.{name} must not be NULL, but rows of {dataset.name} have nothing for it; "
                f'ALTER TABLE {found.title} ALTER COLUMN "{name}" DROP NOT NULL, or map it'
            )


def _leads_to_time(columns: tuple[str, ...], mapping: TableMapping) -> bool:
    """Tell whether all rows of a series lie side by side in an index, sorted by time."""
    key = set(mapping.key)
    return set(columns[: len(key)]) == key and columns[len(key) - 1] == mapping.time
