"""What all Binance hosts have in common: kline rows, error codes, the form of the listing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from marketfetch.adapter import (
    MINUTE,
    Archive,
    BadRequest,
    BadSymbol,
    Banned,
    Cost,
    CsvLayout,
    DecodedRows,
    DecodeError,
    Endpoint,
    Exchange,
    ExchangeNotAvailable,
    Grain,
    Interval,
    LimitPool,
    ListingRequest,
    RateLimitExceeded,
    Request,
    Response,
    RowLayout,
    Series,
    Slice,
    decode_errors_as,
    excerpt,
    parse_json,
    retry_after,
    to_local_time,
)

__all__ = [
    "BinanceExchange",
    "BinanceFiles",
    "KlineFiles",
    "Klines",
    "OhlcvFiles",
    "pair_of",
    "same_names",
]

_BANNED_UNTIL = re.compile(rb"banned until (\d{13})")
_OVERLOADED = frozenset({-1000, -1001, -1006, -1007, -1008, -1016})
_PRICES = {"open": 1, "high": 2, "low": 3, "close": 4}
_PRICE_ROWS = RowLayout(_PRICES, width=12)


def same_names(names: str) -> Mapping[str, str]:
    """Map interval names to themselves: Binance uses the same names.

    >>> same_names("1m 1M")
    {'1m': '1m', '1M': '1M'}
    """
    return {name: name for name in names.split()}


def pair_of(symbol: str) -> str:
    """Return the pair of a contract: the part of its symbol before `_PERP` or the delivery date.

    >>> pair_of("BTCUSD_250627"), pair_of("BTCUSDT")
    ('BTCUSD', 'BTCUSDT')
    """
    return symbol.partition("_")[0]


class Klines(Endpoint, abstract=True):
    """Rows of twelve fields: open time, o, h, l, c, volume, close time, quote volume, trades, taker side.

    A window includes both ends, which are compared with open times; a page is filled from its start, that of
    COIN-M from its end.
    """

    path: ClassVar[str]
    by_pair: ClassVar[bool] = False
    """Whether the exchange is asked for the pair, since all contracts of it have the same rows."""
    flow: ClassVar[Mapping[str, int]] = {
        "volume": 5,
        "quote_volume": 7,
        "trades": 8,
        "taker_buy_volume": 9,
        "taker_buy_quote_volume": 10,
    }
    """Where volumes and trades are in a row; only `ohlcv` has them."""
    publish_delay = MINUTE
    intervals = same_names("1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w 1M")

    def request(self, part: Slice) -> Request:
        """Request one window; `limit` is always sent, since a request without it costs more."""
        window = {"startTime": part.span.start, "endTime": part.span.end - 1, "limit": part.rows}
        return self._ask(part.series, window, part.rows)

    def first_row_request(self, series: Series, start: int) -> Request | None:
        """Request one row without an end: the exchange skips ahead to its first row."""
        return self._ask(series, {"startTime": start, "limit": 1}, 1)

    def decode(self, body: bytes, part: Slice) -> DecodedRows:
        """Decode kline rows; volumes and trades are read for `ohlcv` only."""
        layout = self._with_flow if part.series.dataset.name == "ohlcv" else _PRICE_ROWS
        return layout.decode(body, part.series.dataset)

    @cached_property
    def _with_flow(self) -> RowLayout:
        return RowLayout({**_PRICES, **self.flow}, width=12)

    def _ask(self, series: Series, window: Mapping[str, int], rows: int) -> Request:
        symbol = series.symbol
        params: dict[str, str | int] = {
            **({"pair": pair_of(symbol)} if self.by_pair else {"symbol": symbol}),
            "interval": self.native_interval(series.interval),
            **window,
        }
        return Request(self.path, params, cost=self.cost(rows))


_FILES = LimitPool("binance files", 3000, MINUTE, published=False)
"""No limit is published; public downloaders keep a hundred connections busy."""


class BinanceFiles(Archive, abstract=True):
    """Zips for each month or day of a market: https://github.com/binance/binance-public-data."""

    market: ClassVar[str]
    """The part of the tree: `spot`, `futures/um` or `futures/cm`."""
    files_url = "https://data.binance.vision"
    listing_url = "https://s3-ap-northeast-1.amazonaws.com/data.binance.vision"

    def cost(self) -> Cost:
        """Return one request to the file host."""
        return Cost(_FILES)


class KlineFiles(BinanceFiles, abstract=True):
    """Zips of klines for each month and day.

    The fields are those of the API. Times are milliseconds, and microseconds in spot files since 2025. There
    are no daily files of the intervals that are longer than a day.
    """

    kind: ClassVar[str] = "klines"
    by_pair: ClassVar[bool] = False
    """Whether folders and files are named after the pair instead of the symbol."""
    intervals: ClassVar[Mapping[str, str]] = {
        **same_names("1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w"),
        "1M": "1mo",
    }
    layout = CsvLayout(_PRICES, width=12)

    def grains(self, interval: Interval) -> Sequence[Grain]:
        """Return months, and days for intervals of a day or less."""
        if interval.name not in self.intervals:
            return ()
        return ("month",) if interval.name in {"3d", "1w", "1M"} else ("month", "day")

    def folder(self, series: Series, grain: Grain) -> str:
        """Return the folder, such as `data/futures/um/monthly/klines/BTCUSDT/1m/`."""
        tree = "monthly" if grain == "month" else "daily"
        name, interval = self._name(series), self.native_interval(series.interval)
        return f"data/{self.market}/{tree}/{self.kind}/{name}/{interval}/"

    def stem(self, series: Series) -> str:
        """Return the beginning of the names, such as `BTCUSDT-1m-`."""
        return f"{self._name(series)}-{self.native_interval(series.interval)}-"

    def symbols_listing(self) -> ListingRequest:
        """Return the listing of monthly candles: every symbol has some, whatever else it has."""
        return ListingRequest(f"data/{self.market}/monthly/klines/", delimiter="/", version=1)

    def _name(self, series: Series) -> str:
        return pair_of(series.symbol) if self.by_pair else series.symbol


class OhlcvFiles(KlineFiles, abstract=True):
    """Files of candles, with volumes and trades."""

    dataset = "ohlcv"
    layout = CsvLayout({**_PRICES, **Klines.flow}, width=12)


class BinanceExchange(Exchange, abstract=True):
    """Error codes, clock and listing of all Binance hosts."""

    prefix: ClassVar[str]
    weight: ClassVar[LimitPool]
    listing_weight: ClassVar[int]
    quirks = """
    - The exchange refuses some countries with HTTP 451. The run ends with `RestrictedLocation`.
    - A day has its file on the next day, as a rule before 10:00 UTC, and a month in the first week of the
      next month. Binance replaces files without notice: `verify --sources` finds the rows that changed.
    - A file of a month may lack days that the files of days have, and a file of a day may end early, both
      with the right digest. What a file lacks is requested from the API.
    """

    def raise_for_error(self, response: Response) -> None:
        """Raise by Binance's codes: https://developers.binance.com, "Error Codes"."""
        body, status = response.body, response.status
        if status == 418 and (until := _ban_in_text(response)) is not None:
            raise Banned(f"{self.name} banned this address", until=until)
        if status in {403, 418, 451}:
            super().raise_for_error(response)  # the status decides, not the code in the body
        code = _error_code(body) if len(body) < 10_000 else 0
        if code == -1003:
            # The text of the response has the caller's address in it, so the message does not repeat it.
            wait = retry_after(response.headers, response.received_at)
            raise RateLimitExceeded(f"{self.name} asks to slow down (code -1003)", retry_after=wait)
        if code in _OVERLOADED:
            raise ExchangeNotAvailable(f"{self.name} is overloaded or shutting down (code {code})")
        if code in {-1121, -1122}:
            raise BadSymbol(f"{self.name} does not serve this symbol (code {code})")
        if code < 0 and status < 500 and status != 429:
            raise BadRequest(f"{self.name} rejects the request (code {code}): {excerpt(body, length=200)}")
        super().raise_for_error(response)

    def time_request(self) -> Request:
        """GET …/time."""
        return Request(f"{self.prefix}/time", cost=self.costs(1))

    def decode_time(self, body: bytes) -> int:
        """Read `serverTime`."""
        with decode_errors_as("an object with serverTime"):
            return int(_object(body)["serverTime"])

    def listing_requests(self) -> Sequence[Request]:
        """GET …/exchangeInfo."""
        return (Request(f"{self.prefix}/exchangeInfo", cost=self.costs(self.listing_weight)),)

    def entries(self, body: bytes) -> list[Mapping[str, Any]]:
        """Read `symbols` of an exchangeInfo answer."""
        symbols = _object(body).get("symbols")
        if not isinstance(symbols, list) or not all(isinstance(entry, dict) for entry in symbols):
            raise DecodeError("exchangeInfo has no list of symbols")
        return symbols

    def costs(self, weight: int) -> Cost:
        """Return a cost in the weight pool of the host."""
        return Cost(self.weight, weight)


def _ban_in_text(response: Response) -> int | None:
    """Read the end of a ban from the text, by the local clock; None if a header has it, or no text has."""
    until = _BANNED_UNTIL.search(response.body)
    if until is None or retry_after(response.headers, response.received_at) is not None:
        return None
    return to_local_time(int(until[1]), response.headers, response.received_at)


def _error_code(body: bytes) -> int:
    if not body.lstrip().startswith(b"{"):
        return 0
    try:
        code = _object(body).get("code", 0)
    except DecodeError:
        return 0
    return code if isinstance(code, int) else 0


def _object(body: bytes) -> dict[str, Any]:
    payload = parse_json(body)
    if not isinstance(payload, dict):
        raise DecodeError(f"expected an object, found {type(payload).__name__}")
    return payload
