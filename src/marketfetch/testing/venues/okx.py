"""OKX: candles, funding and instruments in OKX's envelope, newest first."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import attrs
import msgspec
import numpy as np

from marketfetch.testing.http.messages import ServerReply, ServerRequest, json_reply
from marketfetch.testing.markets.decimal_text import FixedPointColumn, RenderedColumn, write_rows
from marketfetch.testing.markets.market import Market, MarketInstrument, MarketRows, Window
from marketfetch.testing.venues.rate_limiter import Decision, LimitRules, RequestCost
from marketfetch.testing.venues.venue import Answer, ApiError, Route, Venue, integer
from marketfetch.values.intervals import EVENT, Interval

__all__ = ["OkxVenue", "candle_values"]

_HOUR = 3_600_000
_DAY = 24 * _HOUR
_CONTRACT = 0.01
"""Base coin in one swap contract."""
_CANDLES_REACH = 1440
_FUNDING_REACH = 90 * _DAY
# Bars of six hours and more without `utc` in their name are on the grid of Hong Kong time, UTC+8.
_HONG_KONG = {
    "6H": 6 * _HOUR,
    "12H": 12 * _HOUR,
    "1D": _DAY,
    "2D": 2 * _DAY,
    "3D": 3 * _DAY,
    "1W": 7 * _DAY,
}
_UTC = {
    **{name: name for name in ("1m", "3m", "5m", "15m", "30m")},
    **{f"{n}H": f"{n}h" for n in (1, 2, 4)},
    "6Hutc": "6h",
    "12Hutc": "12h",
    "1Dutc": "1d",
    "2Dutc": "2d",
    "3Dutc": "3d",
    "1Wutc": "1w",
    "1Mutc": "1M",
}


def _bar(request: ServerRequest) -> Interval:
    name = request.params.get("bar", "1m")
    if name in _UTC:
        return Interval.parse(_UTC[name])
    if name in _HONG_KONG:
        monday = 4 * _DAY if name == "1W" else 0
        return Interval(name, _HONG_KONG[name], monday - 8 * _HOUR)
    # Hong Kong's calendar months, 1M and 3M, are not simulated.
    raise ApiError(200, 51000, "Parameter bar error")


class OkxVenue(Venue):
    """The routes under `/api/v5`, as a `Venue`.

    `BTC-USDT` (spot) and `BTC-USDT-SWAP` are two names for the market's BTCUSDT. A page of
    `history-candles` has at most `history_limit` rows; a larger `limit` is cut without a word.
    """

    def __init__(self, market: Market, rules: LimitRules, history_limit: int = 100) -> None:
        def route(answer: Answer, calls: int, *, scope: str = "") -> Route:
            """Allow so many calls in two seconds, for each value of the parameter `scope` if there is one."""

            def charge(request: ServerRequest) -> RequestCost:
                return RequestCost(rules.okx(request.path, calls), 1, request.params.get(scope, ""))

            return Route(answer, charge)

        routes = {
            "/api/v5/market/candles": route(partial(_candles, 300, _CANDLES_REACH), 40),
            "/api/v5/market/history-candles": route(partial(_candles, history_limit, None), 20),
            "/api/v5/public/funding-rate-history": route(_funding, 10, scope="instId"),
            "/api/v5/public/instruments": route(_instruments, 20),
            "/api/v5/public/time": route(lambda _m, _r, now: _envelope([{"ts": str(now)}]), 10),
        }
        super().__init__(market, routes)

    def error(self, refused: ApiError) -> ServerReply:
        return _error(refused.status, refused.code, refused.message)

    def refuse(self, request: ServerRequest, verdict: Decision, now: int) -> ServerReply:
        return _error(429, 50011, "Too Many Requests")

    def rate_limit_headers(self, charge: RequestCost, verdict: Decision) -> Mapping[str, str]:
        return {}


def _envelope(data: object) -> ServerReply:
    return json_reply({"code": "0", "msg": "", "data": data})


def _error(status: int, code: int, message: str) -> ServerReply:
    return json_reply({"code": str(code), "msg": message, "data": []}, status)


def _rows(rows: bytes) -> ServerReply:
    return _envelope(msgspec.Raw(b"[" + rows[:-1] + b"]"))


def _moment(request: ServerRequest, name: str) -> int | None:
    text = request.params.get(name)
    value = integer(text)
    if text and value is None:
        raise ApiError(200, 51000, f"Parameter {name} error")
    return value


def _instrument(market: Market, request: ServerRequest) -> MarketInstrument:
    name = request.params.get("instId", "")
    if not name:
        raise ApiError(200, 50014, "Parameter instId can not be empty.")
    base, _, quote = name.removesuffix("-SWAP").partition("-")
    for item in market.instruments.values():
        if (item.base, item.quote) == (base, quote):
            return item
    raise ApiError(200, 51001, "Instrument ID doesn't exist")


def _window(request: ServerRequest, *, newest: int, oldest: int, most: int) -> Window:
    """Return the window of after/before/limit: rows strictly between them, the newest ones first."""
    after, before, limit = (_moment(request, name) for name in ("after", "before", "limit"))
    if limit == 0:
        raise ApiError(200, 51000, "Parameter limit error")
    end = newest + 1 if after is None else min(after, newest + 1)
    start = oldest if before is None else max(oldest, before + 1)
    return Window(start, end, min(limit or 100, most), newest=True)


def _candles(most: int, reach: int | None, market: Market, request: ServerRequest, now: int) -> ServerReply:
    instrument = _instrument(market, request)
    interval = _bar(request)
    oldest = 0 if reach is None else interval.shift(interval.floor(now), 1 - reach)
    window = _window(request, newest=now, oldest=oldest, most=most)
    table = market.rows("ohlcv", instrument.symbol, interval, window)
    if not len(table):
        return _rows(b"")
    forming = int(table.times[-1]) >= interval.floor(now)
    swap = request.params["instId"].endswith("-SWAP")
    return _rows(_candle_rows(table.unfinished() if forming else table, swap=swap, forming=forming))


def candle_values(table: MarketRows, *, swap: bool) -> list[RenderedColumn]:
    """Return open, high, low, close and the three volumes; the first one of a swap is in contracts."""
    column = table.columns
    volume, turnover = column["volume"], column["quote_volume"]
    flow = [volume, turnover, turnover]
    if swap:
        contracts = FixedPointColumn(np.rint(volume.floats() / _CONTRACT * 10).astype(np.int64), 1)
        flow = [contracts, volume, turnover]
    return [*(column[name] for name in ("open", "high", "low", "close")), *flow]


def _candle_rows(table: MarketRows, *, swap: bool, forming: bool) -> bytes:
    confirm = np.ones(len(table), np.int64)
    confirm[-1] -= forming
    table = MarketRows(table.times, {**table.columns, "confirm": FixedPointColumn(confirm)}).newest_first()
    parts: list[str | RenderedColumn] = ['["', FixedPointColumn(table.times)]
    for value in (*candle_values(table, swap=swap), table.columns["confirm"]):
        parts += ['","', value]
    return write_rows(len(table), *parts, '"],')


def _funding(market: Market, request: ServerRequest, now: int) -> ServerReply:
    instrument = _instrument(market, request)
    name = request.params["instId"]
    if not name.endswith("-SWAP"):
        raise ApiError(200, 51001, "Instrument ID doesn't exist")
    window = _window(request, newest=now, oldest=now - _FUNDING_REACH, most=100)
    # Special events at the time of a regular one exist on Binance alone: keep one event per time here.
    wide = attrs.evolve(window, limit=2 * (window.limit or 0))
    table = market.rows("funding_rate", instrument.symbol, EVENT, wide)
    table = table.take(
        np.flatnonzero(table.columns["special"].floats() == 0)[-(window.limit or 0) :]
    ).newest_first()
    rate = table.columns["funding_rate"]
    forecast = FixedPointColumn(np.rint(rate.floats() * 10**8).astype(np.int64) + 1, 8)
    rows = write_rows(
        len(table),
        '{"formulaType":"withRate","fundingRate":"',
        forecast,
        '","fundingTime":"',
        FixedPointColumn(table.times),
        f'","instId":"{name}","instType":"SWAP","method":"current_period","realizedRate":"',
        rate,
        '"},',
    )
    return _rows(rows)


def _instruments(market: Market, request: ServerRequest, now: int) -> ServerReply:
    kind = request.params.get("instType", "")
    if kind not in {"SPOT", "SWAP"}:
        raise ApiError(400, 51000, "Parameter instType error")
    wanted = request.params.get("instId")
    listed = [item for item in market.instruments.values() if item.trades_at(now) and not item.coin_margined]
    data = [_instrument_info(item, swap=kind == "SWAP") for item in listed]
    data = [info for info in data if wanted in {None, info["instId"]}]
    if wanted and not data:
        raise ApiError(200, 51001, "Instrument ID doesn't exist")
    return _envelope(data)


def _instrument_info(item: MarketInstrument, *, swap: bool) -> dict[str, str]:
    pair = f"{item.base}-{item.quote}"
    return {
        "instType": "SWAP" if swap else "SPOT",
        "instId": f"{pair}-SWAP" if swap else pair,
        "instFamily": pair if swap else "",
        "uly": pair if swap else "",
        "baseCcy": "" if swap else item.base,
        "quoteCcy": "" if swap else item.quote,
        "settleCcy": item.settle if swap else "",
        "ctVal": str(_CONTRACT) if swap else "",
        "ctMult": "1" if swap else "",
        "ctValCcy": item.base if swap else "",
        "ctType": "linear" if swap else "",
        "listTime": str(item.listed_at),
        "expTime": "" if item.delisted_at is None else str(item.delisted_at),
        "state": "live",
        "tickSz": "0.01",
        "lotSz": "1",
        "minSz": "1",
    }
