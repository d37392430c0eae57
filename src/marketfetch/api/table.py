"""The table that `fetch` returns, and its conversion to pandas, polars and pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from marketfetch.api.shortfalls import missing_summary
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.redaction import printable
from marketfetch.reports import Report
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import format_utc

if TYPE_CHECKING:  # heavy and optional: imported where they are used
    import pandas as pd
    import polars as pl
    import pyarrow as pa

__all__ = ["Table"]

_HEAD = ("symbol", "interval", "rows", "from", "to", "confirmed empty", "missing")


class Table:
    """Rows of one dataset: `exchange, symbol, interval, open_time` and the dataset's columns.

    Rows are ordered by symbol as in the call, then by time. `open_time` is a UTC timestamp in milliseconds;
    prices and volumes are float64; integer columns are integers, NULL where the exchange publishes no value.
    `report` tells what was done and what is missing.

    >>> series = Series.of("binance-usdm", "mark_price", "BTCUSDT", "1m")
    >>> rows = Columns(np.array([60_000]), np.array([[1.0], [2.0], [0.5], [1.5]]))
    >>> Table(series.dataset, {series: rows}, Report.empty()).to_pandas().close.tolist()
    [1.5]
    """

    def __init__(self, dataset: Dataset, rows: Mapping[Series, Columns], report: Report) -> None:
        self.dataset = dataset
        self.rows = dict(rows)
        self.report = report

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return ("exchange", "symbol", "interval", "open_time", *self.dataset.names)

    def to_pandas(self) -> pd.DataFrame:
        """Return a pandas DataFrame with a plain index; needs the extra `pandas`.

        The types do not depend on the rows: integer columns are always Int64, even without any row.
        """
        import pandas as pd

        text = pd.Series(["text"]).dtype  # object; from pandas 3 on a type for strings
        frame: dict[str, Any] = {
            name: pd.Series(self._labels(of), dtype=text) for name, of in _keys().items()
        }
        frame["open_time"] = pd.to_datetime(self._times(), unit="ms", utc=True)
        for column, values in zip(self.dataset.columns, self._values(), strict=True):
            frame[column.name] = pd.Series(values).astype("Int64") if column.integer else values
        return pd.DataFrame(frame)

    def to_polars(self) -> pl.DataFrame:
        """Return a polars DataFrame; needs the extra `polars`."""
        import polars as pl

        frame: dict[str, Any] = {
            name: pl.Series(self._labels(of), dtype=pl.String) for name, of in _keys().items()
        }
        frame["open_time"] = pl.Series(self._times()).cast(pl.Datetime("ms", "UTC"))
        for column, values in zip(self.dataset.columns, self._values(), strict=True):
            series = pl.Series(values, dtype=pl.Float64).fill_nan(None)
            frame[column.name] = series.cast(pl.Int64) if column.integer else series
        return pl.DataFrame(frame)

    def to_arrow(self) -> pa.Table:
        """Return a pyarrow Table; needs the extra `parquet`."""
        import pyarrow as pa

        frame: dict[str, Any] = {
            name: pa.array(self._labels(of), pa.string()) for name, of in _keys().items()
        }
        frame["open_time"] = pa.array(self._times(), pa.timestamp("ms", "UTC"))
        for column, values in zip(self.dataset.columns, self._values(), strict=True):
            array = pa.array(values, pa.float64(), mask=np.isnan(values))
            frame[column.name] = array.cast(pa.int64()) if column.integer else array
        return pa.table(frame)

    def of(self, symbol: str) -> Columns:
        """Return the rows of one symbol as arrays.

        Raises ConfigurationError, with near matches, if the symbol is not in the table or unknown.
        """
        if symbol in self.report.unknown:
            raise ConfigurationError(f"symbol: {symbol!r} has no rows: {self.report.unknown[symbol]}")
        for series, columns in self.rows.items():
            if series.symbol == symbol:
                return columns
        held = [series.symbol for series in self.rows]
        raise unknown("symbol", symbol, held, "is not in this table")

    def _labels(self, of: Callable[[Series], str]) -> list[str]:
        return [of(series) for series, columns in self.rows.items() for _ in range(len(columns))]

    def _times(self) -> NDArray[np.int64]:
        return np.concatenate([columns.times for columns in self.rows.values()] or [np.empty(0, np.int64)])

    def _values(self) -> NDArray[np.float64]:
        parts = [columns.values for columns in self.rows.values()]
        return np.concatenate(parts or [np.empty((len(self.dataset.columns), 0))], axis=1)

    def __repr__(self) -> str:
        state = "complete" if self.report.complete else "incomplete: see .report"
        return f"<Table {self.dataset.name}: {len(self):,} rows of {len(self.rows)} series, {state}>"

    def _repr_html_(self) -> str:
        """Return HTML that shows, for each series, what the table holds and what it lacks."""
        head = "".join(f"<th>{name}</th>" for name in _HEAD)
        body = "".join(map(self._html_line, self.rows))
        lacks = "".join(f"<li>{escape(each)}</li>" for each in missing_summary(self.report, self.rows))
        return (
            f"<p>{escape(repr(self))}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            + (f"<p>Not there:</p><ul>{lacks}</ul>" if lacks else "")
        )

    def _html_line(self, series: Series) -> str:
        columns = self.rows[series]
        line = next((line for line in self.report.series if line.series == series), None)
        first, last = (format_utc(int(columns.times[at])) for at in (0, -1)) if len(columns) else ("–", "–")
        empty = str(line.empty) if line else "–"
        gaps = "; ".join(f"{gap.spans} ({gap.reason})" for gap in line.missing) if line else ""
        cells = (
            series.symbol,
            series.interval.name,
            f"{len(columns):,}",
            first,
            last,
            empty,
            gaps or "nothing",
        )
        return "<tr>" + "".join(f"<td>{escape(printable(cell))}</td>" for cell in cells) + "</tr>"


def _keys() -> dict[str, Callable[[Series], str]]:
    return {
        "exchange": lambda series: series.exchange,
        "symbol": lambda series: series.symbol,
        "interval": lambda series: series.interval.name,
    }
