"""Helpers for tests of stores: create series and batches, write, read and compare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from marketfetch.protocols import Store
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Column
from marketfetch.values.pages import Batch, Columns, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = [
    "EVER",
    "MINUTE",
    "NULL",
    "START",
    "batch_at",
    "batch_of",
    "batch_without_rows",
    "column_of",
    "coverages",
    "minutes",
    "same",
    "series_of",
    "values_of",
    "write",
]

MINUTE = 60_000
START = 1_577_836_800_000
"""2020-01-01, a Wednesday: not the start of a week."""
EVER = Span(0, 4_102_444_800_000)
NULL = float("nan")


def series_of(
    exchange: str = "binance-usdm", dataset: str = "ohlcv", symbol: str = "BTCUSDT", interval: str = "1m"
) -> Series:
    """Return a series; arguments replace the defaults."""
    return Series.of(exchange, dataset, symbol, interval)


def minutes(first: int, end: int) -> Span:
    """Return a span of minutes, counted from START."""
    return Span(START + first * MINUTE, START + end * MINUTE)


def batch_at(series: Series, times: NDArray[np.int64], **given: float | Sequence[float]) -> Batch:
    """Return a batch with rows at the given times; all other columns differ from row to row."""
    values = np.arange(1.0, 1 + len(series.dataset.columns))[:, None] + (times - START) / 8192
    for column, line in zip(series.dataset.columns, values, strict=True):
        line[:] = given.get(column.name, np.floor(line) if column.integer else line)
    return Batch(series, Columns(times, values), Coverage(series.interval.cover(times)))


def batch_of(series: Series, rows: Sequence[int], **given: float | Sequence[float]) -> Batch:
    """Return a batch with rows at the given minutes, counted from START.

    >>> batch_of(series_of(dataset="mark_price"), [1], close=7).columns.values[:, 0]
    array([ 8.32421875,  9.32421875, 10.32421875,  7.        ])
    """
    return batch_at(series, START + MINUTE * np.array(rows, np.int64), **given)


def batch_without_rows(
    series: Series,
    *,
    empty: Sequence[Span] = (),
    unusable: Sequence[Span] = (),
    rejected: Sequence[RejectedRow] = (),
) -> Batch:
    """Return a batch without rows that records empty and unusable spans, and rejected rows."""
    absent, wrong = SpanSet(tuple(empty)), SpanSet(tuple(unusable))
    return Batch(
        series, Columns.empty(series.dataset), Coverage(absent | wrong, absent, wrong), tuple(rejected)
    )


@st.composite
def coverages(draw: st.DrawFn) -> Coverage:
    """Draw any coverage of a hundred minutes, counted from START."""
    span = st.tuples(st.integers(0, 90), st.integers(1, 10)).map(lambda at: minutes(at[0], sum(at)))
    spans = st.lists(span, max_size=8).map(lambda some: SpanSet(tuple(some)))
    covered, empty, unusable = draw(spans), draw(spans), draw(spans)
    return Coverage(covered, (empty & covered) - unusable, unusable & covered)


def values_of(column: Column) -> st.SearchStrategy[float]:
    """Draw any value of a column."""
    whole = st.integers(-(2**53), 2**53).map(float)
    numbers = whole if column.integer else st.floats(allow_nan=False, allow_infinity=False)
    return numbers | st.just(NULL) if column.optional else numbers


def write(store: Store, *batches: Batch) -> None:
    """Write batches with one writer."""
    with store.writer() as take:
        for batch in batches:
            take(batch)


def column_of(store: Store, series: Series, name: str) -> list[float]:
    """Read one column of all rows of a series."""
    values: list[float] = store.read(series, EVER).values[series.dataset.index(name)].tolist()
    return values


def same(held: Columns, sent: Columns) -> None:
    """Assert that rows are equal bit by bit, except the sign of zero."""
    assert held.times.dtype == np.int64, f"times are {held.times.dtype}, not int64"
    assert held.values.dtype == np.float64, f"values are {held.values.dtype}, not float64"
    np.testing.assert_array_equal(held.times, sent.times)
    np.testing.assert_array_equal(held.values, sent.values)
