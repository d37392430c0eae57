"""A Fetcher that returns rendered pages without a network, to count the cost of everything else."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from marketfetch.testing import GeneratedMarket, Window
from marketfetch.testing.venues.klines import KlineRenderer, KlineSeries
from marketfetch.values.http import Egress, Request, Response
from marketfetch.values.intervals import Interval

__all__ = ["NOW", "CannedFetcher"]

NOW = 1_790_000_000_000
_LISTING = (
    b'{"symbols":[{"symbol":"BTCUSDT","baseAsset":"BTC","quoteAsset":"USDT","onboardDate":1577836800000}]}'
)


class CannedFetcher:
    """Answers for Binance USD-M and one symbol; a second run over the same span gets cached pages."""

    def __init__(self) -> None:
        self._rendered = KlineRenderer(GeneratedMarket(["BTCUSDT"]))
        self._pages: dict[str, bytes] = {}
        self.pages = 0

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[None]:
        yield

    async def fetch(self, request: Request, egress: Egress) -> Response:
        await anyio.lowlevel.checkpoint()  # yield to the event loop, like a real request
        if request.path.endswith("time"):
            return Response(200, {}, b'{"serverTime":%d}' % NOW, NOW, NOW)
        if request.path.endswith("exchangeInfo"):
            return Response(200, {}, _LISTING, NOW, NOW)
        self.pages += 1
        key = request.url
        if key not in self._pages:
            self._pages[key] = self._page(request)
        return Response(200, {}, self._pages[key], NOW, NOW)

    def _page(self, request: Request) -> bytes:
        start, end, limit = (int(request.params[name]) for name in ("startTime", "endTime", "limit"))
        series = KlineSeries("ohlcv", "BTCUSDT", Interval.parse("1m"))
        return b"[" + self._rendered.rows(series, Window(start, end + 1, limit), NOW)[:-1] + b"]"
