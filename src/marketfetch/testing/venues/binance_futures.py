"""Common to Binance's futures venues: candles of four datasets, funding, statistics, the listing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import attrs
import numpy as np

from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.testing.markets.decimal_text import FixedPointColumn, TextColumn, write_rows
from marketfetch.testing.markets.market import Market, MarketInstrument, MarketRows, Window
from marketfetch.testing.venues.binance_common import (
    interval_of,
    invalid,
    moment,
    page_limit,
    required,
    rows_reply,
)
from marketfetch.testing.venues.klines import KlineSeries, KlineSource
from marketfetch.testing.venues.rate_limiter import LimitRules, Pool, RequestCost, kline_weight
from marketfetch.testing.venues.venue import ApiError, Route, integer
from marketfetch.values.intervals import Interval

__all__ = [
    "KlineRules",
    "contract_info",
    "funding_rows",
    "funding_window",
    "kline_routes",
    "statistic_window",
]

_DATASETS = {
    "klines": "ohlcv",
    "premiumIndexKlines": "premium_index",
    "markPriceKlines": "mark_price",
    "indexPriceKlines": "index_price",
}
_NEVER = 4_133_404_800_000
"""`deliveryDate` of an instrument without an announced delisting: the year 2100."""
_PERIODS = ("5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d")
_STATISTICS_REACH = 30 * 86_400_000


@attrs.frozen
class KlineRules:
    """How a venue answers for candles: the source of rows, and how the parameters of a request are read.

    `window` takes the request, the time of the exchange (UTC ms) and the largest number of rows, and returns
    the window. `symbol` takes the name of the parameter, `symbol` or `pair`, and returns the instrument.
    """

    source: KlineSource
    window: Callable[[ServerRequest, int, int], Window]
    symbol: Callable[[Market, ServerRequest, str], str]


def kline_routes(prefix: str, pool: Pool, limits: LimitRules, rules: KlineRules) -> dict[str, Route]:
    """Return the routes of the four kinds of candles; those of the index are requested by pair."""

    def charge(request: ServerRequest) -> RequestCost:
        return RequestCost(pool, kline_weight(integer(request.params.get("limit")), limits.tiers))

    return {
        f"{prefix}/{name}": Route(partial(_klines, rules, dataset), charge)
        for name, dataset in _DATASETS.items()
    }


def _klines(rules: KlineRules, dataset: str, market: Market, request: ServerRequest, now: int) -> ServerReply:
    symbol = rules.symbol(market, request, "pair" if dataset == "index_price" else "symbol")
    limit = _limit(request, 500, most=1500)
    _times(request)
    series = KlineSeries(dataset, symbol, interval_of(request))
    return rows_reply(rules.source.rows(series, rules.window(request, now, limit), now))


def _limit(request: ServerRequest, default: int, *, most: int) -> int:
    limit = page_limit(request, default)
    if limit > most:
        raise invalid("limit")
    return limit


def _times(request: ServerRequest) -> tuple[int | None, int | None]:
    start, end = moment(request, "startTime"), moment(request, "endTime")
    if start is not None and end is not None and start > end:
        raise ApiError(400, -1023, "Start time is greater than end time.")
    return start, end


def funding_window(request: ServerRequest, now: int) -> Window:
    """Return the window of a request for funding events: the oldest from its start, else the newest."""
    start, end = _times(request)
    limit = _limit(request, 100 if request.params else 200, most=1000)
    return Window(start or 0, min(now, now if end is None else end) + 1, limit, newest=start is None)


def funding_rows(symbol: str, table: MarketRows) -> bytes:
    """Write funding events as JSON rows."""
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


def statistic_window(dataset: str, request: ServerRequest, now: int) -> tuple[Interval, Window]:
    """Return the interval and the window of a request for a statistic.

    Reports differ on which rows come if the window has more than `limit` rows, or no end. Here the newest
    ones come: a client that does not bound its windows then loses rows, and the tests show it.
    """
    period = required(request, "period")
    if period not in _PERIODS:
        raise invalid("period")
    limit = _limit(request, 30, most=500)
    start, end = _times(request)
    oldest = now - _STATISTICS_REACH
    if start is not None and start < oldest:
        raise ApiError(400, -1130, "parameter 'startTime' is invalid.")
    interval = Interval.parse(period)
    # Taker volume has the start of its period as timestamp, all other statistics the end.
    known = now - interval.typical if dataset == "taker_volume" else now
    last = known if end is None else min(end, known)
    return interval, Window(max(start or 0, oldest), last + 1, limit, newest=True)


def contract_info(item: MarketInstrument) -> Mapping[str, object]:
    """Return what the listings of both venues say about a contract."""
    return {
        "symbol": item.symbol,
        "pair": item.symbol.partition("_")[0],
        "contractType": "PERPETUAL",
        "deliveryDate": item.delisted_at or _NEVER,
        "onboardDate": item.listed_at,
        "baseAsset": item.base,
        "quoteAsset": item.quote,
        "marginAsset": item.settle,
        "pricePrecision": 8,
        "quantityPrecision": 3,
        "underlyingType": "COIN",
        "orderTypes": ["LIMIT", "MARKET"],
    }
