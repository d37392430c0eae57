"""The table of a dataset in an SQL store: our own table, or one that the user maps. Pure: no connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import ConfigurationError, unknown
from marketfetch.sinks.sql.identifiers import quoted
from marketfetch.sinks.sql.number_limits import NumberLimits
from marketfetch.sinks.table_mapping import Name, TableMapping
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series

__all__ = ["OwnTypes", "SqlTable", "ValueColumn", "mapped_columns"]


@attrs.frozen
class ValueColumn:
    """A column of the table for a column of the dataset: its SQL type, and its line in `Columns.values`.

    `base` is the type that a domain is based on, else the type itself.
    """

    name: str
    type: str
    line: int
    base: str = attrs.field(default=attrs.Factory(lambda self: self.type, takes_self=True))
    numbers: NumberLimits = attrs.field(
        default=attrs.Factory(lambda self: NumberLimits.of(self.base), takes_self=True), init=False
    )


@attrs.frozen
class OwnTypes:
    """The SQL types of the columns of our own tables, as a database spells them."""

    time: str
    series_id: str = "INTEGER"
    whole: str = "BIGINT"
    real: str = "DOUBLE"


@attrs.frozen(kw_only=True)
class SqlTable:
    """A table as one dataset uses it.

    The key is `labels`, which are the same in all rows of a series, and `time`. The dataset fills the
    `value_columns`. `types` has the SQL type of each column of the table that can be written. A table without
    a `mapping` is our own: only marketfetch writes this table, which holds one dataset.
    """

    schema: str = ""
    name: str
    time: str
    labels: tuple[str, ...]
    value_columns: tuple[ValueColumn, ...]
    types: Mapping[str, str]
    mapping: TableMapping | None = None

    @classmethod
    def own(cls, dataset: Dataset, name: str, types: OwnTypes, **further: Any) -> Self:
        """Describe our own table of a dataset: `(series_id, open_time, <columns>)`."""
        columns = tuple(
            ValueColumn(column.name, types.whole if column.integer else types.real, line)
            for line, column in enumerate(dataset.columns)
        )
        return cls(
            name=name,
            time="open_time",
            labels=("series_id",),
            value_columns=columns,
            types={
                "series_id": types.series_id,
                "open_time": types.time,
                **{column.name: column.type for column in columns},
            },
            **further,
        )

    @classmethod
    def mapped(
        cls,
        mapping: TableMapping,
        dataset: Dataset,
        types: Mapping[str, str],
        bases: Mapping[str, str] | None = None,
        **further: Any,
    ) -> Self:
        """Describe a table of the user's; see `mapped_columns`. `bases` may have the types behind domains."""
        columns = tuple(
            ValueColumn(name, types[name], dataset.index(column), (bases or types)[name])
            for column, name in mapping.of(dataset).items()
        )
        return cls(
            time=mapping.time,
            labels=mapping.labels,
            value_columns=columns,
            types=types,
            mapping=mapping,
            **further,
        )

    @property
    def is_own(self) -> bool:
        """Whether marketfetch alone writes the table."""
        return self.mapping is None

    @property
    def may_round(self) -> bool:
        """Whether a column may change a value that it cannot hold exactly."""
        return self.mapping is not None and self.mapping.rounding == "allow"

    @property
    def title(self) -> str:
        """The name of the table for messages, with the schema if there is one."""
        return f"{self.schema}.{self.name}" if self.schema else self.name

    @property
    def relation(self) -> str:
        """Return the quoted name of the table for SQL, after its schema if the table has one."""
        return quoted(*filter(None, (self.schema, self.name)))

    @property
    def key(self) -> tuple[str, ...]:
        """Labels and time."""
        return *self.labels, self.time

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that the dataset fills."""
        return tuple(column.name for column in self.value_columns)

    @property
    def value_indexes(self) -> list[int]:
        """The lines of `value_columns` in `Columns.values`."""
        return [column.line for column in self.value_columns]

    @property
    def others(self) -> list[str]:
        """The names of the columns that other datasets or programs may fill."""
        return sorted(self.types.keys() - {*self.key, *self.columns})

    def to_columns(self, dataset: Dataset, times: NDArray[np.int64], values: NDArray[np.float64]) -> Columns:
        """Put the lines of `value_columns` where the dataset has them; all other lines are NaN."""
        lines = np.full((len(dataset.columns), len(times)), np.nan)
        lines[self.value_indexes] = values
        return Columns(times, lines)

    def label_values(self, series: Series, series_id: int) -> tuple[Name, ...]:
        """Return the values of `labels` in the rows of a series."""
        return (series_id,) if self.mapping is None else tuple(self.mapping.key_values(series).values())

    def check_digits(self, dataset: Dataset, real: str) -> None:
        """Raise ConfigurationError for a column that would round most values; `real` is the type to take."""
        for column in () if self.may_round else self.value_columns:
            if column.numbers.single:
                raise ConfigurationError(
                    f"{self.title}.{column.name} is {column.type}, which keeps about 7 digits of "
                    f"{dataset.names[column.line]}; ALTER TABLE {self.relation} ALTER COLUMN "
                    f"{quoted(column.name)} TYPE {real}, or pass rounding='allow'"
                )

    def widening_remedy(self, column: ValueColumn, real: str) -> str:
        """Say what to do about a column that cannot hold a value exactly; `real` is the type to take."""
        return (
            f"ALTER TABLE {self.relation} ALTER COLUMN {quoted(column.name)} TYPE {real}, "
            "or have the column round it with TableMapping(rounding='allow')"
        )


def mapped_columns(
    mapping: TableMapping, dataset: Dataset, title: str, found: Iterable[str]
) -> dict[str, str]:
    """Return the column of the user's table for each mapped column of a dataset.

    Raises ConfigurationError if the table, which has the columns `found`, lacks one or a key column.
    """
    columns, known = mapping.of(dataset), list(found)
    for name in (*mapping.key, *columns.values()):
        if name not in known:
            raise unknown(f"column of {title}", name, known)
    return columns
