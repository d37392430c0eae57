"""Binance's USD-M futures: candles of four datasets, funding, statistics, exchange information."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.testing.markets.decimal_text import FixedPointColumn, RenderedColumn, write_rows
from marketfetch.testing.markets.market import Market, MarketInstrument, MarketRows
from marketfetch.testing.venues.binance_common import (
    BinanceVenue,
    instrument_of,
    kline_window,
    required,
    rows_reply,
    usual_routes,
)
from marketfetch.testing.venues.binance_futures import (
    KlineRules,
    contract_info,
    funding_rows,
    funding_window,
    kline_routes,
    statistic_window,
)
from marketfetch.testing.venues.klines import KlineSource
from marketfetch.testing.venues.rate_limiter import LimitRules, RequestCost
from marketfetch.testing.venues.venue import Route
from marketfetch.values.intervals import EVENT

__all__ = ["BinanceUsdmVenue"]

_STATISTICS = {
    "/futures/data/openInterestHist": "open_interest",
    "/futures/data/globalLongShortAccountRatio": "long_short_ratio",
    "/futures/data/topLongShortAccountRatio": "top_account_ratio",
    "/futures/data/topLongShortPositionRatio": "top_position_ratio",
    "/futures/data/takerlongshortRatio": "taker_volume",
}


class BinanceUsdmVenue(BinanceVenue):
    """The routes under `/fapi/v1` and `/futures/data`, as a `Venue`."""

    def __init__(self, market: Market, rules: LimitRules, klines: KlineSource) -> None:
        candles = KlineRules(klines, kline_window, instrument_of)
        routes = {
            **kline_routes("/fapi/v1", rules.futures, rules, candles),
            **{
                path: Route(partial(_statistic, dataset), lambda _: RequestCost(rules.futures_statistics, 1))
                for path, dataset in _STATISTICS.items()
            },
            "/fapi/v1/fundingRate": Route(_funding, lambda _: RequestCost(rules.usdm_funding, 1)),
            **usual_routes("/fapi/v1", rules.futures, 1, _symbol_info),
        }
        super().__init__(market, routes)


def _funding(market: Market, request: ServerRequest, now: int) -> ServerReply:
    window = funding_window(request, now)
    symbols = [instrument_of(market, request)] if "symbol" in request.params else list(market.instruments)
    tables = [(symbol, market.rows("funding_rate", symbol, EVENT, window)) for symbol in symbols]
    if len(tables) == 1:
        return rows_reply(funding_rows(*tables[0]))
    # All symbols: sort the rows of all symbols by time, and apply the window again.
    times = np.concatenate([table.times for _, table in tables]) if tables else np.empty(0, np.int64)
    lines = [line for symbol, table in tables for line in _lines(funding_rows(symbol, table))]
    order = np.argsort(times, kind="stable")
    chosen = order[window.cut(times[order])]
    return rows_reply(b"".join(lines[row] for row in chosen))


def _lines(rows: bytes) -> list[bytes]:
    return [line + b"}," for line in rows.split(b"},")[:-1]]


def _statistic(dataset: str, market: Market, request: ServerRequest, now: int) -> ServerReply:
    symbol = required(request, "symbol").upper()
    interval, window = statistic_window(dataset, request, now)
    if symbol not in market.instruments:
        return rows_reply(b"")
    return rows_reply(_statistic_rows(dataset, symbol, market.rows(dataset, symbol, interval, window)))


def _statistic_rows(dataset: str, symbol: str, table: MarketRows) -> bytes:
    column = table.columns
    stamp: list[str | RenderedColumn] = ['timestamp":', FixedPointColumn(table.times), "},"]
    head: list[str | RenderedColumn]
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


def _symbol_info(item: MarketInstrument, now: int) -> Mapping[str, object] | None:
    status = "TRADING" if item.trades_at(now) else "SETTLING"
    return None if item.coin_margined else {**contract_info(item), "status": status}
