"""Binance spot, https://api.binance.com: klines.

Limit per address: 6000 weight in each minute of the server's clock. A page of klines costs 2 whatever its
size, so the largest page is always the best.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from marketfetch.adapter import MINUTE, Cost, Instrument, LimitPool, Source, decode_errors_as
from marketfetch.adapters.binance import BinanceExchange, Klines, OhlcvFiles, same_names

__all__ = ["BinanceSpot", "Ohlcv", "SpotOhlcvFiles"]

_WEIGHT = LimitPool("binance-spot weight", 6000, MINUTE, "clock", used_header="x-mbx-used-weight-1m")


class Ohlcv(Klines):
    """GET /api/v3/klines."""

    dataset = "ohlcv"
    path = "/api/v3/klines"
    intervals = same_names("1s 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w 1M")
    page_sizes = (1000,)

    def cost(self, rows: int) -> Cost:
        """Return two units of weight for a page of any size."""
        return Cost(_WEIGHT, 2)


class SpotOhlcvFiles(OhlcvFiles):
    """Files of candles."""

    market = "spot"
    intervals: ClassVar = {**same_names("1s"), **OhlcvFiles.intervals}


class BinanceSpot(BinanceExchange):
    """Binance spot.

    >>> BinanceSpot().endpoint("ohlcv").page_sizes
    (1000,)
    """

    name = "binance-spot"
    default_url = "https://api.binance.com"
    prefix = "/api/v3"
    weight = _WEIGHT
    listing_weight = 20
    symbol_examples: ClassVar = {"BTC/USDT": "BTCUSDT", "ETH/BTC": "ETHBTC"}
    quirks = """
    - A page of candles costs the same whatever its size, so pages are as long as they may be.
    - The listing does not say since when a pair is traded. One request finds its first candle.
    - The times in files are milliseconds, and microseconds since 2025; the number of digits tells which.
    """
    sources: ClassVar[Sequence[type[Source]]] = (Ohlcv, SpotOhlcvFiles)

    def decode_listing(self, body: bytes) -> Iterable[Instrument]:
        """Read the symbols; the spot listing has no times."""
        with decode_errors_as("a list of spot symbols"):
            for entry in self.entries(body):
                yield Instrument(
                    symbol=str(entry["symbol"]),
                    base=str(entry.get("baseAsset", "")),
                    quote=str(entry.get("quoteAsset", "")),
                    active=entry.get("status") == "TRADING",
                )
