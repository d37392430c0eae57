"""Rows as Arrow data, without a copy of times and floats where memory allows; needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from marketfetch.common.optional_packages import from_extra

if TYPE_CHECKING:  # heavy and optional: imported where it is used
    import pyarrow as pa

__all__ = ["arrow_schema", "arrow_stream", "number_array", "record_batch", "time_array"]

_KEYS = ("exchange", "symbol", "interval")


def arrow_schema(kinds: Mapping[str, type]) -> pa.Schema:
    """Return the schema of rows: keys as text, `open_time` in UTC milliseconds, then columns of the kinds.

    Raises ConfigurationError, which names the extra, without pyarrow.

    >>> arrow_schema({"close": float, "trades": int}).names
    ['exchange', 'symbol', 'interval', 'open_time', 'close', 'trades']
    """
    with from_extra("parquet", "Arrow data"):
        import pyarrow as pa
    types: dict[type, Any] = {float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
    fields: list[tuple[str, Any]] = [(name, pa.string()) for name in _KEYS]
    fields.append(("open_time", pa.timestamp("ms", "UTC")))
    return pa.schema(fields + [(name, types[kind]) for name, kind in kinds.items()])


def record_batch(
    schema: pa.Schema, keys: Iterable[str], times: NDArray[np.int64], values: NDArray[np.float64]
) -> pa.RecordBatch:
    """Return the rows of one series as a record batch; NaN becomes NULL.

    `keys` are exchange, symbol and interval; `times` has the shape (n,), `values` (columns, n). The batch
    uses the memory of `times`, and that of float columns which are contiguous.

    >>> schema = arrow_schema({"close": float})
    >>> batch = record_batch(schema, ("okx", "BTC-USDT", "1m"), np.array([0]), np.array([[1.5]]))
    >>> batch.column("close").to_pylist()
    [1.5]
    """
    import pyarrow as pa

    rows = len(times)
    arrays: list[Any] = [pa.repeat(pa.scalar(key, pa.string()), rows) for key in keys]
    arrays.append(time_array(times))
    columns = zip(values, list(schema)[len(arrays) :], strict=True)
    arrays += [number_array(line, field.type) for line, field in columns]
    return pa.record_batch(arrays, schema=schema)


def time_array(times: NDArray[np.int64]) -> Any:
    """Return times as an Arrow array on the same memory.

    `pyarrow.array` would import pandas, where that is installed, which takes half as long as a short run.
    """
    import pyarrow as pa

    return _shared(pa.timestamp("ms", "UTC"), times, None)


def number_array(numbers: NDArray[np.float64], kind: pa.DataType) -> Any:
    """Return numbers as an Arrow array of a kind, floats on the same memory; NaN becomes NULL."""
    import pyarrow as pa

    null = np.isnan(numbers)
    bitmap = np.packbits(~null, bitorder="little") if null.any() else None
    column = _shared(pa.float64(), numbers, bitmap)
    return column if kind == pa.float64() else column.cast(kind)


def _shared(
    kind: pa.DataType, numbers: NDArray[np.int64] | NDArray[np.float64], bitmap: NDArray[np.uint8] | None
) -> Any:
    """Return an array on the memory of numpy's; Arrow keeps that memory alive."""
    import pyarrow as pa

    memory: list[Any] = [bitmap, np.ascontiguousarray(numbers)]
    buffers = [None if part is None else pa.py_buffer(part) for part in memory]
    return pa.Array.from_buffers(kind, len(numbers), buffers)


def arrow_stream(batches: Sequence[pa.RecordBatch], schema: pa.Schema, wanted: object = None) -> object:
    """Return record batches as an Arrow PyCapsule, cast to the schema `wanted`, itself a PyCapsule."""
    import pyarrow as pa

    reader: Any = pa.RecordBatchReader.from_batches(schema, batches)
    return reader.__arrow_c_stream__(wanted)
