"""The table of a dataset in a database file: our own table, or one that the user maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import ConfigurationError, RowsRefused, unknown
from marketfetch.sinks.sql.coverage_tables import PREFIX
from marketfetch.sinks.sql.number_limits import NumberLimits
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span

__all__ = [
    "LabelledRows",
    "SqlTable",
    "mapped_table",
    "own_table",
    "quoted",
    "relation",
    "schema_and_table",
    "stand_ins",
]


def quoted(name: str) -> str:
    """Write the name of a column or view so that SQL takes it as it is.

    >>> quoted("open interest")
    '"open interest"'
    """
    return '"' + name.replace('"', '""') + '"'


def relation(name: str) -> str:
    """Write the name of a table, which may have a schema, so that SQL takes it as it is.

    >>> relation("main.my candles")
    '"main"."my candles"'
    """
    return ".".join(map(quoted, name.split(".")))


def schema_and_table(name: str) -> tuple[str, str]:
    """Divide the name of a table from its schema, which is `main` where none is named.

    >>> schema_and_table("candles"), schema_and_table("market.candles")
    (('main', 'candles'), ('market', 'candles'))
    """
    schema, _, table = name.rpartition(".")
    return schema or "main", table


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
class SqlTable:
    """A table as one dataset uses it.

    The key is `labels`, which are the same in all rows of a series, and `time`. The dataset fills `columns`;
    `value_indexes` are the positions of their values in `Columns`. `types` has the SQL type of each column of
    the table.
    """

    name: str
    time: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    value_indexes: tuple[int, ...]
    types: Mapping[str, str]
    mapping: TableMapping | None = None
    typed: bool = False
    """Whether the type of a column is binding, as in DuckDB; in SQLite it is not."""

    @property
    def relation(self) -> str:
        """The name as SQL, with its schema if it has one."""
        return relation(self.name)

    @property
    def key(self) -> tuple[str, ...]:
        """Labels and time."""
        return *self.labels, self.time

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

    def values(self, series: Series, series_id: int | None) -> tuple[int | str | None, ...]:
        """Return the labels of a series."""
        if self.mapping is None:
            return (series_id,)
        names = self.mapping.key_values(series)
        for column, name in names.items():
            if not isinstance(name, str):
                raise RowsRefused(
                    f"{series}: {self.name}.{column} holds names, and rename_symbol= returns {name!r}; "
                    "have it return text"
                )
        return tuple(map(str, names.values()))

    def to_db_rows(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Turn UTC milliseconds into the values of an integer time column."""
        return times if self.mapping is None else self.mapping.stored_times(times)

    def bounds(self, span: Span) -> tuple[int, int]:
        """Turn the ends of a span into values of an integer time column."""
        step = 1 if self.mapping is None or self.mapping.time_unit == "ms" else 1000
        return -(-span.start // step), -(-span.end // step)

    def check(self, series: Series, rows: Columns) -> None:
        """Raise RowsRefused, with the statement to type, for a value that a column cannot hold exactly."""
        if not self.typed:
            return
        may_round = self.mapping is not None and self.mapping.rounding == "allow"
        for name, line in zip(self.columns, self.value_indexes, strict=True):
            changed = NumberLimits.of(self.types[name]).first_changed(rows.values[line])
            if changed is None or (may_round and not np.isnan(changed[1])):
                continue
            value, left = changed
            becomes = f"{value!r} does not fit" if np.isnan(left) else f"{value!r} would become {left!r}"
            raise RowsRefused(
                f"{series}: {self.name}.{name} is {self.types[name]}, and {becomes}; "
                f"ALTER TABLE {self.relation} ALTER COLUMN {quoted(name)} TYPE DOUBLE, "
                "or have the column round it with TableMapping(rounding='allow')"
            )

    def from_db_rows(self, dataset: Dataset, rows: NDArray[np.float64]) -> Columns:
        """Make Columns of rows that were read, of shape (rows, 1 + columns): time, then `columns`."""
        times = rows[:, 0].astype(np.int64)
        values = np.full((len(dataset.columns), len(rows)), np.nan)
        values[list(self.value_indexes)] = rows[:, 1:].T
        return Columns(times if self.mapping is None else self.mapping.times(times), values)


def own_table(dataset: Dataset, time_type: str, *, typed: bool = False) -> SqlTable:
    """Describe our own table of a dataset: `marketfetch_<dataset>(series_id, open_time, <columns>)`."""
    types = {column.name: "BIGINT" if column.integer else "DOUBLE" for column in dataset.columns}
    return SqlTable(
        name=PREFIX + dataset.name,
        time="open_time",
        labels=("series_id",),
        columns=dataset.names,
        value_indexes=tuple(range(len(dataset.columns))),
        types={"series_id": "INTEGER", "open_time": time_type, **types},
        typed=typed,
    )


def mapped_table(
    mapping: TableMapping, dataset: Dataset, types: Mapping[str, str], *, typed: bool = False
) -> SqlTable:
    """Describe a table of the user's, whose columns have the given types.

    Raises ConfigurationError for a table that does not exist, lacks a mapped column, or has a column that
    cannot hold the values of its dataset.
    """
    if not types:
        key = ", ".join(map(quoted, mapping.key))
        raise ConfigurationError(
            f"table: there is no {mapping.table} in this file; create it, with PRIMARY KEY ({key})"
        )
    columns = mapping.of(dataset)
    for name in (*mapping.key, *columns.values()):
        if name not in types:
            raise unknown(f"column of {mapping.table}", name, types)
    for column, name in columns.items():
        whole = dataset.columns[dataset.index(column)].integer
        if not _holds(types[name], whole=whole):
            raise ConfigurationError(
                f"{mapping.table}.{name} is {types[name]} and cannot hold {column}; "
                f"make it {'BIGINT' if whole else 'DOUBLE'}"
            )
        if typed and NumberLimits.of(types[name]).single and mapping.rounding == "refuse":
            raise ConfigurationError(
                f"{mapping.table}.{name} is {types[name]}, which keeps about 7 digits of {column}; "
                f"ALTER TABLE {relation(mapping.table)} ALTER COLUMN {quoted(name)} TYPE DOUBLE, "
                "or pass rounding='allow'"
            )
    return SqlTable(
        name=mapping.table,
        time=mapping.time,
        labels=tuple(
            name for name in (mapping.symbol, mapping.exchange, mapping.interval) if name is not None
        ),
        columns=tuple(columns.values()),
        value_indexes=tuple(map(dataset.index, columns)),
        types=types,
        mapping=mapping,
        typed=typed,
    )


def stand_ins(mapping: TableMapping, column: str, names: Iterable[str]) -> str:
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
