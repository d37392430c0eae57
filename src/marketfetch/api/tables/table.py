"""The table that `fetch` returns: rows of series, with conversions, resampling and joins."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs

from marketfetch.api.tables.frames import (
    Index,
    arrow_table,
    check_one_series,
    pandas_frame,
    polars_frame,
    python_rows,
    wide_frame,
)
from marketfetch.api.tables.html import table_html
from marketfetch.api.tables.joining import jitter_grid, joined, joined_dataset
from marketfetch.api.tables.plots import Theme, plot_candles
from marketfetch.api.tables.resampling import check_divides, resampled, resampled_dataset
from marketfetch.common.arrow import arrow_schema, arrow_stream
from marketfetch.common.text import pluralize
from marketfetch.common.type_checks import is_text, is_whole, kind_of
from marketfetch.errors import ConfigurationError, unknown
from marketfetch.planning.held_symbols import Spelling
from marketfetch.redaction import redact
from marketfetch.reports import Report
from marketfetch.values.datasets import Dataset
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span

if TYPE_CHECKING:  # heavy and optional: imported where they are used
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from matplotlib.figure import Figure

__all__ = ["Table"]

_PRICES = ("open", "high", "low", "close")


class Table:
    """Rows of one dataset: `exchange, symbol, interval, open_time` and the dataset's columns.

    Rows are ordered by symbol as in the call, then by time. `open_time` is a UTC timestamp in milliseconds;
    prices and volumes are float64; integer columns are integers, NULL where the exchange publishes no value.
    `report` tells what was done and what is missing.

    `len`, iteration, `head` and `tail` are about rows; `table["BTCUSDT"]` is the table of one symbol. Every
    library that reads Arrow PyCapsules takes a table: `polars.DataFrame(table)`, `pyarrow.table(table)`.

    >>> import numpy as np
    >>> series = Series.of("binance-usdm", "mark_price", "BTCUSDT", "1m")
    >>> rows = Columns(np.array([60_000, 120_000]), np.array([[1.0, 2.0]] * 4))
    >>> table = Table(series.dataset, {series: rows}, Report.empty())
    >>> table["btc/usdt"].to_pandas().close.tolist()
    [1.0, 2.0]
    >>> [row.close for row in table.tail(1)]
    [2.0]
    """

    def __init__(self, dataset: Dataset, rows: Mapping[Series, Columns], report: Report) -> None:
        self.dataset = dataset
        self.rows = dict(rows)
        self.report = report

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the rows as named tuples; `open_time` is an aware datetime, NULL is None."""
        return python_rows(self.dataset, self.rows)

    def __contains__(self, symbol: object) -> bool:
        return (
            isinstance(symbol, str) and len({series.symbol for series in self._series_of_symbol(symbol)}) == 1
        )

    def __getitem__(self, symbol: str) -> Table:
        """Return the table of one symbol, in any spelling: `BTCUSDT`, `btcusdt`, `BTC/USDT`.

        Raises ConfigurationError, with near matches, for one that is not in the table, and for an ambiguous
        one, with the candidates.
        """
        rows = {series: self.rows[series] for series in self._chosen(symbol)}
        lines = tuple(line for line in self.report.series if line.series.symbol in {s.symbol for s in rows})
        return Table(self.dataset, rows, attrs.evolve(self.report, series=lines, unknown={}))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return ("exchange", "symbol", "interval", "open_time", *self.dataset.names)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols as the exchange writes them, in order."""
        return tuple(dict.fromkeys(series.symbol for series in self.rows))

    def of(self, symbol: str) -> Columns:
        """Return the rows of one symbol as arrays; raises the errors of `table[symbol]`."""
        chosen = self._chosen(symbol)
        if len(chosen) > 1:
            raise ConfigurationError(f"symbol: the table has {len(chosen)} series of {symbol}; see .rows")
        return self.rows[chosen[0]]

    def head(self, n: int = 5) -> Table:
        """Return a table of the first `n` rows, or all if there are fewer; its report is about these rows.

        Raises ConfigurationError for an `n` that is no whole number of 0 or more.
        """
        return self._head_or_tail(n, last=False)

    def tail(self, n: int = 5) -> Table:
        """Return a table of the last `n` rows, or all if there are fewer; its report is about these rows.

        Raises ConfigurationError for an `n` that is no whole number of 0 or more.
        """
        return self._head_or_tail(n, last=True)

    def to_pandas(self, index: Index | None = None) -> pd.DataFrame:
        """Return a pandas DataFrame; needs the extra `pandas`.

        The index is plain (None), the open times (`"time"`, for one symbol) or symbols and open times
        (`"symbol-time"`). The types do not depend on the rows: integer columns are always Int64, even without
        any row. Raises ConfigurationError for an index that cannot tell the rows apart.
        """
        return pandas_frame(self.dataset, self.rows, index)

    def to_polars(self) -> pl.DataFrame:
        """Return a polars DataFrame; needs the extra `polars`."""
        return polars_frame(self.dataset, self.rows)

    def to_arrow(self) -> pa.Table:
        """Return a pyarrow Table, which shares the memory of times and floats; needs the extra `parquet`."""
        return arrow_table(self.dataset, self.rows)

    def __arrow_c_schema__(self) -> object:
        """Return the schema as an Arrow PyCapsule; needs the extra `parquet`."""
        return arrow_schema(self.dataset.kinds).__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the rows as an Arrow PyCapsule; needs the extra `parquet`."""
        table = self.to_arrow()
        return arrow_stream(table.to_batches(), table.schema, requested_schema)

    def to_ccxt(self) -> list[list[Any]]:
        """Return candles of one symbol as ccxt does: lists of milliseconds, open, high, low, close, volume.

        NULL is None, and so is the volume in datasets without volumes. Raises ConfigurationError for several
        series, and for a dataset without candles.
        """
        check_one_series("to_ccxt: the lists of ccxt are of one series", self.rows)
        names = [*_PRICES, *(["volume"] if "volume" in self.dataset.names else [])]
        places = [self.dataset.index(name) for name in names]
        none = [None] * (1 + len(_PRICES) - len(names))
        return [
            [time, *(None if math.isnan(value) else value for value in values), *none]
            for columns in self.rows.values()
            for time, values in zip(columns.times.tolist(), columns.values[places].T.tolist(), strict=True)
        ]

    def wide(self, column: str) -> pd.DataFrame:
        """Return one column as a pandas DataFrame, times × symbols; needs the extra `pandas`.

        A symbol without a row at a time has NaN there. Raises ConfigurationError, with near matches, for an
        unknown column, and for a table with several intervals or exchanges of a symbol.
        """
        return wide_frame(self.dataset, self.rows, column)

    def resample(self, interval: str | timedelta | Interval) -> Table:
        """Return candles of a longer interval: first open, high, low, last close, and summed volumes.

        The column `complete` is False for a candle of which rows are missing, at the ends of the span or in a
        gap; confirmed-empty moments are not missing. A sum with a NULL is NULL. A candle without any row is
        left out. Raises ConfigurationError for an interval that the rows do not divide, and for datasets
        without prices and volumes.

        >>> import numpy as np
        >>> series = Series.of("okx", "index_price", "BTC-USDT", "1h")
        >>> rows = Columns(np.arange(4) * 3_600_000, np.array([[1.0, 2.0, 3.0, 4.0]] * 4))
        >>> table = Table(series.dataset, {series: rows}, Report.empty()).resample("2h")
        >>> table.of("BTC-USDT").values[:4].T.tolist(), [row.complete for row in table]
        ([[1.0, 2.0, 1.0, 2.0], [3.0, 4.0, 3.0, 4.0]], [True, True])
        """
        target = Interval.parse(interval)
        dataset = resampled_dataset(self.dataset)
        for series in self.rows:
            check_divides(series.interval, target)
        lines = {line.series: line for line in self.report.series}
        rows: dict[Series, Columns] = {}
        for series, columns in self.rows.items():
            longer = attrs.evolve(series, interval=target)
            if longer in rows:
                raise ConfigurationError(
                    f"interval: the table has several intervals of {series.symbol}; resample one of them"
                )
            rows[longer] = resampled(self.dataset, columns, series.interval, target, lines.get(series))
        renamed = [
            attrs.evolve(lines[series], series=attrs.evolve(series, interval=target))
            for series in self.rows
            if series in lines
        ]
        return Table(dataset, rows, attrs.evolve(self.report, series=tuple(renamed)))

    def join(self, other: Table, *, grid: str | timedelta | Interval | None = "1m") -> Table:
        """Return this table with the columns of another one, for the same exchanges and symbols.

        Of events (funding) and states (`open_interest`, `long_short_ratio`) each row has the last value at or
        before its open time. An event at most a second off a step of `grid` counts as at the step: funding
        at 08:00:00.005 belongs to 08:00; None takes times as they are. Of other datasets it is the row of the
        same open time. Where there is none the value is NULL. A column that this table has already gets the
        name of the other dataset in front.

        Raises ConfigurationError for tables without a common symbol, for candles of another interval, and for
        a grid without steps of one length.
        """
        if not isinstance(other, Table):
            raise ConfigurationError(
                f"other: {kind_of(other)} is no Table; "
                f"{'take one of it by its key' if isinstance(other, dict) else 'fetch or read one'}"
            )
        rows = joined(self.rows, other.rows, other.dataset, jitter_grid(grid))
        lines = {line.series: line for line in (*other.report.series, *self.report.series)}
        hints = {**self.report.unknown, **other.report.unknown}
        report = attrs.evolve(self.report, series=tuple(lines.values()), unknown=hints)
        return Table(joined_dataset(self.dataset, other.dataset), rows, report)

    def plot(self, *, theme: Theme = "light") -> Figure:
        """Return a matplotlib figure: candles, volumes below, and joined funding; needs the extra `plot`.

        A table with too many rows to be seen is resampled for it. Raises ConfigurationError for several
        symbols, for a dataset without prices and for a table without rows.
        """
        return plot_candles(self.dataset, self.rows, theme)

    def _chosen(self, symbol: str) -> list[Series]:
        if not is_text(symbol):
            raise ConfigurationError(
                f"symbol: {redact(repr(symbol))} is not a name; write table['BTCUSDT'], "
                "or table.head() for rows"
            )
        if symbol in self.report.unknown:
            raise ConfigurationError(f"symbol: {symbol!r} has no rows: {self.report.unknown[symbol]}")
        chosen = self._series_of_symbol(symbol)
        found = sorted({series.symbol for series in chosen})
        if not found:
            if symbol in self.columns:
                raise ConfigurationError(
                    f"symbol: {symbol!r} is a column; write table.wide({symbol!r}), "
                    f"or table.to_pandas()[{symbol!r}]"
                )
            raise unknown("symbol", symbol, self.symbols, "is not in this table")
        if len(found) > 1:
            raise ConfigurationError(
                f"symbol: {symbol!r} is ambiguous; write {' or '.join(map(repr, found))}"
            )
        return chosen

    def _series_of_symbol(self, symbol: str) -> list[Series]:
        """Return the series of a symbol, all of its intervals; those of several if the spelling allows it."""
        exact = [series for series in self.rows if series.symbol == symbol]
        if exact:
            return exact
        asked = Spelling.of(symbol)
        alike = [series for series in self.rows if Spelling.of(series.symbol).meaning == asked.meaning]
        if asked.contract:
            return [series for series in alike if Spelling.of(series.symbol).contract] or alike
        return alike

    def _head_or_tail(self, n: int, *, last: bool) -> Table:
        if not is_whole(n) or n < 0:
            raise ConfigurationError(f"n: {redact(repr(n))} is not a number of rows; write 0 or more")
        left, parts = int(n), dict[Series, Columns]()
        for series, columns in reversed(self.rows.items()) if last else self.rows.items():
            size = len(columns)
            part = columns.take(slice(max(size - left, 0), None) if last else slice(left))
            left -= len(part)
            if len(part) or not size:
                parts[series] = part
        rows = {series: parts[series] for series in self.rows if series in parts}
        lines = [line for line in self.report.series if line.series not in self.rows or line.series in rows]
        shorter = {series: part for series, part in rows.items() if len(part) < len(self.rows[series])}
        narrowed = (
            line.within(_span_of(line.series, shorter[line.series])) if line.series in shorter else line
            for line in lines
        )
        return Table(self.dataset, rows, attrs.evolve(self.report, series=tuple(narrowed)))

    def __repr__(self) -> str:
        state = "complete" if self.report.complete else "incomplete: see .report"
        return (
            f"<Table {self.dataset.name}: {pluralize(len(self), 'row')} of {len(self.rows)} series, {state}>"
        )

    def _repr_html_(self) -> str:
        """Return HTML with the first and last rows, and what the table holds and lacks of each series."""
        return table_html(repr(self), self.dataset, self.rows, self.report)


def _span_of(series: Series, rows: Columns) -> Span:
    """Return the span from the first row to the end of the last one."""
    first, last = int(rows.times[0]), int(rows.times[-1])
    return Span(first, last + 1 if series.interval.is_event else series.interval.shift(last, 1))
