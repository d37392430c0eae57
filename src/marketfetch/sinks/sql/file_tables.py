"""The table of a dataset in a database file of DuckDB or SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import ConfigurationError, RowsRefused
from marketfetch.sinks.sql.identifiers import quoted, relation
from marketfetch.sinks.sql.tables import SqlTable, mapped_columns
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span

__all__ = ["FileTable", "LabelledRows", "RowQuery", "first_equal_names", "mapped_table"]


@attrs.frozen(eq=False)
class LabelledRows:
    """Sorted rows of one series, at least one, and the labels that they have in a table."""

    labels: tuple[int | str | None, ...]
    columns: Columns

    def overlaps(self, other: LabelledRows) -> bool:
        """Tell whether both may have a row with the same key."""
        mine, others = self.columns.times, other.columns.times
        return self.labels == other.labels and bool(mine[0] <= others[-1] and others[0] <= mine[-1])


@attrs.frozen
class RowQuery:
    """Which rows of a table to read: those of a series inside a span; with `newest_limit` only the newest."""

    series: Series
    series_id: int
    span: Span
    newest_limit: int | None = None


@attrs.frozen(kw_only=True)
class FileTable(SqlTable):
    """A table in a database file; parameters of statements are question marks."""

    typed: bool = False
    """Whether the type of a column is binding, as in DuckDB; in SQLite it is not."""

    def inside(self, moment: str) -> str:
        """Write the condition for the rows of a series in a span; `moment` stands for either end."""
        where = [f"{quoted(name)} = ?" for name in self.labels]
        return " AND ".join([*where, f"{quoted(self.time)} >= {moment}", f"{quoted(self.time)} < {moment}"])

    def with_values(self, moment: str) -> str:
        """Write `inside` without the rows of a mapped table that have no value of this dataset."""
        if self.mapping is None:
            return self.inside(moment)
        # With NULL as its second argument, coalesce also takes a single column.
        values = ", ".join([*map(quoted, self.columns), "NULL"])
        return f"{self.inside(moment)} AND coalesce({values}) IS NOT NULL"

    def values(self, series: Series, series_id: int) -> tuple[int | str, ...]:
        """Return the labels of a series; raises RowsRefused for a name that is not text."""
        if self.mapping is None:
            return (series_id,)
        names = self.label_values(series, series_id)
        for column, name in zip(self.labels, names, strict=True):
            if not isinstance(name, str):
                raise RowsRefused(
                    f"{series}: {self.title}.{column} holds names, and rename_symbol= returns {name!r}; "
                    "have it return text"
                )
        return tuple(map(str, names))

    def to_db_rows(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Turn UTC milliseconds into the values of an integer time column."""
        return times if self.mapping is None else self.mapping.stored_times(times)

    def bounds(self, span: Span) -> tuple[int, int]:
        """Turn the ends of a span into values of an integer time column."""
        if self.mapping is None:
            return span.start, span.end
        return self.mapping.bound(span.start), self.mapping.bound(span.end)

    def check(self, series: Series, rows: Columns) -> None:
        """Raise RowsRefused, with the statement to type, for a value that a column cannot hold exactly."""
        for column in self.value_columns if self.typed else ():
            changed = column.numbers.first_changed(rows.values[column.line])
            if changed is None or (self.may_round and not np.isnan(changed[1])):
                continue
            value, left = changed
            becomes = f"{value!r} does not fit" if np.isnan(left) else f"{value!r} would become {left!r}"
            raise RowsRefused(
                f"{series}: {self.title}.{column.name} is {column.type}, and {becomes}; "
                f"{self.widening_remedy(column, 'DOUBLE')}"
            )

    def from_db_rows(self, dataset: Dataset, rows: NDArray[np.float64]) -> Columns:
        """Make Columns of rows that were read, of shape (rows, 1 + columns): time, then `columns`."""
        times = rows[:, 0].astype(np.int64)
        return self.to_columns(
            dataset, times if self.mapping is None else self.mapping.times(times), rows[:, 1:].T
        )


def mapped_table(
    mapping: TableMapping, dataset: Dataset, types: Mapping[str, str], *, typed: bool = False
) -> FileTable:
    """Describe a table of the user's, whose columns have the given types.

    Raises ConfigurationError for a table that does not exist, lacks a mapped column, or has a column that
    cannot hold the values of its dataset.
    """
    if not types:
        key = ", ".join(map(quoted, mapping.key))
        raise ConfigurationError(
            f"table: there is no {mapping.table} in this file; create it, with PRIMARY KEY ({key})"
        )
    for column, name in mapped_columns(mapping, dataset, mapping.table, types).items():
        whole = dataset.columns[dataset.index(column)].integer
        if not _holds(types[name], whole=whole):
            raise ConfigurationError(
                f"{mapping.table}.{name} is {types[name]} and cannot hold {column}; "
                f"make it {'BIGINT' if whole else 'DOUBLE'}"
            )
    schema, _, name = mapping.table.rpartition(".")
    table = FileTable.mapped(mapping, dataset, types, schema=schema, name=name, typed=typed)
    if typed:
        table.check_digits(dataset, "DOUBLE")
    return table


def first_equal_names(mapping: TableMapping, column: str, names: Iterable[str]) -> str:
    """Write the query that returns, for each name, the first of all names that a key column takes for equal.

    Example: in a column with `COLLATE NOCASE`, BTCUSDT and btcusdt are equal, and both get BTCUSDT. Only the
    collation of the column is used; no row is read.
    """
    texts = ("('{}')".format(name.replace("'", "''")) for name in names if "\0" not in name)
    return (
        "SELECT name, min(name) OVER (PARTITION BY name) FROM "
        f"(SELECT {quoted(column)} AS name FROM {relation(mapping.table)} WHERE false "
        f"UNION ALL VALUES {', '.join(texts) or '(NULL)'}) AS given"
    )


def _holds(kind: str, *, whole: bool) -> bool:
    """Tell whether a column of a type can hold numbers; in SQLite, an untyped column can."""
    name = kind.upper()
    fractions = ("DEC", "DOUB", "FLOA", "NUM", "REAL")
    return not name or any(part in name for part in fractions) or (whole and "INT" in name)
