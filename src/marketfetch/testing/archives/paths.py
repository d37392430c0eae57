"""The names of files in Binance's archive, and what each name says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import attrs
import numpy as np

from marketfetch.testing.venues.binance_common import INTERVALS, SPOT_INTERVALS
from marketfetch.values.intervals import EVENT, Interval
from marketfetch.values.spans import Span

__all__ = [
    "CANDLES",
    "CHECKSUM",
    "DATA_TYPES",
    "GRAINS",
    "SECTIONS",
    "ArchivePath",
    "archived_intervals",
    "data_types",
]

CHECKSUM = ".CHECKSUM"
"""What the name of a digest file has behind the name of its zip file."""
SECTIONS = ("futures/cm", "futures/um", "spot")
GRAINS: Mapping[str, Interval] = MappingProxyType(
    {"daily": Interval.parse("1d"), "monthly": Interval.parse("1M")}
)
"""The calendar pieces into which files cut a series, as intervals."""
CANDLES: Mapping[str, str] = MappingProxyType(
    {
        "klines": "ohlcv",
        "markPriceKlines": "mark_price",
        "indexPriceKlines": "index_price",
        "premiumIndexKlines": "premium_index",
    }
)
"""The dataset of each type of candle file."""
_ONLY = {"fundingRate": "monthly", "metrics": "daily"}
_MONTHLY_ONLY = {"3d", "1w", "1M"}
_MONTH = "1mo"
"""The calendar month in paths and names; the API calls it `1M`."""
_DIGITS = {"daily": 10, "monthly": 7}
_KEY = re.compile(
    rf"data/(?P<section>{'|'.join(SECTIONS)})/(?P<grain>daily|monthly)/(?P<type>\w+)/(?P<symbol>[^/]+)/"
    r"(?:(?P<interval>\w+)/)?(?P=symbol)-(?P<middle>\w+)-(?P<date>\d{4}-\d{2}(?:-\d{2})?)\.zip"
)


DATA_TYPES = (*CANDLES, *_ONLY)
"""All types of files."""


def data_types(section: str, grain: str) -> tuple[str, ...]:
    """Return the types of files below a section, such as those of `data/spot/daily/`.

    >>> data_types("spot", "daily")
    ('klines',)
    """
    if section == "spot":
        return ("klines",)
    return tuple(name for name in DATA_TYPES if _ONLY.get(name, grain) == grain)


def archived_intervals(section: str, grain: str) -> tuple[Interval, ...]:
    """Return the intervals of candle files; daily files exist up to one day."""
    names = SPOT_INTERVALS if section == "spot" else INTERVALS
    return tuple(Interval.parse(name) for name in names if grain == "monthly" or name not in _MONTHLY_ONLY)


@attrs.frozen
class ArchivePath:
    """One zip file of the archive: what its key says.

    `start` is the first moment of the file's day or month (UTC ms).

    >>> path = ArchivePath.parse("data/spot/monthly/klines/BTCUSDT/1mo/BTCUSDT-1mo-2024-01.zip")
    >>> path.interval.name, path.start
    ('1M', 1704067200000)
    >>> path.member
    'BTCUSDT-1mo-2024-01.csv'
    """

    section: str
    grain: str
    type: str
    symbol: str
    interval: Interval
    start: int

    has_digest: ClassVar[bool] = True

    @classmethod
    def parse(cls, key: str) -> ArchivePath | None:
        """Return the path that a key names; None if no file can have this key."""
        found = _KEY.fullmatch(key)
        if found is None or found["type"] not in data_types(found["section"], found["grain"]):
            return None
        intervals = {
            _interval_name(each): each for each in archived_intervals(found["section"], found["grain"])
        }
        interval = intervals.get(found["interval"], EVENT)
        try:
            start = int(np.datetime64(found["date"], "ms").astype(np.int64))
        except ValueError:
            return None
        path = cls(found["section"], found["grain"], found["type"], found["symbol"], interval, start)
        return path if path.key == key else None

    @property
    def span(self) -> Span:
        """The day or month of the file."""
        return Span(self.start, GRAINS[self.grain].shift(self.start, 1))

    @property
    def directory(self) -> str:
        """The part of the key before the name, such as `data/spot/daily/klines/BTCUSDT/1m/`."""
        interval = f"{self._middle}/" if self.type in CANDLES else ""
        return f"data/{self.section}/{self.grain}/{self.type}/{self.symbol}/{interval}"

    @property
    def key(self) -> str:
        """The path below the host."""
        return f"{self.directory}{self.name}"

    @property
    def name(self) -> str:
        """The last part of the key."""
        return f"{self._stem}.zip"

    @property
    def member(self) -> str:
        """The name of the file inside the zip file."""
        return f"{self._stem}.csv"

    @property
    def _middle(self) -> str:
        if self.type not in CANDLES:
            return self.type
        return _interval_name(self.interval)

    @property
    def _stem(self) -> str:
        return f"{self.symbol}-{self._middle}-{self._label(self.start)}"

    def _label(self, midnight: int) -> str:
        """Return the month or day that begins at a midnight, as it is in names."""
        return str(np.datetime64(midnight, "ms"))[: _DIGITS[self.grain]]


def _interval_name(interval: Interval) -> str:
    """Return the name of an interval in paths and names."""
    return _MONTH if interval.name == "1M" else interval.name
