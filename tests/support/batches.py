"""Short constructors of batches for tests of stores."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from marketfetch.protocols import Store
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span

START = 1_577_836_800_000  # 2020-01-01
MINUTE = 60_000
EVER = Span(0, 2**53)

_T = TypeVar("_T")


def candles(symbol: str = "BTCUSDT", interval: str = "1m", exchange: str = "binance-usdm") -> Series:
    return Series.of(exchange, "ohlcv", symbol, interval)


def premium(symbol: str = "BTCUSDT") -> Series:
    return Series.of("binance-usdm", "premium_index", symbol, "1m")


def batch(
    series: Series, rows: range | Sequence[int], **columns: float | Sequence[float] | np.ndarray
) -> Batch:
    """Return a batch with rows at the given minutes after START; columns not named are NULL."""
    times = START + MINUTE * np.array(rows, np.int64)
    values = np.full((len(series.dataset.columns), len(times)), np.nan)
    for name, column in columns.items():
        values[series.dataset.index(name)] = column
    return Batch(series, Columns(times, values), Coverage(series.interval.cover(times)))


def assert_alike(store: Store, expected: Store, series: Series) -> None:
    """Two stores have the same rows and the same coverage of a series."""
    found, wanted = store.read(series, EVER), expected.read(series, EVER)
    np.testing.assert_array_equal(found.times, wanted.times)
    np.testing.assert_array_equal(found.values, wanted.values)
    assert store.coverage([series]) == expected.coverage([series])


def not_split(whole: Batch, parts: tuple[Batch, Batch]) -> None:
    """Refuse to split a batch, where a transaction takes all."""
    raise AssertionError(f"{whole.rows} rows were split into {[part.rows for part in parts]}")


def one_by_one(items: Iterator[_T]) -> Callable[[], Awaitable[_T | None]]:
    """Return a function that returns the next item, None after the last."""

    async def take() -> _T | None:
        return next(items, None)

    return take
