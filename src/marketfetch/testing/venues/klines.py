"""Render candles as Binance's JSON rows."""

from __future__ import annotations

from typing import Protocol

import attrs
import numpy as np

from marketfetch.testing.markets.decimal_text import FixedPointColumn, RenderedColumn, write_rows
from marketfetch.testing.markets.market import Market, MarketRows, Window
from marketfetch.values.intervals import Interval

__all__ = ["KlineRenderer", "KlineSeries", "KlineSource", "write_klines"]


@attrs.frozen
class KlineSeries:
    """Dataset, symbol and interval of candles."""

    dataset: str
    symbol: str
    interval: Interval


class KlineSource(Protocol):
    """Where the Binance venues take their candle rows from; `SimulatorOptions.klines` can replace it."""

    def rows(self, series: KlineSeries, window: Window, now: int) -> bytes:
        """Return the JSON rows of a window, each with a comma behind it, as they are at `now` (UTC ms).

        The last row is that of the candle still forming if the window contains it.
        """
        ...


@attrs.frozen
class KlineRenderer:
    """Renders each window anew.

    >>> from marketfetch.testing import GeneratedMarket
    >>> series = KlineSeries("premium_index", "BTCUSDT", Interval.parse("1h"))
    >>> window = Window(1_600_000_000_000, 1_600_010_000_000, limit=1)
    >>> KlineRenderer(GeneratedMarket(["BTCUSDT"])).rows(series, window, 1_700_000_000_000)
    b'[1600002000000,"...","...","...","...","0",1600005599999,"0",12,"0","0","0"],'
    """

    market: Market

    def rows(self, series: KlineSeries, window: Window, now: int) -> bytes:
        table = self.market.rows(series.dataset, series.symbol, series.interval, window)
        forming = len(table) > 0 and int(table.times[-1]) >= series.interval.floor(now)
        return write_klines(table.unfinished() if forming else table, series.interval)


def write_klines(table: MarketRows, interval: Interval) -> bytes:
    """Write rows of a market as Binance's JSON rows, each with a comma behind it."""
    column = table.columns
    if interval.length is not None:
        closes = table.times + (interval.length - 1)
    else:
        closes = np.array([interval.shift(int(time), 1) - 1 for time in table.times], np.int64)
    prices: list[str | RenderedColumn] = ["[", FixedPointColumn(table.times), ',"']
    for name in ("open", "high", "low", "close"):
        prices += [column[name], '","']
    if "volume" not in column:
        # Mark prices have no volume; the count is that of their samples, one every five seconds.
        return write_rows(len(table), *prices, '0",', FixedPointColumn(closes), ',"0",12,"0","0","0"],')
    flow: list[str | RenderedColumn] = [
        column["volume"],
        '",',
        FixedPointColumn(closes),
        ',"',
        column["quote_volume"],
    ]
    flow += ['",', column["trades"], ',"', column["taker_buy_volume"]]
    flow += ['","', column["taker_buy_quote_volume"], '","0"],']
    return write_rows(len(table), *prices, *flow)
