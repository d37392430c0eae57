"""Rows as the bytes of a Parquet file, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import SinkError
from marketfetch.values.datasets import Column, Dataset
from marketfetch.values.pages import Columns

__all__ = ["decoded", "encoded"]

_TIME = "open_time"


def encoded(rows: Columns, dataset: Dataset) -> bytes:
    """Write rows as a Parquet file; the same rows always make the same bytes.

    Raises SinkError if a column of whole numbers has a fraction.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def array(column: Column, values: NDArray[np.float64]) -> pa.Array[Any]:
        held: pa.Array[Any] = pa.array(values, mask=np.isnan(values))
        try:
            return held.cast(pa.int64()) if column.integer else held
        except pa.ArrowException as error:
            raise SinkError(f"{dataset}.{column.name} counts and must be whole: {error}") from error

    times = pa.array(rows.times.astype("datetime64[ms]")).cast(pa.timestamp("ms", "UTC"))
    lines = map(array, dataset.columns, rows.values)
    table = pa.Table.from_arrays([times, *lines], names=[_TIME, *dataset.names])
    whole = {_TIME, *(column.name for column in dataset.columns if column.integer)}
    buffer = pa.BufferOutputStream()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        use_dictionary=False,
        # Bytes of the same place value side by side: prices that barely move compress to half the size.
        column_encoding={
            name: "DELTA_BINARY_PACKED" if name in whole else "BYTE_STREAM_SPLIT"
            for name in table.column_names
        },
    )
    return buffer.getvalue().to_pybytes()


def decoded(content: bytes, dataset: Dataset, name: str) -> Columns:
    """Read rows back; columns that the file lacks are NULL.

    Raises SinkError, which calls the file by `name`, for anything else than a Parquet file of rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            table = file.read(use_threads=False)
        times = table.column(_TIME).to_numpy().astype("datetime64[ms]").astype(np.int64)
        values = np.full((len(dataset.columns), len(times)), np.nan)
        for line, column in zip(values, dataset.names, strict=True):
            if column in table.column_names:
                line[:] = table.column(column).to_numpy()  # NULL becomes NaN
    except (pa.ArrowException, LookupError) as error:
        raise SinkError(f"{name} is not a file that marketfetch wrote ({error}); move it away") from error
    return Columns(times, values)
