"""Common to Binance's venues: routes, refusals, errors, parameters, candle windows, the listing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec

from marketfetch.testing.http.messages import ServerReply, ServerRequest, json_reply
from marketfetch.testing.markets.market import Market, MarketInstrument, Window
from marketfetch.testing.venues.rate_limiter import Decision, Pool, RequestCost
from marketfetch.testing.venues.venue import ApiError, Route, Venue, integer
from marketfetch.values.intervals import Interval

__all__ = [
    "INTERVALS",
    "SPOT_INTERVALS",
    "BinanceVenue",
    "SymbolInfo",
    "illegal",
    "instrument_of",
    "interval_of",
    "invalid",
    "kline_window",
    "moment",
    "page_limit",
    "required",
    "rows_reply",
    "usual_routes",
]

INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
SPOT_INTERVALS = ("1s", *INTERVALS)
SymbolInfo = Callable[[MarketInstrument, int], Mapping[str, object] | None]
"""Makes the entry of an instrument in the listing; None if the venue does not trade it."""


class BinanceVenue(Venue):
    """A `Venue` made of routes. An ApiError becomes Binance's `{"code": …, "msg": …}`."""

    def error(self, refused: ApiError) -> ServerReply:
        return json_reply({"code": refused.code, "msg": refused.message}, refused.status)

    def refuse(self, request: ServerRequest, verdict: Decision, now: int) -> ServerReply:
        """Return 429 if a budget is exceeded, and 418 if the address is banned."""
        if verdict.banned_until is not None:
            status, text = 418, f"Way too much request weight used; IP banned until {verdict.banned_until}."
        else:
            pool = self.charge(request).pool
            period = "minute" if pool.name == "weight" else "5 minutes"
            budget = f"{pool.budget} requests per {period}"
            status, text = 429, f"Too many requests; current limit of IP({request.client}) is {budget}."
        advice = "Please use the websocket for live updates to avoid"
        message = f"{text} {advice} {'bans' if status == 418 else 'polling the API'}."
        headers = {"Retry-After": str(verdict.retry_after(now))}
        return json_reply({"code": -1003, "msg": message}, status, headers)

    def rate_limit_headers(self, charge: RequestCost, verdict: Decision) -> Mapping[str, str]:
        # Funding and statistics, where they have their own pools, send no header with the used budget.
        return {"X-MBX-USED-WEIGHT-1M": str(verdict.used)} if charge.pool.name == "weight" else {}


def usual_routes(prefix: str, pool: Pool, listing_weight: int, symbol_info: SymbolInfo) -> dict[str, Route]:
    """Return the routes that all venues have: the clock, and the listing made by `symbol_info`."""
    one = RequestCost(pool, 1)
    return {
        f"{prefix}/exchangeInfo": Route(
            partial(_exchange_info, pool, symbol_info), lambda _: RequestCost(pool, listing_weight)
        ),
        f"{prefix}/time": Route(lambda _m, _r, now: json_reply({"serverTime": now}), lambda _: one),
        f"{prefix}/ping": Route(lambda *_: json_reply({}), lambda _: one),
    }


def _exchange_info(
    pool: Pool, symbol_info: SymbolInfo, market: Market, _request: ServerRequest, now: int
) -> ServerReply:
    limits = {
        "rateLimitType": "REQUEST_WEIGHT",
        "interval": "MINUTE",
        "intervalNum": 1,
        "limit": pool.budget,
    }
    listed = [item for item in market.instruments.values() if item.listed_at <= now]
    symbols = [info for item in listed if (info := symbol_info(item, now)) is not None]
    return json_reply({"timezone": "UTC", "serverTime": now, "rateLimits": [limits], "symbols": symbols})


def rows_reply(rows: bytes) -> ServerReply:
    """Return a reply with an array of rows, each of which ends with a comma."""
    return json_reply(msgspec.Raw(b"[" + rows[:-1] + b"]"))


def illegal(name: str) -> ApiError:
    """Return the error for a parameter that is not a number."""
    return ApiError(
        400, -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
    )


def invalid(name: str) -> ApiError:
    """Return the error for a parameter out of its range."""
    return ApiError(400, -1130, f"Data sent for parameter '{name}' is not valid.")


def required(request: ServerRequest, name: str) -> str:
    """Return a mandatory parameter."""
    if value := request.params.get(name):
        return value
    text = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
    raise ApiError(400, -1102, text)


def moment(request: ServerRequest, name: str) -> int | None:
    """Return an optional time in milliseconds."""
    text = request.params.get(name)
    value = integer(text)
    if text is not None and value is None:
        raise illegal(name)
    return value


def page_limit(request: ServerRequest, default: int) -> int:
    """Return `limit`, which must be at least 1."""
    limit = moment(request, "limit")
    if limit == 0:
        raise invalid("limit")
    return default if limit is None else limit


def instrument_of(market: Market, request: ServerRequest, name: str = "symbol") -> str:
    """Return the symbol of an existing instrument; upper and lower case are the same."""
    symbol = required(request, name).upper()
    if symbol not in market.instruments:
        raise ApiError(400, -1121, "Invalid symbol.")
    return symbol


def interval_of(request: ServerRequest, names: Sequence[str] = INTERVALS) -> Interval:
    """Return the interval, one of `names`; its case matters."""
    text = required(request, "interval")
    if text not in names:
        raise ApiError(400, -1120, "Invalid interval.")
    return Interval.parse(text)


def kline_window(request: ServerRequest, now: int, limit: int) -> Window:
    """Return the window of a candle request.

    Start and end are inclusive open times. With a start the oldest rows are returned, without it the newest.
    The window includes the candle that is still forming.
    """
    start, end = moment(request, "startTime"), moment(request, "endTime")
    return Window(start or 0, (now if end is None else min(end, now)) + 1, limit, newest=start is None)
