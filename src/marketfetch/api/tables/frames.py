"""Tables as pandas and polars frames, pyarrow tables and rows of Python."""

from __future__ import annotations

import math
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from marketfetch.common.arrow import arrow_schema, record_batch
from marketfetch.common.optional_packages import from_extra
from marketfetch.common.type_checks import is_text
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.values.datasets import Column, Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series

if TYPE_CHECKING:  # heavy and optional: imported where they are used
    import pandas as pd
    import polars as pl
    import pyarrow as pa

__all__ = [
    "Index",
    "arrow_table",
    "check_one_series",
    "pandas_frame",
    "polars_frame",
    "python_rows",
    "wide_frame",
]

Index = Literal["time", "symbol-time"]
_Rows = Mapping[Series, Columns]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _keys() -> dict[str, Callable[[Series], str]]:
    return {
        "exchange": lambda series: series.exchange,
        "symbol": lambda series: series.symbol,
        "interval": lambda series: series.interval.name,
    }


def _numbers(rows: _Rows) -> NDArray[np.intp]:
    """Return for each row the number of its series; by it, texts are taken instead of converted."""
    return np.repeat(np.arange(len(rows)), np.array([len(columns) for columns in rows.values()], np.intp))


def _times(rows: _Rows) -> NDArray[np.int64]:
    return np.concatenate([columns.times for columns in rows.values()] or [np.empty(0, np.int64)])


def _values(dataset: Dataset, rows: _Rows) -> Iterator[tuple[Column, NDArray[np.float64]]]:
    parts = [columns.values for columns in rows.values()] or [Columns.empty(dataset).values]
    return zip(dataset.columns, np.concatenate(parts, axis=1), strict=True)


def arrow_table(dataset: Dataset, rows: _Rows) -> pa.Table:
    """Return a pyarrow Table with a chunk for each series that has rows, on the memory of the rows."""
    schema = arrow_schema(dataset.kinds)
    import pyarrow as pa

    batches = [
        record_batch(schema, [of(series) for of in _keys().values()], columns.times, columns.values)
        for series, columns in rows.items()
        if len(columns)
    ]
    return pa.Table.from_batches(batches, schema)


def polars_frame(dataset: Dataset, rows: _Rows) -> pl.DataFrame:
    """Return a polars DataFrame; needs no pyarrow."""
    with from_extra("polars", "to_polars"):
        import polars as pl

    frame: dict[str, Any] = {
        name: pl.Series([of(series) for series in rows], dtype=pl.String).gather(_numbers(rows))
        for name, of in _keys().items()
    }
    frame["open_time"] = pl.Series(_times(rows)).cast(pl.Datetime("ms", "UTC"))
    types = {float: pl.Float64, int: pl.Int64, bool: pl.Boolean}
    for column, values in _values(dataset, rows):
        frame[column.name] = pl.Series(values, dtype=pl.Float64).fill_nan(None).cast(types[column.kind])
    return pl.DataFrame(frame)


def pandas_frame(dataset: Dataset, rows: _Rows, index: Index | None) -> pd.DataFrame:
    """Return a pandas DataFrame; integer columns are Int64, flags bool, whatever the rows.

    Raises ConfigurationError for an index that cannot tell the rows apart.
    """
    names = _index_names(rows, index)
    with from_extra("pandas", "to_pandas"):
        import pandas as pd

    text: Any = pd.Series(["text"]).dtype  # object; from pandas 3 on a type for strings
    frame: dict[str, Any] = {}
    for name, of in _keys().items():
        texts = pd.array([of(series) for series in rows], dtype=text)
        frame[name] = pd.Series(texts.take(_numbers(rows)), dtype=text)
    frame["open_time"] = pd.to_datetime(_times(rows), unit="ms", utc=True)
    types: dict[type, Any] = {int: "Int64", bool: "bool", float: "float64"}
    for column, values in _values(dataset, rows):
        frame[column.name] = pd.Series(values).astype(types[column.kind])
    result = pd.DataFrame(frame)
    return result.set_index(names) if names else result


def _index_names(rows: _Rows, index: Index | None) -> list[str]:
    if index is None:
        return []
    if not is_text(index) or index not in get_args(Index):
        raise unknown("index", index, get_args(Index))
    if index == "time":
        check_one_series("index: 'time' tells the rows of one series apart", rows)
        return ["open_time"]
    _check_unique_symbols("index", rows)
    return ["symbol", "open_time"]


def check_one_series(purpose: str, rows: _Rows) -> None:
    """Raise ConfigurationError, which says how to choose one, for rows of several series."""
    symbols = list(dict.fromkeys(series.symbol for series in rows))
    if len(rows) > 1:
        of, choice = (
            (f" of {symbols[0]}", "take one interval and exchange")
            if len(symbols) == 1
            else ("", f"choose a symbol, such as table[{symbols[0]!r}]")
        )
        raise ConfigurationError(f"{purpose}, and the table has {len(rows)}{of}; {choice}")


def _check_unique_symbols(argument: str, rows: _Rows) -> None:
    symbol, count = max(
        Counter(series.symbol for series in rows).items(), key=lambda item: item[1], default=("", 0)
    )
    if count > 1:
        raise ConfigurationError(
            f"{argument}: the table has {count} series of {symbol}, of several intervals or exchanges; "
            "take one table for each"
        )


def wide_frame(dataset: Dataset, rows: _Rows, column: str) -> pd.DataFrame:
    """Return one column as a pandas DataFrame, times × symbols; NaN or NA where a symbol has no row."""
    if not is_text(column):
        raise ConfigurationError(f"column: {column!r} is not a name; write one, such as 'close'")
    place = dataset.index(column)
    _check_unique_symbols("wide", rows)
    with from_extra("pandas", "wide"):
        import pandas as pd

    times = np.unique(_times(rows))
    values = np.full((len(times), len(rows)), np.nan)
    for number, columns in enumerate(rows.values()):
        values[np.searchsorted(times, columns.times), number] = columns.values[place]
    index = pd.DatetimeIndex(pd.to_datetime(times, unit="ms", utc=True), name="open_time")
    symbols = pd.Index([series.symbol for series in rows], name="symbol", dtype=pd.Series(["text"]).dtype)
    frame = pd.DataFrame(values, index=index, columns=symbols)
    types: dict[type, Any] = {int: "Int64", bool: "boolean", float: "float64"}
    return frame.astype(types[dataset.columns[place].kind])


def _row_type(fields: list[str]) -> Callable[..., Any]:
    return namedtuple("Row", fields)  # noqa: PYI024  # the dataset has the fields


def python_rows(dataset: Dataset, rows: _Rows) -> Iterator[Any]:
    """Yield each row as a named tuple: text, an aware datetime, then numbers, None for NULL."""
    fields = [*_keys(), "open_time", *dataset.names]
    row = _row_type(fields)
    kinds = [column.kind for column in dataset.columns]
    for series, columns in rows.items():
        keys = [of(series) for of in _keys().values()]
        for time, numbers in zip(columns.times.tolist(), columns.values.T, strict=True):
            values = (
                None if math.isnan(value) else kind(value)
                for kind, value in zip(kinds, numbers.tolist(), strict=True)
            )
            yield row(*keys, _EPOCH + timedelta(milliseconds=time), *values)
