"""Files of tables: CSV, Parquet and Arrow, written piece by piece."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from marketfetch.api.tables.table import Table
from marketfetch.common.type_checks import is_text
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.reports import Report
from marketfetch.sinks.files.paths import require
from marketfetch.values.datasets import Column, Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series

__all__ = ["FileFormat", "Times", "check_times", "format_of", "open_table_file"]

FileFormat = Literal["csv", "parquet", "arrow"]
Times = Literal["iso", "ms"]

_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}


def format_of(name: str | None, given: object) -> FileFormat:
    """Return the format: `given`, or else that of the suffix of a file name, or else (no name) "csv".

    Raises ConfigurationError for an unknown format, for a suffix without a format (btc.txt), and if the
    package that the format needs is not installed.

    >>> format_of("btc.feather", None), format_of("btc.txt", "csv")
    ('arrow', 'csv')
    """
    if given is not None and (not is_text(given) or given not in get_args(FileFormat)):
        raise unknown("format", given, get_args(FileFormat))
    named = "csv" if name is None else _SUFFIXES.get(Path(name).suffix.lower())
    kind: FileFormat | None = given or named  # type: ignore[assignment]  # it is one of them
    if kind is None:
        raise ConfigurationError(
            f"format: the name {Path(str(name)).name!r} tells none; end it with {', '.join(_SUFFIXES)}, or "
            f"choose one of {', '.join(get_args(FileFormat))}"
        )
    if kind != "csv":
        require("pyarrow", extra="parquet", user=f"format: {kind}")
    return kind


def check_times(times: object, kind: FileFormat) -> None:
    """Check how times are to be written: "iso", or "ms", which only CSV has; else ConfigurationError."""
    if not is_text(times) or times not in get_args(Times):
        raise unknown("times", times, get_args(Times))
    if times == "ms" and kind != "csv":
        raise ConfigurationError(f"times: 'ms' is for CSV, and {kind} has timestamps; leave it out")


@contextmanager
def open_table_file(
    handle: BinaryIO, kind: FileFormat, dataset: Dataset, times: Times = "iso"
) -> Iterator[Callable[[Table], object]]:
    """Yield a function that appends the rows of a table; the file is complete when the block is left."""
    empty = Table(dataset, {}, Report.empty())
    if kind == "csv":
        handle.write(_csv_text([empty.columns]).encode())
        yield lambda piece: handle.writelines(_csv_blocks(piece, times))
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = empty.to_arrow().schema
    sink = pa.PythonFile(handle)  # type: ignore[arg-type]  # any binary file
    opened = pq.ParquetWriter(sink, schema) if kind == "parquet" else pa.ipc.new_file(sink, schema)
    with opened as writer:
        yield lambda piece: writer.write_table(piece.to_arrow())


def _csv_blocks(table: Table, times: Times) -> Iterator[bytes]:
    for series, columns in table.rows.items():
        yield _csv_lines(series, columns, times).encode()


def _csv_lines(series: Series, columns: Columns, times: Times) -> str:
    r"""Write the rows of a series, without a header.

    >>> series = Series.of("okx", "funding_rate", "BTC-USDT-SWAP", "event")
    >>> rows = Columns(np.array([0]), np.array([[0.0001], [np.nan], [np.nan]]))
    >>> _csv_lines(series, rows, "iso")
    'okx,BTC-USDT-SWAP,event,1970-01-01T00:00:00Z,0.0001,,\n'
    """
    names = (series.exchange, series.symbol, series.interval.name)
    moments = columns.times.tolist() if times == "ms" else _iso(columns.times)
    values = [
        _numbers(column, row) for column, row in zip(series.dataset.columns, columns.values, strict=True)
    ]
    return _csv_text((*names, *cells) for cells in zip(moments, *values, strict=True))


def _csv_text(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _iso(times: NDArray[np.int64]) -> list[str]:
    """Write UTC milliseconds as ISO text; without the milliseconds if they are 0."""
    moments = times.astype("datetime64[ms]")
    text = np.datetime_as_string(moments, timezone="UTC")
    return [each.replace(".000Z", "Z") for each in text.tolist()]


def _numbers(column: Column, values: NDArray[np.float64]) -> list[object]:
    """Return the values as CSV writes them: integers without a point, NULL as an empty cell."""
    known = ~np.isnan(values)
    return [
        (int(value) if column.integer else value) if there else ""
        for value, there in zip(values.tolist(), known.tolist(), strict=True)
    ]
