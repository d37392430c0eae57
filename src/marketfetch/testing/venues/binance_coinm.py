"""Binance's COIN-M futures: candles of four datasets, funding, statistics, exchange information."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.testing.markets.coin_margined import CoinMarginedMarket, contract_worth
from marketfetch.testing.markets.decimal_text import FixedPointColumn, RenderedColumn, write_rows
from marketfetch.testing.markets.market import Market, MarketInstrument, MarketRows, Window
from marketfetch.testing.venues.binance_common import (
    BinanceVenue,
    instrument_of,
    invalid,
    moment,
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
from marketfetch.testing.venues.venue import ApiError, Route
from marketfetch.values.intervals import EVENT

__all__ = ["BinanceCoinmVenue"]

_LONGEST_WINDOW = 200 * 86_400_000
_STATISTICS = {
    "/futures/data/openInterestHist": "open_interest",
    "/futures/data/globalLongShortAccountRatio": "long_short_ratio",
    "/futures/data/takerBuySellVol": "taker_volume",
}
_CONTRACT_TYPES = ("PERPETUAL", "CURRENT_QUARTER", "NEXT_QUARTER")


class BinanceCoinmVenue(BinanceVenue):
    """The routes under `/dapi/v1` and `/futures/data`, as a `Venue`; `klines` has the rows of `market`.

    The host of USD-M also has routes under `/futures/data`. At the address that all venues share, a request
    that names a `pair` is meant for COIN-M, and one that names a `symbol` for USD-M.
    """

    def __init__(self, market: CoinMarginedMarket, rules: LimitRules, klines: KlineSource) -> None:
        candles = KlineRules(klines, _kline_window, _contract)
        routes = {
            **kline_routes("/dapi/v1", rules.futures, rules, candles),
            **{
                path: Route(partial(_statistic, dataset), lambda _: RequestCost(rules.futures_statistics, 1))
                for path, dataset in _STATISTICS.items()
            },
            "/dapi/v1/fundingRate": Route(_funding, lambda _: RequestCost(rules.futures, 1)),
            **usual_routes("/dapi/v1", rules.futures, 1, _symbol_info),
        }
        super().__init__(market, routes)

    def serves(self, request: ServerRequest) -> bool:
        return super().serves(request) and (request.path not in _STATISTICS or "pair" in request.params)


def _contract(market: Market, request: ServerRequest, name: str) -> str:
    """Return the contract that a request names; of a pair the perpetual one, for all have the same index."""
    return instrument_of(market, request) if name == "symbol" else _perpetual(market, request)


def _perpetual(market: Market, request: ServerRequest) -> str:
    symbol = f"{required(request, 'pair').upper()}_PERP"
    if symbol not in market.instruments:
        raise ApiError(400, -1121, "Invalid symbol.")
    return symbol


def _kline_window(request: ServerRequest, now: int, limit: int) -> Window:
    """Return the window of a candle request: the newest rows of at most 200 days.

    A start without an end ends 200 days later, an end without a start begins 200 days earlier.
    """
    start, end = moment(request, "startTime"), moment(request, "endTime")
    if end is None:
        end = now if start is None else start + _LONGEST_WINDOW
    if start is None:
        start = max(0, end - _LONGEST_WINDOW)
    if end - start > _LONGEST_WINDOW:
        raise ApiError(400, -4088, "Maximum time interval is 200 days.")
    return Window(start, min(end, now) + 1, limit, newest=True)


def _funding(market: Market, request: ServerRequest, now: int) -> ServerReply:
    symbol = instrument_of(market, request)
    window = funding_window(request, now)
    if not symbol.endswith("_PERP"):
        return rows_reply(b"")
    return rows_reply(funding_rows(symbol, market.rows("funding_rate", symbol, EVENT, window)))


def _statistic(dataset: str, market: Market, request: ServerRequest, now: int) -> ServerReply:
    """Answer a request for a statistic; ratios are those of the pair, all else has a contract type.

    Only the perpetual contracts of the market have statistics. The exchange itself sums up all contract types
    for a request without one, which no client may take for one of them: here it is an error.
    """
    pair = required(request, "pair").upper()
    interval, window = statistic_window(dataset, request, now)
    kind = "PERPETUAL" if dataset == "long_short_ratio" else required(request, "contractType")
    if kind not in _CONTRACT_TYPES:
        raise invalid("contractType")
    if kind != "PERPETUAL" or f"{pair}_PERP" not in market.instruments:
        return rows_reply(b"")
    table = market.rows(dataset, f"{pair}_PERP", interval, window)
    return rows_reply(_statistic_rows(dataset, pair, table))


def _statistic_rows(dataset: str, pair: str, table: MarketRows) -> bytes:
    column = table.columns
    head: list[str | RenderedColumn]
    if dataset == "long_short_ratio":
        head = [f'{{"pair":"{pair}","longShortRatio":"', column["long_short_ratio"], '","longAccount":"']
        head += [column["long_account"], '","shortAccount":"', column["short_account"]]
    elif dataset == "open_interest":
        head = [f'{{"pair":"{pair}","contractType":"PERPETUAL","sumOpenInterest":"', column["open_interest"]]
        head += ['","sumOpenInterestValue":"', column["open_interest_value"]]
    else:
        head = [f'{{"pair":"{pair}","contractType":"PERPETUAL","takerBuyVol":"', column["buy_contracts"]]
        head += ['","takerSellVol":"', column["sell_contracts"], '","takerBuyVolValue":"']
        head += [column["buy_volume"], '","takerSellVolValue":"', column["sell_volume"]]
    return write_rows(len(table), *head, '","timestamp":', FixedPointColumn(table.times), "},")


def _symbol_info(item: MarketInstrument, now: int) -> Mapping[str, object]:
    return {
        **contract_info(item),
        "contractType": "PERPETUAL" if item.symbol.endswith("_PERP") else "CURRENT_QUARTER",
        "contractStatus": "TRADING" if item.trades_at(now) else "DELIVERED",
        "contractSize": contract_worth(item),
        "quantityPrecision": 0,
    }
