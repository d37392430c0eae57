"""Batches prepared beforehand, for benchmarks of a store alone."""

from __future__ import annotations

import numpy as np

from benchmarks.exchange import symbols
from marketfetch.testing import GeneratedMarket, Window
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Coverage, Series

__all__ = ["START", "prepared"]

START = 1_775_001_600_000
"""2026-04-01, in UTC milliseconds: months begin and end inside sixty days from here."""
_DAY = 86_400_000


def prepared(count: int, days: int, rows: int) -> list[Batch]:
    """Make the candles of so many symbols and days, in batches of so many rows, series after series."""
    market, batches = GeneratedMarket(symbols(count)), list[Batch]()
    for symbol in symbols(count):
        series = Series.of("binance-usdm", "ohlcv", symbol, "1m")
        table = market.rows("ohlcv", symbol, series.interval, Window(START, START + days * _DAY))
        columns = table.floats()
        values = np.array([columns[name] for name in series.dataset.names])
        for first in range(0, len(table), rows):
            part = slice(first, first + rows)
            held = Columns(table.times[part].copy(), np.ascontiguousarray(values[:, part]))
            batches.append(Batch(series, held, Coverage(series.interval.cover(held.times))))
    return batches
