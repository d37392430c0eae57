"""Convert between UTC milliseconds and the values of a time column. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import LiteralString, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import RowsRefused
from marketfetch.sinks.postgres.copy_binary import from_timestamps, to_timestamps
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.values.spans import DAY, format_utc

__all__ = ["BIGINT", "TIMESTAMP", "TIMESTAMPTZ", "DateCodec", "EpochCodec", "TimeCodec", "TimestampCodec"]

# As format_type() writes them.
BIGINT = "bigint"
TIMESTAMP = "timestamp without time zone"
TIMESTAMPTZ = "timestamp with time zone"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS_TO_2000 = 10_957
_FIRST, _LAST = -62_135_596_800_000, 253_402_300_799_999
"""The first and the last millisecond of the years 1 to 9999, the range of Python's datetime."""


class TimeCodec(Protocol):
    """Converts between UTC milliseconds and the values of one type of time column."""

    @property
    def type(self) -> str:
        """The SQL type in which times are sent."""
        ...

    @property
    def send(self) -> LiteralString:
        """The SQL that converts the column `{}` to 8 bytes, which `decode` reads."""
        ...

    def encode(self, times: NDArray[np.int64]) -> NDArray[np.int64] | NDArray[np.int32]:
        """Convert UTC milliseconds to values for COPY; raises RowsRefused if the column is too coarse."""
        ...

    def decode(self, wire: NDArray[np.int64]) -> NDArray[np.int64]:
        """Convert the 64-bit numbers of `send` to UTC milliseconds."""
        ...

    def bound(self, ms: int) -> int | date:
        """Return the parameter to compare the column with: the first value at or after a moment."""
        ...


@attrs.frozen
class TimestampCodec:
    """A column of timestamptz, or of timestamp with times in UTC.

    `step` is the precision of the column in milliseconds: 1000 for timestamptz(0). `column` is its name in
    messages.
    """

    type: str = TIMESTAMPTZ
    step: int = 1
    column: str = ""

    @property
    def send(self) -> LiteralString:
        """See TimeCodec."""
        return "timestamptz_send({})" if self.type == TIMESTAMPTZ else "timestamp_send({})"

    def encode(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """See TimeCodec."""
        if self.step > 1:
            _check_steps(times, self.step, self.column, "make it timestamptz")
        return to_timestamps(times)

    def decode(self, wire: NDArray[np.int64]) -> NDArray[np.int64]:
        """See TimeCodec."""
        return from_timestamps(wire)

    def bound(self, ms: int) -> datetime:
        """See TimeCodec.

        >>> TimestampCodec().bound(1)
        datetime.datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=datetime.timezone.utc)
        """
        moment = _EPOCH + timedelta(milliseconds=max(_FIRST, min(ms, _LAST)))
        return moment if self.type == TIMESTAMPTZ else moment.replace(tzinfo=None)


@attrs.frozen
class DateCodec:
    """A column of dates: the UTC day on which a row opens."""

    column: str = ""
    type: str = "date"
    send: LiteralString = "int8send(({} - date '1970-01-01')::bigint)"

    def encode(self, times: NDArray[np.int64]) -> NDArray[np.int32]:
        """See TimeCodec."""
        _check_steps(times, DAY, self.column, "map a column of timestamptz")
        return (times // DAY - _DAYS_TO_2000).astype(np.int32)

    def decode(self, wire: NDArray[np.int64]) -> NDArray[np.int64]:
        """See TimeCodec."""
        return wire * DAY

    def bound(self, ms: int) -> date:
        """See TimeCodec.

        >>> DateCodec().bound(1)
        datetime.date(1970, 1, 2)
        """
        return (_EPOCH + timedelta(days=-(-max(_FIRST, min(ms, _LAST - DAY)) // DAY))).date()


@attrs.frozen
class EpochCodec:
    """An integer column that counts the mapping's `time_unit` since the epoch."""

    mapping: TableMapping
    type: str = BIGINT

    @property
    def send(self) -> LiteralString:
        """See TimeCodec."""
        return "int8send({}::bigint)"

    def encode(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """See TimeCodec."""
        return self.mapping.stored_times(times)

    def decode(self, wire: NDArray[np.int64]) -> NDArray[np.int64]:
        """See TimeCodec."""
        return self.mapping.times(wire)

    def bound(self, ms: int) -> int:
        """See TimeCodec."""
        return self.mapping.bound(ms)


def _check_steps(times: NDArray[np.int64], step: int, column: str, remedy: str) -> None:
    between = np.flatnonzero(times % step)
    if len(between):
        raise RowsRefused(
            f"{column} tells {step} ms apart and cannot hold {format_utc(int(times[between[0]]))}; {remedy}"
        )
