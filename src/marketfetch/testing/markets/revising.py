"""A market whose candles change for some time after their close."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import numpy as np

from marketfetch.testing.markets.decimal_text import FixedPointColumn, RenderedColumn
from marketfetch.testing.markets.market import Market, MarketInstrument, MarketRows, Window
from marketfetch.values.intervals import Interval

__all__ = ["RevisingMarket"]


@attrs.define
class RevisingMarket:
    """Wraps a market: before a candle is final, its high, low and close are equal to its open.

    `now` returns UTC milliseconds; a candle is final `settling` milliseconds after its close.

    >>> from marketfetch.testing import GeneratedMarket
    >>> market = RevisingMarket(GeneratedMarket(["BTCUSDT"]), now=lambda: 1_600_000_030_000, settling=45_000)
    >>> window = Window(1_599_999_900_000, 1_600_000_020_000)
    >>> rows = market.rows("ohlcv", "BTCUSDT", Interval.parse("1m"), window).floats()
    >>> (rows["high"] > rows["low"]).tolist()
    [True, False]
    """

    market: Market
    now: Callable[[], int]
    settling: int

    @property
    def instruments(self) -> Mapping[str, MarketInstrument]:
        """The instruments of the wrapped market."""
        return self.market.instruments

    def rows(self, dataset: str, symbol: str, interval: Interval, window: Window) -> MarketRows:
        """Return the rows as they are at `now()`."""
        table = self.market.rows(dataset, symbol, interval, window)
        if "open" not in table.columns or not len(table):
            return table
        fresh = table.times >= interval.floor(self.now() - self.settling)
        opened = table.columns["open"]
        columns: dict[str, RenderedColumn] = dict(table.columns)
        for name in ("high", "low", "close"):
            final = columns[name]
            if isinstance(opened, FixedPointColumn) and isinstance(final, FixedPointColumn):
                columns[name] = FixedPointColumn(np.where(fresh, opened.values, final.values), final.places)
        return MarketRows(table.times, columns)
