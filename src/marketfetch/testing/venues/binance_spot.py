"""Binance's spot market: candles and exchange information."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.testing.markets.market import Market, MarketInstrument
from marketfetch.testing.venues.binance_common import (
    SPOT_INTERVALS,
    BinanceVenue,
    instrument_of,
    interval_of,
    kline_window,
    page_limit,
    rows_reply,
    usual_routes,
)
from marketfetch.testing.venues.klines import KlineSeries, KlineSource
from marketfetch.testing.venues.rate_limiter import LimitRules, RequestCost
from marketfetch.testing.venues.venue import Route

__all__ = ["BinanceSpotVenue"]

_LARGEST_PAGE = 1000


class BinanceSpotVenue(BinanceVenue):
    """The routes under `/api/v3`, as a `Venue`. A limit above 1000 is silently reduced to 1000."""

    def __init__(self, market: Market, rules: LimitRules, klines: KlineSource) -> None:
        pool = rules.spot
        candles = Route(partial(_klines, klines), lambda _: RequestCost(pool, 2))
        super().__init__(
            market, {"/api/v3/klines": candles, **usual_routes("/api/v3", pool, 20, _symbol_info)}
        )


def _klines(klines: KlineSource, market: Market, request: ServerRequest, now: int) -> ServerReply:
    symbol = instrument_of(market, request)
    limit = min(page_limit(request, 500), _LARGEST_PAGE)
    series = KlineSeries("ohlcv", symbol, interval_of(request, SPOT_INTERVALS))
    return rows_reply(klines.rows(series, kline_window(request, now, limit), now))


def _symbol_info(item: MarketInstrument, now: int) -> Mapping[str, object] | None:
    # Spot has no listing date: a client must search the first candle.
    return (
        None
        if item.coin_margined
        else {
            "symbol": item.symbol,
            "status": "TRADING" if item.trades_at(now) else "BREAK",
            "baseAsset": item.base,
            "baseAssetPrecision": 8,
            "quoteAsset": item.quote,
            "quoteAssetPrecision": 8,
            "orderTypes": ["LIMIT", "MARKET"],
            "isSpotTradingAllowed": True,
        }
    )
