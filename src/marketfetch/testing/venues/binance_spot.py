"""Binance's spot market: candles and exchange information."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.testing.markets.market import Market
from marketfetch.testing.venues.binance_common import (
    Route,
    answer_with,
    instrument_of,
    interval_of,
    json_reply,
    kline_window,
    page_limit,
    refusal,
    rows_reply,
)
from marketfetch.testing.venues.klines import KlineSeries, KlineSource
from marketfetch.testing.venues.rate_limiter import Decision, LimitRules, RequestCost

__all__ = ["BinanceSpotVenue"]

_LARGEST_PAGE = 1000


class BinanceSpotVenue:
    """The routes under `/api/v3`, as a `Venue`. A limit above 1000 is silently reduced to 1000."""

    def __init__(self, market: Market, rules: LimitRules, klines: KlineSource) -> None:
        self._market = market
        self._rules = rules
        self._routes: Mapping[str, Route] = {
            "/api/v3/klines": Route(partial(_klines, klines), lambda _: RequestCost(rules.spot, 2)),
            "/api/v3/exchangeInfo": Route(
                partial(_exchange_info, rules), lambda _: RequestCost(rules.spot, 20)
            ),
            "/api/v3/time": Route(
                lambda _m, _r, now: json_reply({"serverTime": now}), lambda _: RequestCost(rules.spot, 1)
            ),
            "/api/v3/ping": Route(lambda *_: json_reply({}), lambda _: RequestCost(rules.spot, 1)),
        }

    def serves(self, path: str) -> bool:
        return path in self._routes

    def charge(self, request: ServerRequest) -> RequestCost:
        return self._routes[request.path].charge(request)

    def answer(self, request: ServerRequest, now: int) -> ServerReply:
        return answer_with(self._routes, self._market, request, now)

    def refuse(self, request: ServerRequest, verdict: Decision, now: int) -> ServerReply:
        return refusal(request, verdict, f"{self._rules.spot_weight} request weight per 1 MINUTE", now)

    def rate_limit_headers(self, charge: RequestCost, verdict: Decision) -> Mapping[str, str]:
        used = str(verdict.used)
        return {"x-mbx-used-weight": used, "x-mbx-used-weight-1m": used}


def _klines(klines: KlineSource, market: Market, request: ServerRequest, now: int) -> ServerReply:
    symbol = instrument_of(market, request)
    limit = min(page_limit(request, 500), _LARGEST_PAGE)
    series = KlineSeries("ohlcv", symbol, interval_of(request))
    return rows_reply(klines.rows(series, kline_window(request, now, limit), now))


def _exchange_info(rules: LimitRules, market: Market, _request: ServerRequest, now: int) -> ServerReply:
    limits = {
        "rateLimitType": "REQUEST_WEIGHT",
        "interval": "MINUTE",
        "intervalNum": 1,
        "limit": rules.spot_weight,
    }
    # Spot has no listing date: a client must search the first candle.
    symbols = [
        {
            "symbol": item.symbol,
            "status": "TRADING" if item.trades_at(now) else "BREAK",
            "baseAsset": item.base,
            "baseAssetPrecision": 8,
            "quoteAsset": item.quote,
            "quoteAssetPrecision": 8,
            "orderTypes": ["LIMIT", "MARKET"],
            "isSpotTradingAllowed": True,
        }
        for item in market.instruments.values()
        if item.listed_at <= now
    ]
    return json_reply({"timezone": "UTC", "serverTime": now, "rateLimits": [limits], "symbols": symbols})
