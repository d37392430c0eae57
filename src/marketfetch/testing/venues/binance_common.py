"""Common to Binance's futures and spot venues: parameters, candle pages, errors, refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import orjson

from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.testing.markets.market import Market, Window
from marketfetch.testing.venues.rate_limiter import Decision, RequestCost
from marketfetch.testing.venues.venue import ApiError, integer
from marketfetch.values.intervals import Interval

__all__ = [
    "INTERVALS",
    "NEVER",
    "Answer",
    "Route",
    "answer_with",
    "illegal",
    "instrument_of",
    "interval_of",
    "invalid",
    "json_reply",
    "kline_window",
    "moment",
    "page_limit",
    "refusal",
    "required",
    "rows_reply",
]

INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
NEVER = 4_133_404_800_000
"""`deliveryDate` of an instrument without an announced delisting: the year 2100."""

Answer = Callable[[Market, ServerRequest, int], ServerReply]


@attrs.frozen
class Route:
    """The handler and the cost function of one path."""

    answer: Answer
    charge: Callable[[ServerRequest], RequestCost]


def answer_with(routes: Mapping[str, Route], market: Market, request: ServerRequest, now: int) -> ServerReply:
    """Return the reply of the request's route; an ApiError becomes Binance's `{"code": …, "msg": …}`."""
    try:
        return routes[request.path].answer(market, request, now)
    except ApiError as refused:
        return json_reply({"code": refused.code, "msg": refused.message}, refused.status)


def json_reply(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> ServerReply:
    """Return a JSON reply."""
    return ServerReply(status, orjson.dumps(content), {"Content-Type": "application/json", **(headers or {})})


def rows_reply(rows: bytes) -> ServerReply:
    """Return a reply with an array of rows, each of which ends with a comma."""
    return ServerReply(200, b"[" + rows[:-1] + b"]", {"Content-Type": "application/json"})


def refusal(request: ServerRequest, verdict: Decision, budget: str, now: int) -> ServerReply:
    """Return 429 if a budget is exceeded, and 418 if the address is banned."""
    headers = {"Retry-After": str(verdict.retry_after(now))}
    if verdict.banned_until is not None:
        text = f"Way too much request weight used; IP banned until {verdict.banned_until}."
        status = 418
    else:
        text = f"Too many requests; current limit of IP({request.client}) is {budget}."
        status = 429
    advice = "Please use the websocket for live updates to avoid"
    message = f"{text} {advice} {'bans' if status == 418 else 'polling the API'}."
    return json_reply({"code": -1003, "msg": message}, status, headers)


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


def interval_of(request: ServerRequest, name: str = "interval") -> Interval:
    """Return the interval; its case matters."""
    text = required(request, name)
    if text not in INTERVALS:
        raise ApiError(400, -1120, "Invalid interval.")
    return Interval.parse(text)


def kline_window(request: ServerRequest, now: int, limit: int) -> Window:
    """Return the window of a candle request.

    Start and end are inclusive open times. With a start the oldest rows are returned, without it the newest.
    The window includes the candle that is still forming.
    """
    start, end = moment(request, "startTime"), moment(request, "endTime")
    return Window(start or 0, (now if end is None else min(end, now)) + 1, limit, newest=start is None)
