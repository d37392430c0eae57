"""Write rows of a market as the text of an archive's CSV files."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.testing.archives.paths import CANDLES, ArchivePath
from marketfetch.testing.markets.decimal_text import FixedPointColumn, RenderedColumn, TextColumn, write_rows
from marketfetch.testing.markets.market import Market, MarketRows, Window
from marketfetch.values.intervals import Interval

__all__ = ["CsvText", "has_rows", "read_csv"]

_HEADERS = {
    **dict.fromkeys(
        CANDLES,
        b"open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
        b"taker_buy_quote_volume,ignore\n",
    ),
    "fundingRate": b"calc_time,funding_interval_hours,last_funding_rate\n",
    "metrics": b"create_time,symbol,sum_open_interest,sum_open_interest_value,"
    b"count_toptrader_long_short_ratio,sum_toptrader_long_short_ratio,count_long_short_ratio,"
    b"sum_taker_long_short_vol_ratio\n",
}
_HEADERS_SINCE = 1_654_041_600_000
"""2022-06-01: candle files of earlier days have no header and were not written anew."""
_MICROSECONDS_SINCE = 1_735_689_600_000
"""2025-01-01: times in spot files are microseconds from here on."""
_STARTS_SINCE = 1_782_345_600_000
"""2026-06-25: `create_time` of USD-M metrics is the start of a period from here on, before that its end."""
_DATASETS = {**CANDLES, "candlesticks": "ohlcv"}
_METRICS = Interval.parse("5m")
_STATISTICS = ("open_interest", "top_account_ratio", "top_position_ratio", "long_short_ratio")


@attrs.frozen(eq=False)
class CsvText:
    """The text of one CSV file. `times` are the moments of its rows (UTC ms), for metrics period starts."""

    header: bytes
    times: NDArray[np.int64]
    rows: bytes

    @property
    def lines(self) -> list[bytes]:
        """The rows, each with its line end."""
        return self.rows.splitlines(keepends=True)

    @property
    def text(self) -> bytes:
        """The whole text, with a line end behind the last row."""
        return self.header + self.rows


def read_csv(market: Market, symbol: str, path: ArchivePath) -> CsvText:
    """Return the file of a path with the rows of a market's symbol, all with their final values.

    The text of a number is that which the simulated exchange sends.
    """
    if path.type == "metrics":
        times, rows = _metrics(market, symbol, path)
    else:
        window = Window(path.span.start, path.span.end)
        table = market.rows(_dataset(path), symbol, path.interval, window)
        if path.type in CANDLES:
            times, rows = table.times, _candles(table, path)
        else:
            times, rows = _funding(table)
    return CsvText(_header(path), times, rows)


def has_rows(market: Market, symbol: str, path: ArchivePath) -> bool:
    """Whether a market has rows of a symbol in the span of a file."""
    window = Window(path.span.start, path.span.end, limit=1)
    if path.type == "metrics":
        return len(market.rows("taker_volume", symbol, _METRICS, window)) > 0
    return len(market.rows(_dataset(path), symbol, path.interval, window)) > 0


def _dataset(path: ArchivePath) -> str:
    return _DATASETS.get(path.type, "funding_rate")


def _header(path: ArchivePath) -> bytes:
    bare = path.section == "spot" or (path.type in CANDLES and path.start < _HEADERS_SINCE)
    return b"" if bare else _HEADERS[path.type]


def _candles(table: MarketRows, path: ArchivePath) -> bytes:
    column, opens = table.columns, table.times
    if path.interval.length is not None:
        ends = opens + path.interval.length
    else:
        ends = np.array([path.interval.shift(int(time), 1) for time in opens], np.int64)
    unit = 1000 if path.section == "spot" and path.start >= _MICROSECONDS_SINCE else 1
    parts: list[str | RenderedColumn] = [FixedPointColumn(opens * unit)]
    for name in ("open", "high", "low", "close"):
        parts += [",", column[name]]
    close_times = FixedPointColumn(ends * unit - 1)
    if "volume" not in column:
        # As in the API: no volume, and the count is that of the samples.
        return write_rows(len(table), *parts, ",0,", close_times, ",0,12,0,0,0\n")
    parts += [",", column["volume"], ",", close_times]
    for name in ("quote_volume", "trades", "taker_buy_volume", "taker_buy_quote_volume"):
        parts += [",", column[name]]
    return write_rows(len(table), *parts, ",0\n")


def _funding(table: MarketRows) -> tuple[NDArray[np.int64], bytes]:
    # No column tells a special event from a regular one, so only the regular ones are in the file.
    regular = table.take(np.flatnonzero(table.columns["special"].floats() == 0))
    rate = regular.columns["funding_rate"]
    return regular.times, write_rows(len(regular), FixedPointColumn(regular.times), ",8,", rate, "\n")


def _metrics(market: Market, symbol: str, path: ArchivePath) -> tuple[NDArray[np.int64], bytes]:
    """Write one row for each five minutes that start in the file's day.

    The API stamps taker volume with the start of a period, and all other statistics with its end.
    """
    length = _METRICS.typical
    window = Window(path.span.start, path.span.end)
    later = Window(window.start + length, window.end + length)
    tables: Mapping[str, MarketRows] = {
        name: market.rows(name, symbol, _METRICS, later) for name in _STATISTICS
    }
    taker = market.rows("taker_volume", symbol, _METRICS, window)
    starts: NDArray[np.int64] = taker.times
    for table in tables.values():
        starts = np.intersect1d(starts, table.times - length, assume_unique=True)
    known = {
        name: table.take(np.searchsorted(table.times, starts + length)) for name, table in tables.items()
    }
    ratio = taker.take(np.searchsorted(taker.times, starts)).columns["buy_sell_ratio"]
    by_end = path.section == "futures/um" and path.start < _STARTS_SINCE
    parts: list[str | RenderedColumn] = [_stamps(starts + length if by_end else starts), f",{path.symbol},"]
    parts += [known["open_interest"].columns["open_interest"], ","]
    parts += [known["open_interest"].columns["open_interest_value"], ","]
    for name in _STATISTICS[1:]:
        parts += [known[name].columns["long_short_ratio"], ","]
    return starts, write_rows(len(starts), *parts, ratio, "\n")


def _stamps(times: NDArray[np.int64]) -> TextColumn:
    iso = np.datetime_as_string(times.astype("datetime64[ms]"), unit="s")
    return TextColumn(np.char.replace(iso, "T", " ").astype("S19"))
