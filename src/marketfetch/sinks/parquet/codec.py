"""Rows to a Parquet file and back, with a note about them in the footer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from marketfetch.common.arrow import number_array, time_array
from marketfetch.errors import RowsRefused
from marketfetch.sinks.sql.number_limits import NumberLimits
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series

__all__ = ["UnreadableFile", "check_whole", "read_note", "read_rows", "write_rows"]

_TIME = "open_time"

_NOTE = "marketfetch"
"""The key of the note among the metadata of a file."""

_ROW_GROUP_ROWS = 65_536
"""Rows of a row group: only these are in memory twice, as arrays and encoded."""


class UnreadableFile(Exception):
    """A file is damaged, or is not one of `write_rows`; the message tells the reason."""


def check_whole(series: Series, rows: Columns) -> None:
    """Raise RowsRefused where a column of whole numbers has a fraction, or a number that no int64 holds."""
    for column, values in zip(series.dataset.columns, rows.values, strict=True):
        changed = NumberLimits.of("bigint").first_changed(values) if column.integer else None
        if changed is not None:
            raise RowsRefused(
                f"{series}: {series.dataset}.{column.name} counts and must be whole: {changed[0]!r} "
                "is not; store this series in DuckDB or SQLite with table=, in a column of DOUBLE"
            )


def write_rows(rows: Columns, dataset: Dataset, note: bytes, target: BinaryIO) -> None:
    """Write rows as a Parquet file; the same rows and note always make the same bytes.

    Columns of whole numbers have no fractions; see `check_whole`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [_TIME, *dataset.names]
    types = [pa.int64() if column.integer else pa.float64() for column in dataset.columns]
    schema = pa.schema(list(zip(names, [pa.timestamp("ms", "UTC"), *types], strict=True)))

    def table(piece: Columns) -> pa.Table:
        return pa.Table.from_arrays(
            [time_array(piece.times), *map(number_array, piece.values, types)], schema=schema
        )

    whole = {_TIME, *(column.name for column in dataset.columns if column.integer)}
    # Every reader supports these. fastparquet has no BYTE_STREAM_SPLIT, and without it zstd is half as fast.
    encodings = {name: "DELTA_BINARY_PACKED" if name in whole else "PLAIN" for name in names}
    options: dict[str, Any] = {
        "compression": "lz4",
        "use_dictionary": False,
        "column_encoding": encodings,
        "write_page_checksum": True,
        "write_statistics": [_TIME],  # readers skip files and row groups by time; all columns cost 10 %
    }
    with pq.ParquetWriter(target, schema, **options) as file:
        for start in range(0, len(rows), _ROW_GROUP_ROWS):
            file.write_table(table(rows.take(slice(start, start + _ROW_GROUP_ROWS))))
        file.add_key_value_metadata({_NOTE: note.decode()})


def read_note(source: BinaryIO) -> bytes | None:
    """Read the note of a file; None where it has none. Raises UnreadableFile."""
    import pyarrow.parquet as pq

    with _translate_errors():
        found: bytes | None = (pq.read_metadata(source).metadata or {}).get(_NOTE.encode())
    return found


def read_rows(source: BinaryIO, dataset: Dataset) -> Columns:
    """Read the rows of a file; columns that the file lacks are NULL. Raises UnreadableFile."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _translate_errors(), pq.ParquetFile(source, page_checksum_verification=True) as file:
        times = np.empty(file.metadata.num_rows, np.int64)
        values = np.full((len(dataset.columns), len(times)), np.nan)
        stop = 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, use_threads=False)
            start, stop = stop, stop + table.num_rows
            moments = table.column(_TIME).cast(pa.timestamp("ms"), safe=False)
            _copy(moments.cast(pa.int64()), times[start:stop])
            for line, column in zip(values, dataset.names, strict=True):
                if column in table.column_names:
                    numbers = table.column(column).cast(pa.float64(), safe=False)
                    _copy(numbers, line[start:stop])
    return Columns(times, values)


def _copy(column: Any, target: NDArray[Any]) -> None:
    """Copy numbers, NULL as NaN; `to_numpy` would import pandas, where that is installed."""
    at, chunks = 0, [chunk for chunk in column.chunks if len(chunk)]
    for chunk in chunks:
        bitmap, numbers = chunk.buffers()
        rows, piece = slice(chunk.offset, chunk.offset + len(chunk)), target[at : at + len(chunk)]
        piece[:] = np.frombuffer(numbers, target.dtype)[rows]
        if chunk.null_count:
            held = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")[rows]
            piece[held == 0] = np.nan
        at += len(chunk)


@contextmanager
def _translate_errors() -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, LookupError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk; errors of Arrow itself have no errno
        raise UnreadableFile(" ".join(str(error).split())) from error
