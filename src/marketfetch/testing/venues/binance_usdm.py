"""Binance's USD-M futures: candles of four datasets, funding, statistics, exchange information."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.testing.markets.decimal_text import Column, FixedPointColumn, TextColumn, write_rows
from marketfetch.testing.markets.market import Market, MarketInstrument, MarketRows, Window
from marketfetch.testing.venues.binance_common import (
    NEVER,
    Route,
    answer_with,
    instrument_of,
    interval_of,
    invalid,
    json_reply,
    kline_window,
    moment,
    page_limit,
    refusal,
    required,
    rows_reply,
)
from marketfetch.testing.venues.klines import KlineSeries, KlineSource
from marketfetch.testing.venues.rate_limiter import Decision, LimitRules, RequestCost, kline_weight
from marketfetch.testing.venues.venue import ApiError, integer
from marketfetch.values.intervals import EVENT, Interval

__all__ = ["BinanceUsdmVenue"]

_PERIODS = ("5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d")
_STATISTICS_REACH = 30 * 86_400_000
_KLINES = {
    "/fapi/v1/klines": ("ohlcv", "symbol"),
    "/fapi/v1/premiumIndexKlines": ("premium_index", "symbol"),
    "/fapi/v1/markPriceKlines": ("mark_price", "symbol"),
    "/fapi/v1/indexPriceKlines": ("index_price", "pair"),
}
_STATISTICS = {
    "/futures/data/openInterestHist": "open_interest",
    "/futures/data/globalLongShortAccountRatio": "long_short_ratio",
    "/futures/data/topLongShortAccountRatio": "top_account_ratio",
    "/futures/data/topLongShortPositionRatio": "top_position_ratio",
    "/futures/data/takerlongshortRatio": "taker_volume",
}


class BinanceUsdmVenue:
    """The routes under `/fapi/v1` and `/futures/data`, as a `Venue`.

    Reports differ on which rows come for a statistic whose window has more than `limit` rows, or no end. Here
    the newest ones come: a client that does not bound its windows then loses rows, and the tests show it.
    """

    def __init__(self, market: Market, rules: LimitRules, klines: KlineSource) -> None:
        self._market = market
        self._rules = rules
        weigh = partial(_kline_charge, rules)
        single = RequestCost(rules.usdm, 1)
        self._routes: Mapping[str, Route] = {
            **{path: Route(partial(_klines, klines, path), weigh) for path in _KLINES},
            **{
                path: Route(partial(_statistic, dataset), lambda _: RequestCost(rules.usdm_statistics, 1))
                for path, dataset in _STATISTICS.items()
            },
            "/fapi/v1/fundingRate": Route(_funding, lambda _: RequestCost(rules.usdm_funding, 1)),
            "/fapi/v1/exchangeInfo": Route(partial(_exchange_info, rules), lambda _: single),
            "/fapi/v1/time": Route(lambda _m, _r, now: json_reply({"serverTime": now}), lambda _: single),
            "/fapi/v1/ping": Route(lambda *_: json_reply({}), lambda _: single),
        }

    def serves(self, path: str) -> bool:
        return path in self._routes

    def charge(self, request: ServerRequest) -> RequestCost:
        return self._routes[request.path].charge(request)

    def answer(self, request: ServerRequest, now: int) -> ServerReply:
        return answer_with(self._routes, self._market, request, now)

    def refuse(self, request: ServerRequest, verdict: Decision, now: int) -> ServerReply:
        pool = self.charge(request).pool
        return refusal(
            request,
            verdict,
            f"{pool.budget} requests per {'minute' if pool.name == 'weight' else '5 minutes'}",
            now,
        )

    def rate_limit_headers(self, charge: RequestCost, verdict: Decision) -> Mapping[str, str]:
        # Funding and statistics, which have their own pools, send no header with the used budget.
        return {"X-MBX-USED-WEIGHT-1M": str(verdict.used)} if charge.pool.name == "weight" else {}


def _kline_charge(rules: LimitRules, request: ServerRequest) -> RequestCost:
    limit = integer(request.params.get("limit"))
    return RequestCost(rules.usdm, kline_weight(limit, rules.tiers))


def _ordered(start: int | None, end: int | None) -> None:
    if start is not None and end is not None and start > end:
        raise ApiError(400, -1023, "Start time is greater than end time.")


def _klines(klines: KlineSource, path: str, market: Market, request: ServerRequest, now: int) -> ServerReply:
    dataset, name = _KLINES[path]
    symbol = instrument_of(market, request, name)
    limit = page_limit(request, 500)
    if limit > 1500:
        raise invalid("limit")
    _ordered(moment(request, "startTime"), moment(request, "endTime"))
    series = KlineSeries(dataset, symbol, interval_of(request))
    return rows_reply(klines.rows(series, kline_window(request, now, limit), now))


def _funding(market: Market, request: ServerRequest, now: int) -> ServerReply:
    start, end = moment(request, "startTime"), moment(request, "endTime")
    _ordered(start, end)
    limit = page_limit(request, 100 if request.params else 200)
    if limit > 1000:
        raise invalid("limit")
    window = Window(start or 0, min(now, now if end is None else end) + 1, limit, newest=start is None)
    symbols = [instrument_of(market, request)] if "symbol" in request.params else list(market.instruments)
    tables = [(symbol, market.rows("funding_rate", symbol, EVENT, window)) for symbol in symbols]
    if len(tables) == 1:
        return rows_reply(_funding_rows(*tables[0]))
    # All symbols: sort the rows of all symbols by time, and apply the window again.
    times = np.concatenate([table.times for _, table in tables]) if tables else np.empty(0, np.int64)
    lines = [line for symbol, table in tables for line in _lines(_funding_rows(symbol, table))]
    order = np.argsort(times, kind="stable")
    chosen = order[window.cut(times[order])]
    return rows_reply(b"".join(lines[row] for row in chosen))


def _lines(rows: bytes) -> list[bytes]:
    return [line + b"}," for line in rows.split(b"},")[:-1]]


def _funding_rows(symbol: str, table: MarketRows) -> bytes:
    column = table.columns
    kinds = TextColumn(np.where(column["special"].floats() > 0, b"Special", b"Regular"))
    return write_rows(
        len(table),
        f'{{"symbol":"{symbol}","fundingTime":',
        FixedPointColumn(table.times),
        ',"fundingRate":"',
        column["funding_rate"],
        '","markPrice":"',
        column["mark_price"],
        '","rateType":"',
        kinds,
        '"},',
    )


def _statistic(dataset: str, market: Market, request: ServerRequest, now: int) -> ServerReply:
    symbol = required(request, "symbol").upper()
    period = required(request, "period")
    if period not in _PERIODS:
        raise invalid("period")
    limit = page_limit(request, 30)
    if limit > 500:
        raise invalid("limit")
    start, end = moment(request, "startTime"), moment(request, "endTime")
    _ordered(start, end)
    oldest = now - _STATISTICS_REACH
    if start is not None and start < oldest:
        raise ApiError(400, -1130, "parameter 'startTime' is invalid.")
    if symbol not in market.instruments:
        return rows_reply(b"")
    interval = Interval.parse(period)
    # Taker volume has the start of its period as timestamp, all other statistics the end.
    known = now - interval.typical if dataset == "taker_volume" else now
    last = known if end is None else min(end, known)
    window = Window(max(start or 0, oldest), last + 1, limit, newest=True)
    return rows_reply(_statistic_rows(dataset, symbol, market.rows(dataset, symbol, interval, window)))


def _statistic_rows(dataset: str, symbol: str, table: MarketRows) -> bytes:
    column = table.columns
    stamp: list[str | Column] = ['timestamp":', FixedPointColumn(table.times), "},"]
    head: list[str | Column]
    if dataset == "open_interest":
        value = column["open_interest_value"]
        head = [f'{{"symbol":"{symbol}","sumOpenInterest":"', column["open_interest"]]
        head += ['","sumOpenInterestValue":"', value, '","CMCCirculatingSupply":"0","']
    elif dataset == "taker_volume":
        head = ['{"buySellRatio":"', column["buy_sell_ratio"], '","buyVol":"', column["buy_volume"]]
        head += ['","sellVol":"', column["sell_volume"], '","']
    else:
        head = [f'{{"symbol":"{symbol}","longAccount":"', column["long_account"], '","longShortRatio":"']
        head += [column["long_short_ratio"], '","shortAccount":"', column["short_account"], '","']
    return write_rows(len(table), *head, *stamp)


def _exchange_info(rules: LimitRules, market: Market, _request: ServerRequest, now: int) -> ServerReply:
    limits = {
        "rateLimitType": "REQUEST_WEIGHT",
        "interval": "MINUTE",
        "intervalNum": 1,
        "limit": rules.usdm_weight,
    }
    listed = [item for item in market.instruments.values() if item.listed_at <= now]
    symbols = [_symbol_info(instrument, now) for instrument in listed]
    return json_reply({"timezone": "UTC", "serverTime": now, "rateLimits": [limits], "symbols": symbols})


def _symbol_info(instrument: MarketInstrument, now: int) -> dict[str, object]:
    return {
        "symbol": instrument.symbol,
        "pair": instrument.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": instrument.delisted_at or NEVER,
        "onboardDate": instrument.listed_at,
        "status": "TRADING" if instrument.trades_at(now) else "SETTLING",
        "baseAsset": instrument.base,
        "quoteAsset": instrument.quote,
        "marginAsset": instrument.settle,
        "pricePrecision": 8,
        "quantityPrecision": 3,
        "underlyingType": "COIN",
        "orderTypes": ["LIMIT", "MARKET"],
    }
