"""Cache rendered candles, so that the simulated exchange is not the bottleneck of a benchmark."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.testing import Market, Window
from marketfetch.testing.venues.klines import KlineRenderer, KlineSeries, write_klines

__all__ = ["BLOCK_ROWS", "CachedKlines"]

BLOCK_ROWS = 8192
_SMALLEST_PAGE = 99
"""Smaller pages are rendered directly: a whole block would cost more."""
_Key: TypeAlias = tuple[str, str, str, int]


@attrs.frozen(eq=False)
class _Block:
    """Consecutive closed candles: row i is `text[edges[i]:edges[i + 1]]`."""

    times: NDArray[np.int64]
    text: bytes
    edges: NDArray[np.int64]


@attrs.define(eq=False)
class CachedKlines:
    """A `KlineSource` that renders blocks of candles once and cuts pages out of them.

    The most recently used blocks are kept in `cache_bytes` of memory. Example: the second request for a page
    of 1500 candles costs 0.02 ms, while rendering it takes 0.7 ms. The market must not revise closed candles.
    """

    market: Market
    cache_bytes: int = 2**30
    _blocks: OrderedDict[_Key, _Block] = attrs.field(factory=OrderedDict, init=False)
    _direct: KlineRenderer = attrs.field(init=False)
    _free: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._direct, self._free = KlineRenderer(self.market), self.cache_bytes

    def rows(self, series: KlineSeries, window: Window, now: int) -> bytes:
        """Return the rows of a window, from blocks as far as their candles are closed."""
        length, limit = series.interval.length, window.limit
        if window.newest or length is None or limit is None or limit < _SMALLEST_PAGE:
            return self._direct.rows(series, window, now)
        parts: list[bytes] = []
        start, left = window.start, limit
        while left and start < window.end:
            number = start // (length * BLOCK_ROWS)
            end = (number + 1) * length * BLOCK_ROWS
            if end > series.interval.floor(now):  # the block has candles that are not closed
                parts.append(self._direct.rows(series, attrs.evolve(window, start=start, limit=left), now))
                break
            block = self._block(series, number, end)
            rows = attrs.evolve(window, start=start, limit=left).cut(block.times)
            parts.append(block.text[block.edges[rows.start] : block.edges[rows.stop]])
            left -= rows.stop - rows.start
            start = end if len(block.times) else self._next_candle(series, end, window.end)
        return b"".join(parts)

    def _next_candle(self, series: KlineSeries, start: int, end: int) -> int:
        """Return the first candle after an empty block, such as one before the listing."""
        table = self.market.rows(series.dataset, series.symbol, series.interval, Window(start, end, 1))
        return int(table.times[0]) if len(table) else end

    def _block(self, series: KlineSeries, number: int, end: int) -> _Block:
        key = (series.dataset, series.symbol, series.interval.name, number)
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        window = Window(end - series.interval.typical * BLOCK_ROWS, end)
        table = self.market.rows(series.dataset, series.symbol, series.interval, window)
        text = write_klines(table, series.interval)
        ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("]")) + len("],")
        block = self._blocks[key] = _Block(table.times, text, np.append(0, ends))
        self._free -= len(text)
        while self._free < 0 and len(self._blocks) > 1:
            self._free += len(self._blocks.popitem(last=False)[1].text)
        return block
