"""What a writer and a reader must know about a table, whoever made it: values without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import SinkError
from marketfetch.sinks.mapping import TableMapping
from marketfetch.sinks.postgres.wire import Strip, from_timestamps, to_timestamps
from marketfetch.values.pages import Columns

__all__ = [
    "BIGINT",
    "DOUBLE",
    "TIMESTAMPTZ",
    "Clock",
    "Field",
    "Filled",
    "Integers",
    "Label",
    "Table",
    "Timestamps",
]

# Spelled as format_type() does.
BIGINT = "bigint"
DOUBLE = "double precision"
TIMESTAMPTZ = "timestamp with time zone"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = -62_135_596_800_000, 253_402_300_799_999
"""The first and the last millisecond of the years 1 to 9999, which Python's datetime can tell."""


class Clock(Protocol):
    """How a column of times is written: between UTC milliseconds and what the server holds."""

    @property
    def type(self) -> str:
        """The column's SQL type."""
        ...

    def encode(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Turn UTC milliseconds into the column's 64 bits of the wire."""
        ...

    def decode(self, wire: NDArray[np.int64]) -> NDArray[np.int64]:
        """Turn 64 bits of the wire into UTC milliseconds."""
        ...

    def bound(self, ms: int) -> int | datetime:
        """Return the parameter to compare the column with: the first value at or after a moment."""
        ...


@attrs.frozen
class Timestamps:
    """A timestamptz column."""

    type: str = TIMESTAMPTZ

    def encode(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """See Clock."""
        return to_timestamps(times)

    def decode(self, wire: NDArray[np.int64]) -> NDArray[np.int64]:
        """See Clock."""
        return from_timestamps(wire)

    def bound(self, ms: int) -> datetime:
        """See Clock.

        >>> Timestamps().bound(1)
        datetime.datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=datetime.timezone.utc)
        """
        return _EPOCH + timedelta(milliseconds=max(_FIRST, min(ms, _LAST)))


@attrs.frozen
class Integers:
    """A bigint column that counts the mapping's `time_unit` since the epoch."""

    mapping: TableMapping
    type: str = BIGINT

    def encode(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """See Clock; raises SinkError for a time between two whole units."""
        return self.mapping.stored_times(times)

    def decode(self, wire: NDArray[np.int64]) -> NDArray[np.int64]:
        """See Clock."""
        return self.mapping.times(wire)

    def bound(self, ms: int) -> int:
        """See Clock."""
        return ms if self.mapping.time_unit == "ms" else -(-ms // 1000)


@attrs.frozen
class Label:
    """A key column that is the same in all rows of a series, and its SQL type."""

    name: str
    type: str


@attrs.frozen
class Field:
    """A column of the table for one column of a dataset: its SQL type, and its line in `Columns.values`."""

    name: str
    type: str
    line: int

    @property
    def integer(self) -> bool:
        """Whether only whole numbers fit."""
        return self.type in {BIGINT, "integer", "smallint"}

    @property
    def wire(self) -> str:
        """The SQL type in which values travel: 64 bits, always."""
        return BIGINT if self.integer else DOUBLE


@attrs.frozen
class Filled:
    """A field that some rows have a value for, and whether others have none."""

    field: Field
    sparse: bool


@attrs.frozen
class Table:
    """Where the rows of one dataset lie.

    `own` tables are written by nobody else, have fields of the types of the wire, and hold one dataset only.
    `ordered` tables have an index that leads from a series to its times.
    """

    schema: str
    name: str
    time: str
    clock: Clock
    labels: tuple[Label, ...]
    fields: tuple[Field, ...]
    own: bool
    ordered: bool

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that tell rows apart."""
        return (*(label.name for label in self.labels), self.time)

    @property
    def types(self) -> dict[str, str]:
        """The SQL type of each column that is written."""
        return {
            **{label.name: label.type for label in self.labels},
            self.time: self.clock.type,
            **{field.name: field.type for field in self.fields},
        }

    @property
    def title(self) -> str:
        """The name with its schema, for people and for locks."""
        return f"{self.schema}.{self.name}"

    def check(self, found: Mapping[str, str]) -> None:
        """Raise SinkError if a column is of another type than ours are made of."""
        for name, kind in self.types.items():
            if found.get(name, kind) != kind:
                raise SinkError(
                    f"{self.title}.{name} is {found[name]} instead of {kind}; "
                    "choose another schema with schema=, or map the table with table="
                )

    def filled(self, columns: Columns) -> tuple[Filled, ...]:
        """Return the fields that have a value in any of the rows."""
        found = []
        for field in self.fields:
            null = np.isnan(columns.values[field.line])
            sparse = bool(null.any())
            if not (sparse and null.all()):
                found.append(Filled(field, sparse))
        return tuple(found)

    def names(self, filled: Sequence[Filled]) -> list[str]:
        """Return the names of the columns that `strips` writes."""
        return [self.time, *(each.field.name for each in filled)]

    def strips(self, columns: Columns, filled: Sequence[Filled]) -> list[Strip]:
        """Return times and fields as they travel; raises SinkError for a time that the column cannot hold."""
        strips = [Strip(self.clock.encode(columns.times))]
        for each in filled:
            values = columns.values[each.field.line]
            null = np.isnan(values) if each.sparse else None
            if each.field.integer:
                values = (values if null is None else np.where(null, 0, values)).astype(np.int64)
            strips.append(Strip(values, null))
        return strips
