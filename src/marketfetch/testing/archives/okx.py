"""OKX's tree of candle files: their names, their calendar of Hong Kong, and their text."""

from __future__ import annotations

import re
from typing import ClassVar

import attrs
import numpy as np

from marketfetch.testing.archives.csv_text import CsvText
from marketfetch.testing.archives.paths import GRAINS, ArchivePath
from marketfetch.testing.markets.decimal_text import FixedPointColumn, RenderedColumn, write_rows
from marketfetch.testing.markets.market import Market, Window
from marketfetch.testing.venues.okx import candle_values
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import HOUR, Span

__all__ = ["OkxPath", "parse_path", "read_okx_csv"]

_ROOT = "cdn/okex/traderecords/candlesticks"
_KEY = re.compile(
    rf"{_ROOT}/(?P<grain>daily|monthly)/\d+/(?P<symbol>[^/]+)-candlesticks-(?P<date>\d{{4}}-\d{{2}}(?:-\d{{2}})?)\.zip"
)
_MINUTE = Interval.parse("1m")
_HONG_KONG = 8 * HOUR
_HEADER = b"instrument_name,open,high,low,close,vol,vol_ccy,vol_quote,open_time,confirm\n"


@attrs.frozen
class OkxPath(ArchivePath):
    """One zip file with the candles of a day or month in Hong Kong; none of them is listed or has a digest.

    >>> month = "cdn/okex/traderecords/candlesticks/monthly/202401/BTC-USDT-candlesticks-2024-01.zip"
    >>> path = OkxPath.parse(month)
    >>> path.symbol, str(path.span)
    ('BTC-USDT', '[2023-12-31T16:00:00Z, 2024-01-31T16:00:00Z)')
    """

    has_digest: ClassVar[bool] = False

    @classmethod
    def parse(cls, key: str) -> OkxPath | None:
        """Return the path that a key names; None if no file can have this key."""
        found = _KEY.fullmatch(key)
        if found is None:
            return None
        try:
            midnight = int(np.datetime64(found["date"], "ms").astype(np.int64))
        except ValueError:
            return None
        start = midnight - _HONG_KONG
        path = cls("okx", found["grain"], "candlesticks", found["symbol"], _MINUTE, start)
        return path if path.key == key else None

    @property
    def span(self) -> Span:
        """The day or month of the file, which begins at 16:00 UTC."""
        return Span(self.start, GRAINS[self.grain].shift(self.start + _HONG_KONG, 1) - _HONG_KONG)

    @property
    def directory(self) -> str:
        """The part of the key before the name, such as `…/candlesticks/daily/20240131/`."""
        return f"{_ROOT}/{self.grain}/{self._date.replace('-', '')}/"

    @property
    def _date(self) -> str:
        return self._label(self.start + _HONG_KONG)

    @property
    def _stem(self) -> str:
        return f"{self.symbol}-candlesticks-{self._date}"


def parse_path(key: str) -> ArchivePath | None:
    """Return the path that a key of Binance's or OKX's tree names; None if no file can have this key."""
    return (OkxPath if key.startswith(_ROOT) else ArchivePath).parse(key)


def read_okx_csv(market: Market, symbol: str, path: OkxPath) -> CsvText:
    """Return the file of a path with the candles of a market's symbol and the numbers of the API."""
    table = market.rows("ohlcv", symbol, _MINUTE, Window(path.span.start, path.span.end))
    parts: list[str | RenderedColumn] = [path.symbol]
    for value in candle_values(table, swap=path.symbol.endswith("-SWAP")):
        parts += [",", value]
    return CsvText(
        _HEADER, table.times, write_rows(len(table), *parts, ",", FixedPointColumn(table.times), ",1\n")
    )
