"""Series: one exchange, dataset, symbol and interval."""

from __future__ import annotations

import attrs

from marketfetch.common.text import text_in_ipython
from marketfetch.values.datasets import Dataset
from marketfetch.values.intervals import EVENT, Interval

__all__ = ["Series"]


@attrs.frozen(cache_hash=True)
class Series:
    """One exchange, dataset, symbol and interval: what a store keeps the coverage of.

    >>> print(Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m"))
    binance-usdm ohlcv BTCUSDT 1m
    """

    exchange: str
    dataset: Dataset
    symbol: str
    interval: Interval

    @classmethod
    def of(cls, exchange: str, dataset: str | Dataset, symbol: str, interval: str | Interval) -> Series:
        """Make a series from names; an event dataset gets the interval `event`, whatever `interval` is."""
        kind = Dataset.parse(dataset)
        return cls(exchange, kind, symbol, EVENT if kind.event else Interval.parse(interval))

    @property
    def names(self) -> tuple[str, str, str, str]:
        """The names of exchange, dataset, symbol and interval, which identify the series in a store."""
        return self.exchange, self.dataset.name, self.symbol, self.interval.name

    def as_dict(self) -> dict[str, str]:
        """Return the four names in plain types, for JSON.

        >>> Series.of("okx", "ohlcv", "BTC-USDT", "1h").as_dict()
        {'exchange': 'okx', 'dataset': 'ohlcv', 'symbol': 'BTC-USDT', 'interval': '1h'}
        """
        return {
            "exchange": self.exchange,
            "dataset": self.dataset.name,
            "symbol": self.symbol,
            "interval": self.interval.name,
        }

    def __str__(self) -> str:
        return " ".join(self.names)

    _repr_pretty_ = text_in_ipython
