"""The coin-margined contracts of a market, with their volumes counted in contracts."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.testing.markets.decimal_text import FixedPointColumn, RenderedColumn
from marketfetch.testing.markets.market import Market, MarketInstrument, MarketRows, Window
from marketfetch.values.intervals import Interval

__all__ = ["CoinMarginedMarket", "contract_worth"]


def contract_worth(item: MarketInstrument) -> int:
    """Return how many US dollars a contract is worth, as the listing of Binance COIN-M says.

    >>> contract_worth(MarketInstrument.parse("BTCUSD_PERP", 0))
    100
    """
    return 100 if item.base == "BTC" else 10


@attrs.frozen
class CoinMarginedMarket:
    """Wraps a market as Binance COIN-M shows it: contracts where others have base coin, base coin for quote.

    >>> from marketfetch.testing import GeneratedMarket
    >>> market = CoinMarginedMarket(GeneratedMarket(["BTCUSDT", "ETHUSD_PERP"]))
    >>> list(market.instruments)
    ['ETHUSD_PERP']
    >>> window = Window(1_600_000_000_000, 1_600_010_000_000, limit=1)
    >>> row = market.rows("ohlcv", "ETHUSD_PERP", Interval.parse("1h"), window).floats()
    >>> bool(row["low"][0] < 10 * row["volume"][0] / row["quote_volume"][0] < row["high"][0])
    True
    """

    market: Market

    @property
    def instruments(self) -> Mapping[str, MarketInstrument]:
        """The coin-margined contracts by symbol."""
        listed = self.market.instruments
        return {symbol: item for symbol, item in listed.items() if item.coin_margined}

    def rows(self, dataset: str, symbol: str, interval: Interval, window: Window) -> MarketRows:
        """Return the rows of a series; taker volume has `buy_contracts` and `sell_contracts`, too."""
        table = self.market.rows(dataset, symbol, interval, window)
        column, changed = table.columns, dict[str, RenderedColumn]()
        if dataset == "ohlcv":
            for base, quote in (("volume", "quote_volume"), ("taker_buy_volume", "taker_buy_quote_volume")):
                changed |= {base: self._contracts(symbol, column[quote].floats()), quote: column[base]}
        elif dataset == "open_interest":
            contracts = self._contracts(symbol, column["open_interest_value"].floats())
            changed = {"open_interest": contracts, "open_interest_value": column["open_interest"]}
        elif dataset == "taker_volume":
            interest = self.market.rows("open_interest", symbol, interval, window).floats()
            price = interest["open_interest_value"] / interest["open_interest"]
            for side in ("buy", "sell"):
                dollars = column[f"{side}_volume"].floats() * price
                changed[f"{side}_contracts"] = self._contracts(symbol, dollars)
        return MarketRows(table.times, {**column, **changed})

    def _contracts(self, symbol: str, dollars: NDArray[np.float64]) -> FixedPointColumn:
        worth = contract_worth(self.market.instruments[symbol])
        return FixedPointColumn(np.rint(dollars / worth).astype(np.int64))
