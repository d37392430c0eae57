"""The description of a table that writer and reader work with. Pure: no connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import attrs
import numpy as np
from numpy.typing import NDArray
from psycopg.sql import Literal

from marketfetch.errors import RowsRefused, SinkError
from marketfetch.sinks.postgres.copy_binary import WireColumn
from marketfetch.sinks.postgres.schema.time_codecs import BIGINT, TimeCodec
from marketfetch.sinks.sql.number_limits import NumberLimits
from marketfetch.sinks.sql.tables import SqlTable, ValueColumn
from marketfetch.sinks.table_mapping import Name
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series

__all__ = [
    "DOUBLE",
    "WHOLE",
    "FilledColumn",
    "KeyColumn",
    "PostgresTable",
    "wire_type",
]

# As format_type() writes them.
DOUBLE = "double precision"
WHOLE = (BIGINT, "integer", "smallint")


@attrs.frozen
class KeyColumn:
    """A key column that has the same value in all rows of a series.

    `type` is its SQL type, and `compared` the type without a length, to which values are cast for comparing:
    a cast to varchar(10) would cut BTCUSDT_260925 and BTCUSDT_260926 to one symbol. `length` is the largest
    number of characters; `allowed` are the values of an enum.
    """

    name: str
    type: str
    compared: str = attrs.field(default=attrs.Factory(lambda self: self.type, takes_self=True))
    length: int | None = None
    allowed: tuple[str, ...] = ()

    def misfit(self, value: Name) -> str | None:
        """Return why the column cannot hold a value unchanged, and the type that could; None if it can.

        >>> KeyColumn("symbol", "character varying(10)", "character varying", 10).misfit("BTCUSDT_260925")
        'holds at most 10 characters; make it text'
        """
        kind: type[Name]
        kind, kinds = str, "names"
        if self.compared in WHOLE:
            kind, kinds = int, "numbers"
        elif self.compared == "uuid":
            kind, kinds = UUID, "UUIDs"
        if not isinstance(value, kind) or isinstance(value, bool):
            return f"holds {kinds}; have rename_symbol= return one, or map another column"
        if isinstance(value, int):
            return (
                None if abs(value) < NumberLimits.of(self.compared).limit else "is too small; make it bigint"
            )
        if not isinstance(value, str):
            return None
        if self.allowed and value not in self.allowed:
            return f"is an enum without it; ALTER TYPE {self.type} ADD VALUE {Literal(value).as_string()}"
        if self.compared == "name" and len(value.encode()) > 63:
            return "holds at most 63 bytes; make it text"
        if self.length is not None and len(value) > self.length:
            return f"holds at most {self.length} characters; make it text"
        if self.compared == "bpchar" and value.endswith(" "):
            return "does not keep blanks at the end; make it text"
        return None


def wire_type(column: ValueColumn) -> str:
    """Return the SQL type in which the values of a column are sent, which always has 64 bits."""
    return BIGINT if column.base in WHOLE else DOUBLE


@attrs.frozen
class FilledColumn:
    """A column that some rows have a value for, and whether it is NULL in other rows."""

    column: ValueColumn
    sparse: bool


@attrs.frozen(kw_only=True)
class PostgresTable(SqlTable):
    """A table of PostgreSQL.

    Our own tables have columns of the types in which values are sent. `keys` says how the values of `labels`
    are compared. An `ordered` table has an index that leads from a series to its times. A `guarded` table has
    rules or triggers that may change a row or keep it out.
    """

    time_codec: TimeCodec
    keys: tuple[KeyColumn, ...]
    ordered: bool
    guarded: bool = False

    def parameters(self, key_values: Sequence[Name], **others: object) -> dict[str, object]:
        """Return the parameters of statements about the rows of a series."""
        return {**{f"key{i}": value for i, value in enumerate(key_values)}, **others}

    def check(self, found: Mapping[str, str]) -> None:
        """Raise SinkError if a column has another type than `types` says."""
        for name, kind in self.types.items():
            if found.get(name, kind) != kind:
                raise SinkError(
                    f"{self.title}.{name} is {found[name]} instead of {kind}; "
                    "choose another schema with schema=, or map the table with table="
                )

    def filled(self, columns: Columns) -> tuple[FilledColumn, ...]:
        """Return the columns that have a value in any of the rows."""
        found = []
        for column in self.value_columns:
            null = np.isnan(columns.values[column.line])
            sparse = bool(null.any())
            if not (sparse and null.all()):
                found.append(FilledColumn(column, sparse))
        return tuple(found)

    def names(self, filled: Sequence[FilledColumn]) -> list[str]:
        """Return the names of the columns that `wire_columns` writes."""
        return [self.time, *(each.column.name for each in filled)]

    def wire_columns(self, columns: Columns, filled: Sequence[FilledColumn]) -> list[WireColumn]:
        """Return times and values for COPY; raises RowsRefused for a value that a column cannot hold."""
        wire = [WireColumn(self.time_codec.encode(columns.times))]
        for each in filled:
            values = columns.values[each.column.line]
            self._check_values(each.column, values)
            null = np.isnan(values) if each.sparse else None
            if each.column.base in WHOLE:
                values = (values if null is None else np.where(null, 0, values)).astype(np.int64)
            wire.append(WireColumn(values, null))
        return wire

    def check_key_values(self, series: Series, key_values: Sequence[Name]) -> None:
        """Raise RowsRefused if a key column cannot hold the value of a series unchanged."""
        for key, value in zip(self.keys, key_values, strict=True):
            if (misfit := key.misfit(value)) is not None:
                raise RowsRefused(
                    f"{series}: {self.title}.{key.name} is {key.type} and cannot hold {value!r}: it {misfit}"
                )

    def _check_values(self, column: ValueColumn, values: NDArray[np.float64]) -> None:
        changed = column.numbers.first_changed(values)
        # For an integer column, numpy converts the value before it is sent: the server cannot refuse it.
        if changed is None or (self.may_round and column.base not in WHOLE and not np.isnan(changed[1])):
            return
        value, left = changed
        becomes = f"and {value!r} does not fit" if np.isnan(left) else f"which makes {left!r} of {value!r}"
        remedy = "the exchange's value is not a whole number of 64 bits"
        if not self.is_own:
            remedy = self.widening_remedy(column, DOUBLE if column.numbers.single else "numeric")
        raise RowsRefused(f"{self.title}.{column.name} is {column.type}, {becomes}; {remedy}")
