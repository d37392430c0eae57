"""Encode whole columns in the binary COPY format. Pure: no connection, no SQL.

A row of COPY BINARY is the number of its fields and, for each field, its length and its value, all
big-endian. Fields of fixed width give rows of fixed width: the bytes of a structured NumPy array are the
rows. A NULL has the length -1 and no value: a mask cuts the bytes of its value out of the array.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

__all__ = ["WireColumn", "copy_body", "from_timestamps", "to_timestamps"]

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # signature, flags, length of the header's extension
_TRAILER = b"\xff\xff"

_EPOCH = 946_684_800_000
"""2000-01-01, from which PostgreSQL counts, in UTC milliseconds."""


@attrs.frozen(eq=False)
class WireColumn:
    """One column of a COPY stream: its values, of shape (n,), and a mask of those that are NULL."""

    values: NDArray[Any]
    null: NDArray[np.bool_] | None = None


def copy_body(pieces: Iterable[Sequence[WireColumn]]) -> Iterator[bytes]:
    r"""Write pieces of rows, each of them columns of equal length, as one complete binary COPY stream.

    The width of a field is that of its dtype: int32 for integer, int64 for bigint and timestamptz
    (see `to_timestamps`), float64 for double precision.

    >>> b"".join(copy_body([[WireColumn(np.array([7], np.int32))]]))[19:]
    b'\x00\x01\x00\x00\x00\x04\x00\x00\x00\x07\xff\xff'
    """
    rows: NDArray[Any] = np.empty(0)
    yield _HEADER
    for columns in pieces:
        count = len(columns[0].values)
        if count > len(rows):
            rows = _allocate(columns, count)
        yield _fill(rows[:count], columns)
    yield _TRAILER


def _allocate(columns: Sequence[WireColumn], count: int) -> NDArray[Any]:
    """Allocate rows and fill in what is the same in each of them, which saves half of the work."""
    form: list[tuple[str, Any]] = [("fields", ">i2")]
    for i, column in enumerate(columns):
        form += [(f"length{i}", ">i4"), (f"value{i}", column.values.dtype.newbyteorder(">"))]
    rows = np.empty(count, form)
    rows["fields"] = len(columns)
    for i, column in enumerate(columns):
        rows[f"length{i}"] = column.values.itemsize
    return rows


def _fill(rows: NDArray[Any], columns: Sequence[WireColumn]) -> bytes:
    for i, column in enumerate(columns):
        rows[f"value{i}"] = column.values
    nulls = {
        i: column.null for i, column in enumerate(columns) if column.null is not None and column.null.any()
    }
    if not nulls:
        return rows.tobytes()
    rows = rows.copy()  # the lengths stay as they are for the next piece
    form = [(name, np.bool_, rows.dtype[name].itemsize) for name in rows.dtype.names or ()]
    keep = np.ones(len(rows), form)
    for i, null in nulls.items():
        rows[f"length{i}"][null] = -1
        keep[f"value{i}"][null] = False
    return rows.view(np.uint8)[keep.view(np.bool_)].tobytes()


def to_timestamps(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn UTC milliseconds into the microseconds since 2000 that a timestamptz is on the wire."""
    return (times - _EPOCH) * 1000


def from_timestamps(wire: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn a timestamptz of the wire into UTC milliseconds.

    >>> from_timestamps(to_timestamps(np.array([60_000])))
    array([60000])
    """
    return wire // 1000 + _EPOCH
