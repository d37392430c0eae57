"""What the stores in a database file share: names in SQL, tables, and the checks of a table of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import ConfigurationError, unknown
from marketfetch.sinks.mapping import TableMapping
from marketfetch.values.datasets import Column, Dataset
from marketfetch.values.series import Series
from marketfetch.values.spans import Span

__all__ = [
    "Attribute",
    "Clock",
    "Field",
    "Found",
    "Kind",
    "Labels",
    "Table",
    "label_values",
    "mapped_table",
    "own_table",
    "quoted",
]

Kind = Literal["whole", "fraction", "text", "other"]
"""What a column can hold: whole numbers, all numbers, text, or nothing of ours."""

Labels = tuple[int | str, ...]
"""Values of key columns, as parameters of a statement."""

_FARTHEST = 9_000_000_000_000_000
"""Milliseconds that still fit a 64-bit count of microseconds."""


def quoted(*parts: str) -> str:
    """Write an identifier, with the schema before it if there is one, so that any name is safe in SQL.

    >>> print(quoted("main", 'a "b"'))
    "main"."a ""b\""
    """
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


@attrs.frozen
class Clock:
    """How a column holds times: SQL around a whole number of the mapping's `time_unit`, or of milliseconds.

    >>> Clock("make_timestamp({} * 1000)", "epoch_ms({})").write.format("?")
    'make_timestamp(? * 1000)'
    """

    write: str = "{}"
    """SQL that makes the column's value of a number."""
    read: str = "{}"
    """SQL that makes a number of the column's value."""
    mapping: TableMapping | None = None
    """Says the unit of an integer column; milliseconds without."""

    def encode(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Turn UTC milliseconds into numbers; raises SinkError for a time between two whole units."""
        return times if self.mapping is None else self.mapping.stored_times(times)

    def decode(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Turn numbers into UTC milliseconds."""
        return numbers if self.mapping is None else self.mapping.times(numbers)

    def bounds(self, span: Span) -> tuple[int, int]:
        """Return the half-open range of numbers that a span stands for."""
        unit = 1 if self.mapping is None or self.mapping.time_unit == "ms" else 1000
        first, last = (max(-_FARTHEST, min(ms, _FARTHEST)) for ms in (span.start, span.end))
        return -(-first // unit), -(-last // unit)


@attrs.frozen
class Field:
    """A column of the table for one column of a dataset: its SQL type, and its line in `Columns.values`."""

    name: str
    type: str
    line: int


@attrs.frozen
class Table:
    """Where the rows of one dataset lie; `relation` is the name as SQL, `title` the name for people.

    `labels` are the key columns that are the same in all rows of a series.
    """

    relation: str
    title: str
    time: str
    clock: Clock
    labels: tuple[str, ...]
    fields: tuple[Field, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that tell rows apart."""
        return (*self.labels, self.time)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are written, labels first, then the time."""
        return (*self.key, *(field.name for field in self.fields))

    @property
    def place(self) -> str:
        """A condition on rows `r`: those of a series inside a span.

        Its parameters are the values of the labels and the clock's bounds.
        """
        time = f"r.{quoted(self.time)}"
        first, last = (f"{time} {sign} {self.clock.write.format('?')}" for sign in (">=", "<"))
        return " AND ".join((*(f"r.{quoted(label)} = ?" for label in self.labels), first, last))

    @property
    def query(self) -> str:
        """Select time `t` and fields `v0`, `v1`, ... of the rows at a `place`, sorted by time.

        Rows without any of the fields are left out: another dataset shares them.
        """
        time = self.clock.read.format(f"r.{quoted(self.time)}")
        values = (
            f"CAST(r.{quoted(field.name)} AS DOUBLE) AS v{place}" for place, field in enumerate(self.fields)
        )
        some = " OR ".join(f"r.{quoted(field.name)} IS NOT NULL" for field in self.fields)
        return (
            f"SELECT {', '.join((f'{time} AS t', *values))} FROM {self.relation} AS r "
            f"WHERE {self.place} AND ({some}) ORDER BY t"
        )


@attrs.frozen
class Attribute:
    """A column that exists: its type as the database spells it, and what an INSERT must know."""

    type: str
    kind: Kind
    required: bool
    """Whether an INSERT must give it a value: NOT NULL without a default."""
    generated: bool = False
    """Whether the database computes it, so that nobody can write it."""


@attrs.frozen
class Found:
    """A table or view that exists; `definition` is its SQL."""

    view: bool
    definition: str
    columns: Mapping[str, Attribute]
    keys: tuple[frozenset[str], ...] = ()
    """The sets of columns that are declared to be unique."""


def own_table(name: tuple[str, ...], dataset: Dataset, clock: Clock, *, whole: str, fraction: str) -> Table:
    """Describe a table `(series_id, open_time, <columns>)` of our own, given the SQL types of its columns."""
    fields = (
        Field(column.name, whole if column.integer else fraction, line)
        for line, column in enumerate(dataset.columns)
    )
    return Table(quoted(*name), ".".join(name), "open_time", clock, ("series_id",), tuple(fields))


def mapped_table(
    relation: str, found: Found, mapping: TableMapping, dataset: Dataset, clock: Clock | None
) -> Table:
    """Describe the user's table for a dataset; `clock` is None where its time column cannot hold times.

    Raises ConfigurationError with the remedy where the table is not fit for the dataset.
    """
    title, columns = mapping.table, mapping.of(dataset)
    if found.view:
        raise ConfigurationError(f"table: {title} is not a table; map the table behind it")
    for name in (*mapping.key, *columns.values()):
        if name not in found.columns:
            raise unknown(f"column of {title}", name, found.columns)
    if clock is None:
        raise ConfigurationError(
            f"{title}.{mapping.time} is {found.columns[mapping.time].type or 'untyped'}, which cannot hold "
            "UTC times safely; make it bigint, for milliseconds"
        )
    labels = tuple(name for name in mapping.key if name != mapping.time)
    for name in labels:
        if found.columns[name].kind != "text":
            raise ConfigurationError(
                f"{title}.{name} is {found.columns[name].type} and cannot hold names; make it text"
            )
    for column, name in columns.items():
        _check_type(title, name, found.columns[name], dataset.columns[dataset.index(column)])
    for name, attribute in found.columns.items():
        if attribute.required and name not in {*mapping.key, *columns.values()}:
            raise ConfigurationError(
                f"{title}.{name} must not be NULL, but rows of {dataset.name} have nothing for it; "
                "give it a default, or map it"
            )
    fields = tuple(
        Field(name, found.columns[name].type, dataset.index(column)) for column, name in columns.items()
    )
    return Table(relation, title, mapping.time, clock, labels, fields)


def label_values(mapping: TableMapping | None, series: Series, series_id: int) -> Labels:
    """Return the values of `Table.labels` for a series."""
    return (series_id,) if mapping is None else tuple(mapping.labels(series).values())


def _check_type(title: str, name: str, attribute: Attribute, column: Column) -> None:
    if attribute.generated:
        raise ConfigurationError(f"{title}.{name} is computed by the database; map another column")
    fit = {"whole", "fraction"} if column.integer else {"fraction"}
    if attribute.kind not in fit:
        remedy = "make it bigint" if column.integer else "make it double precision"
        raise ConfigurationError(
            f"{title}.{name} is {attribute.type} and cannot hold {column.name}; {remedy}"
        )
