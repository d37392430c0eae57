"""Kline pages as text: rendered in large blocks, which are kept, and cut into the pages asked for."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.testing.markets.decimal_text import Column, FixedPointColumn, write_rows
from marketfetch.testing.markets.market import Market, MarketRows, Window
from marketfetch.values.intervals import Interval

__all__ = ["KlineCache", "KlineSeries"]

_BLOCK_ROWS = 8192
_WORTH_A_BLOCK = 99
_Key: TypeAlias = tuple[str, str, str, int]


@attrs.frozen
class KlineSeries:
    """Which klines: of a dataset, a symbol and an interval."""

    dataset: str
    symbol: str
    interval: Interval


@attrs.frozen(eq=False)
class _Block:
    """Consecutive finished klines: row i is `text[edges[i]:edges[i + 1]]`."""

    times: NDArray[np.int64]
    text: bytes
    edges: NDArray[np.int64]

    @classmethod
    def of(cls, table: MarketRows, interval: Interval) -> _Block:
        text = _write(table, interval)
        ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("]")) + len("],")
        return cls(table.times, text, np.append(0, ends))


class KlineCache:
    """Writes windows of klines as Binance's JSON rows, each with a comma behind it.

    NumPy's cost is per call: a page of 500 rows costs nearly what 8,000 rows cost. Finished klines are
    therefore rendered in blocks, of which the most recently used ones are kept in `cache_bytes` of memory.
    """

    def __init__(self, market: Market, cache_bytes: int = 2**28) -> None:
        self._market = market
        self._room = cache_bytes
        self._blocks: OrderedDict[_Key, _Block] = OrderedDict()

    def rows(self, series: KlineSeries, window: Window, now: int) -> bytes:
        """Return the rows of a window that ends at `now` (UTC ms) at the latest."""
        length, limit = series.interval.length, window.limit
        if window.newest or length is None or limit is None or limit < _WORTH_A_BLOCK:
            return self._direct(series, window, now)
        parts: list[bytes] = []
        start, left = window.start, limit
        while left and start < window.end:
            number = start // (length * _BLOCK_ROWS)
            end = (number + 1) * length * _BLOCK_ROWS
            if end > series.interval.floor(now):
                parts.append(self._direct(series, attrs.evolve(window, start=start, limit=left), now))
                break
            block = self._block(series, number, end)
            rows = attrs.evolve(window, start=start, limit=left).cut(block.times)
            parts.append(block.text[block.edges[rows.start] : block.edges[rows.stop]])
            left -= rows.stop - rows.start
            start = end if len(block.times) else self._next_kline(series, end, window.end)
        return b"".join(parts)

    def _direct(self, series: KlineSeries, window: Window, now: int) -> bytes:
        table = self._market.rows(series.dataset, series.symbol, series.interval, window)
        forming = len(table) > 0 and int(table.times[-1]) >= series.interval.floor(now)
        return _write(table.unfinished() if forming else table, series.interval)

    def _next_kline(self, series: KlineSeries, start: int, end: int) -> int:
        """Return where to go on when there is nothing here, e.g. before the listing."""
        table = self._market.rows(series.dataset, series.symbol, series.interval, Window(start, end, 1))
        return int(table.times[0]) if len(table) else end

    def _block(self, series: KlineSeries, number: int, end: int) -> _Block:
        key = (series.dataset, series.symbol, series.interval.name, number)
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        length = series.interval.typical
        window = Window(end - length * _BLOCK_ROWS, end)
        table = self._market.rows(series.dataset, series.symbol, series.interval, window)
        block = self._blocks[key] = _Block.of(table, series.interval)
        self._room -= len(block.text)
        while self._room < 0 and len(self._blocks) > 1:
            self._room += len(self._blocks.popitem(last=False)[1].text)
        return block


def _write(table: MarketRows, interval: Interval) -> bytes:
    column = table.columns
    if interval.length is not None:
        closes = table.times + (interval.length - 1)
    else:
        closes = np.array([interval.shift(int(time), 1) - 1 for time in table.times], np.int64)
    prices: list[str | Column] = [
        "[",
        FixedPointColumn(table.times),
        ',"',
        column["open"],
        '","',
        column["high"],
    ]
    prices += ['","', column["low"], '","', column["close"], '","']
    if "volume" not in column:
        # The marks have no volume; the count is that of their samples, one every five seconds.
        return write_rows(len(table), *prices, '0",', FixedPointColumn(closes), ',"0",12,"0","0","0"],')
    flow: list[str | Column] = [
        column["volume"],
        '",',
        FixedPointColumn(closes),
        ',"',
        column["quote_volume"],
        '",',
    ]
    flow += [column["trades"], ',"', column["taker_buy_volume"], '","', column["taker_buy_quote_volume"]]
    return write_rows(len(table), *prices, *flow, '","0"],')
