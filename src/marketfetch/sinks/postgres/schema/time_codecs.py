"""How times lie in a column: between UTC milliseconds and what the server holds. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import LiteralString, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import RowsRefused
from marketfetch.sinks.postgres.copy_binary import from_timestamps, to_timestamps
from marketfetch.sinks.table_mapping import TableMapping
from marketfetch.values.spans import format_utc

__all__ = ["BIGINT", "TIMESTAMP", "TIMESTAMPTZ", "DateCodec", "EpochCodec", "TimeCodec", "TimestampCodec"]

# Spelled as format_type() does.
BIGINT = "bigint"
TIMESTAMP = "timestamp without time zone"
TIMESTAMPTZ = "timestamp with time zone"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400_000
_DAYS_TO_2000 = 10_957
_FIRST, _LAST = -62_135_596_800_000, 253_402_300_799_999
"""The first and the last millisecond of the years 1 to 9999, which Python's datetime can tell."""


class TimeCodec(Protocol):
    """How a column of times is written: between UTC milliseconds and what the server holds."""

    @property
    def type(self) -> str:
        """The SQL type in which times travel."""
        ...

    @property
    def send(self) -> LiteralString:
        """The SQL that turns the column `{}` into 8 bytes, for `decode`."""
        ...

    def encode(self, times: NDArray[np.int64]) -> NDArray[np.int64] | NDArray[np.int32]:
        """Turn UTC milliseconds into values of the wire; raises RowsRefused where the column has none."""
        ...

    def decode(self, wire: NDArray[np.int64]) -> NDArray[np.int64]:
        """Turn 64 bits of the wire into UTC milliseconds."""
        ...

    def bound(self, ms: int) -> int | date:
        """Return the parameter to compare the column with: the first value at or after a moment."""
        ...


@attrs.frozen
class TimestampCodec:
    """A column of timestamptz, or of timestamp, which then has UTC.

    `step` is the number of milliseconds that the column tells apart: 1000 for timestamptz(0). `column` names
    it in messages.
    """

    type: str = TIMESTAMPTZ
    step: int = 1
    column: str = ""

    @property
    def send(self) -> LiteralString:
        """See Clock."""
        return "timestamptz_send({})" if self.type == TIMESTAMPTZ else "timestamp_send({})"

    def encode(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """See Clock."""
        if self.step > 1:
            _check_steps(times, self.step, self.column, "make it timestamptz")
        return to_timestamps(times)

    def decode(self, wire: NDArray[np.int64]) -> NDArray[np.int64]:
        """See Clock."""
        return from_timestamps(wire)

    def bound(self, ms: int) -> datetime:
        """See Clock.

        >>> TimestampCodec().bound(1)
        datetime.datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=datetime.timezone.utc)
        """
        moment = _EPOCH + timedelta(milliseconds=max(_FIRST, min(ms, _LAST)))
        return moment if self.type == TIMESTAMPTZ else moment.replace(tzinfo=None)


@attrs.frozen
class DateCodec:
    """A column of dates: the UTC day that a row begins with."""

    column: str = ""
    type: str = "date"
    send: LiteralString = "int8send(({} - date '1970-01-01')::bigint)"

    def encode(self, times: NDArray[np.int64]) -> NDArray[np.int32]:
        """See Clock."""
        _check_steps(times, _DAY, self.column, "map a column of timestamptz")
        return (times // _DAY - _DAYS_TO_2000).astype(np.int32)

    def decode(self, wire: NDArray[np.int64]) -> NDArray[np.int64]:
        """See Clock."""
        return wire * _DAY

    def bound(self, ms: int) -> date:
        """See Clock.

        >>> DateCodec().bound(1)
        datetime.date(1970, 1, 2)
        """
        return (_EPOCH + timedelta(days=-(-max(_FIRST, min(ms, _LAST - _DAY)) // _DAY))).date()


@attrs.frozen
class EpochCodec:
    """An integer column that counts the mapping's `time_unit` since the epoch."""

    mapping: TableMapping
    type: str = BIGINT

    @property
    def send(self) -> LiteralString:
        """See Clock."""
        return "int8send({}::bigint)"

    def encode(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """See Clock."""
        return self.mapping.stored_times(times)

    def decode(self, wire: NDArray[np.int64]) -> NDArray[np.int64]:
        """See Clock."""
        return self.mapping.times(wire)

    def bound(self, ms: int) -> int:
        """See Clock."""
        return ms if self.mapping.time_unit == "ms" else -(-ms // 1000)


def _check_steps(times: NDArray[np.int64], step: int, column: str, remedy: str) -> None:
    between = np.flatnonzero(times % step)
    if len(between):
        raise RowsRefused(
            f"{column} tells {step} ms apart and cannot hold {format_utc(int(times[between[0]]))}; {remedy}"
        )
