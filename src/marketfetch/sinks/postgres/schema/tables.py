"""What a writer and a reader must know about a table, whoever made it: values without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import attrs
import numpy as np
from numpy.typing import NDArray
from psycopg.sql import Literal

from marketfetch.errors import RowsRefused, SinkError
from marketfetch.sinks.postgres.copy_binary import WireColumn
from marketfetch.sinks.postgres.schema.identifiers import quoted
from marketfetch.sinks.postgres.schema.time_codecs import BIGINT, TimeCodec
from marketfetch.sinks.sql.number_limits import NumberLimits
from marketfetch.sinks.table_mapping import Name
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series

__all__ = [
    "DOUBLE",
    "WHOLE",
    "FilledColumn",
    "KeyColumn",
    "TableModel",
    "ValueColumn",
]

# Spelled as format_type() does.
DOUBLE = "double precision"
WHOLE = (BIGINT, "integer", "smallint")


@attrs.frozen
class KeyColumn:
    """A key column that is the same in all rows of a series.

    `type` is its SQL type, and `compared` the one without a length, in which its values are compared.
    `length` is the largest number of characters, or of bytes for the type `name`; `allowed` are the values
    of an enum.

    A cast to `type` would cut a longer value, and two symbols might become one. An assignment refuses it.
    """

    name: str
    type: str
    compared: str = attrs.field(default=attrs.Factory(lambda self: self.type, takes_self=True))
    length: int | None = None
    allowed: tuple[str, ...] = ()

    def misfit(self, value: Name) -> str | None:
        """Say why the column cannot hold a value as it is, with the type that could; None where it can.

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


@attrs.frozen
class ValueColumn:
    """A column of the table for one column of a dataset: its SQL type, and its line in `Columns.values`.

    `base` is what a domain is made of, else the type itself. A field that is `checked` refuses values that
    its type would change; others are rounded by it.
    """

    name: str
    type: str
    line: int
    base: str = attrs.field(default=attrs.Factory(lambda self: self.type, takes_self=True))
    checked: bool = True
    numbers: NumberLimits = attrs.field(
        default=attrs.Factory(lambda self: NumberLimits.of(self.base), takes_self=True), init=False
    )

    @property
    def integer(self) -> bool:
        """Whether only whole numbers fit."""
        return self.base in WHOLE

    @property
    def wire(self) -> str:
        """The SQL type in which values travel: 64 bits, always."""
        return BIGINT if self.integer else DOUBLE

    def misfit(self, values: NDArray[np.float64]) -> str | None:
        """Say which of the values the column would change, and into what; None if it holds them all."""
        changed = self.numbers.first_changed(values)
        if changed is None:
            return None
        value, left = changed
        if np.isnan(left):
            return f"is {self.type}, and {value!r} does not fit"
        # An integer has been made of the value before the server sees it.
        return f"is {self.type}, which makes {left!r} of {value!r}" if self.checked or self.integer else None


@attrs.frozen
class FilledColumn:
    """A field that some rows have a value for, and whether others have none."""

    field: ValueColumn
    sparse: bool


@attrs.frozen
class TableModel:
    """Where the rows of one dataset lie.

    `own` tables are written by nobody else, have fields of the types of the wire, and hold one dataset only.
    `ordered` tables have an index that leads from a series to its times. `guarded` ones have rules or
    triggers that may make something else of a row, or nothing.
    """

    schema: str
    name: str
    time: str
    time_codec: TimeCodec
    keys: tuple[KeyColumn, ...]
    values: tuple[ValueColumn, ...]
    is_own: bool
    ordered: bool
    guarded: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that tell rows apart."""
        return (*(label.name for label in self.keys), self.time)

    @property
    def types(self) -> dict[str, str]:
        """The SQL type of each column that is written."""
        return {
            **{label.name: label.type for label in self.keys},
            self.time: self.time_codec.type,
            **{field.name: field.type for field in self.values},
        }

    @property
    def title(self) -> str:
        """The name with its schema, for people and for locks."""
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        """The quoted name with its schema, for a statement that a person types."""
        return quoted(self.schema, self.name)

    def check(self, found: Mapping[str, str]) -> None:
        """Raise SinkError if a column is of another type than ours are made of."""
        for name, kind in self.types.items():
            if found.get(name, kind) != kind:
                raise SinkError(
                    f"{self.title}.{name} is {found[name]} instead of {kind}; "
                    "choose another schema with schema=, or map the table with table="
                )

    def filled(self, columns: Columns) -> tuple[FilledColumn, ...]:
        """Return the fields that have a value in any of the rows."""
        found = []
        for field in self.values:
            null = np.isnan(columns.values[field.line])
            sparse = bool(null.any())
            if not (sparse and null.all()):
                found.append(FilledColumn(field, sparse))
        return tuple(found)

    def names(self, filled: Sequence[FilledColumn]) -> list[str]:
        """Return the names of the columns that `strips` writes."""
        return [self.time, *(each.field.name for each in filled)]

    def strips(self, columns: Columns, filled: Sequence[FilledColumn]) -> list[WireColumn]:
        """Return times and fields as they travel; raises RowsRefused for what a column cannot hold."""
        strips = [WireColumn(self.time_codec.encode(columns.times))]
        for each in filled:
            values = columns.values[each.field.line]
            if (misfit := each.field.misfit(values)) is not None:
                raise RowsRefused(f"{self.title}.{each.field.name} {misfit}; {self._remedy(each.field)}")
            null = np.isnan(values) if each.sparse else None
            if each.field.integer:
                values = (values if null is None else np.where(null, 0, values)).astype(np.int64)
            strips.append(WireColumn(values, null))
        return strips

    def check_labels(self, series: Series, labels: Sequence[Name]) -> None:
        """Raise RowsRefused where a key column cannot hold the name of a series as it is."""
        for label, value in zip(self.keys, labels, strict=True):
            if (misfit := label.misfit(value)) is not None:
                raise RowsRefused(
                    f"{series}: {self.title}.{label.name} is {label.type} and cannot hold {value!r}: "
                    f"it {misfit}"
                )

    def _remedy(self, field: ValueColumn) -> str:
        if self.is_own:
            return "the exchange's value is no whole number of 64 bits"
        wider = "double precision" if field.numbers.single else "numeric"
        return (
            f"ALTER TABLE {self.quoted} ALTER COLUMN {quoted(field.name)} TYPE {wider}, "
            "or have the column round it with TableMapping(rounding='allow')"
        )
