"""The binary COPY format, built from whole columns. Pure: no connection, no SQL.

A row of COPY BINARY is the number of its fields and, for each, a length and the value, all big-endian. Where
every field has a fixed width, rows have one too: a structured NumPy array *is* the body. A NULL is a length
of -1 without a value, so its value bytes are cut out of that array by a mask.
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
"""PostgreSQL counts from 2000-01-01; this is that moment in UTC milliseconds."""


@attrs.frozen(eq=False)
class WireColumn:
    """One column of rows on their way into COPY: its values, shape (n,), and which of them are NULL."""

    values: NDArray[Any]
    null: NDArray[np.bool_] | None = None


def copy_body(pieces: Iterable[Sequence[WireColumn]]) -> Iterator[bytes]:
    r"""Write pieces of rows, each of them columns of equal length, as one complete binary COPY stream.

    The width of a field is that of the strip's dtype: int32 for integer, int64 for bigint and timestamptz
    (see `to_timestamps`), float64 for double precision.

    >>> b"".join(copy_body([[WireColumn(np.array([7], np.int32))]]))[19:]
    b'\x00\x01\x00\x00\x00\x04\x00\x00\x00\x07\xff\xff'
    """
    rows: NDArray[Any] = np.empty(0)
    yield _HEADER
    for strips in pieces:
        count = len(strips[0].values)
        if count > len(rows):
            rows = _blank(strips, count)
        yield _filled(rows[:count], strips)
    yield _TRAILER


def _blank(strips: Sequence[WireColumn], count: int) -> NDArray[Any]:
    """Lay out rows with all that is the same in each of them: written once, it is half of the work saved."""
    form: list[tuple[str, Any]] = [("fields", ">i2")]
    for i, strip in enumerate(strips):
        form += [(f"length{i}", ">i4"), (f"value{i}", strip.values.dtype.newbyteorder(">"))]
    rows = np.empty(count, form)
    rows["fields"] = len(strips)
    for i, strip in enumerate(strips):
        rows[f"length{i}"] = strip.values.itemsize
    return rows


def _filled(rows: NDArray[Any], strips: Sequence[WireColumn]) -> bytes:
    for i, strip in enumerate(strips):
        rows[f"value{i}"] = strip.values
    nulls = {i: strip.null for i, strip in enumerate(strips) if strip.null is not None and strip.null.any()}
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
