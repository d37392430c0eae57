"""Prepare batches in memory, for benchmarks of a store alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, zip_longest

import numpy as np

from benchmarks.harness.exchange import symbols
from marketfetch.protocols import Sink, SupportsBatchSize, SupportsPartitions
from marketfetch.testing import GeneratedMarket, Window
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series

__all__ = ["START", "prepared"]

START = 1_775_001_600_000
"""2026-04-01 in UTC milliseconds; the sixty days from here cross the end of a month."""
_DAY = 86_400_000


def prepared(count: int, days: int, sink: Sink) -> list[Batch]:
    """Return candles of `count` symbols in batches of the sink's preferred size, all series interleaved."""
    market = GeneratedMarket(symbols(count))
    cut = [_cut(market, symbol, days, sink) for symbol in symbols(count)]
    return [batch for batch in chain.from_iterable(zip_longest(*cut)) if batch is not None]


def _cut(market: GeneratedMarket, symbol: str, days: int, sink: Sink) -> Iterator[Batch]:
    series = Series.of("binance-usdm", "ohlcv", symbol, "1m")
    table = market.rows("ohlcv", symbol, series.interval, Window(START, START + days * _DAY))
    columns = table.floats()
    values = np.array([columns[name] for name in series.dataset.names])
    most = sink.batch_rows if isinstance(sink, SupportsBatchSize) else len(table)
    start = 0
    while start < len(table):
        stop = start + most
        if isinstance(sink, SupportsPartitions):
            border = sink.partition(series, int(table.times[start])).end
            stop = min(stop, int(np.searchsorted(table.times, border)))
        rows = Columns(table.times[start:stop].copy(), values[:, start:stop].copy())
        yield Batch(series, rows, Coverage(series.interval.cover(rows.times)))
        start = stop
