"""OKX, https://www.okx.com: candles and funding of spot pairs and perpetual swaps; 1m candles in files, too.

Rows come newest first, `after` and `before` are exclusive, and errors come with HTTP 200. Bars of six hours
and more are aligned to UTC+8 unless their name ends in `utc`; this adapter uses the `utc` names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import attrs

from marketfetch.adapter import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Archive,
    BadRequest,
    BadSymbol,
    CalendarPeriod,
    Cost,
    CsvLayout,
    CursorPaginator,
    DecodedRows,
    DecodeError,
    Endpoint,
    Exchange,
    ExchangeNotAvailable,
    Instrument,
    LimitPool,
    ObjectLayout,
    RateLimitExceeded,
    Request,
    Response,
    RowLayout,
    Series,
    Slice,
    Source,
    Span,
    TimeWindowPaginator,
    decode_errors_as,
    excerpt,
    parse_json,
)

__all__ = ["CandleFiles", "FundingRate", "Ohlcv", "Okx"]

_SWAP = "-SWAP"
_COLUMNS = {"open": 1, "high": 2, "low": 3, "close": 4, "volume": 5, "quote_volume": 7}
_FILES = LimitPool("okx files", 1200, MINUTE, published=False)
"""No limit is published; a client that is too fast is shut out with 403."""


def _columns(symbol: str) -> dict[str, int]:
    """Return where the columns of candles are: field 5 has contracts of a swap, field 6 has its base coin."""
    return _COLUMNS | {"volume": 6} if symbol.endswith(_SWAP) else _COLUMNS


def _pool(route: str, calls: int) -> LimitPool:
    """Return the limit pool of a route; OKX publishes calls in two seconds."""
    return LimitPool(f"okx {route}", calls, 2 * SECOND)


class Ohlcv(Endpoint):
    """GET /api/v5/market/history-candles.

    Nine fields: time, o, h, l, c, volume (contracts for swaps, base coin for spot), volume in base coin
    (swaps) or quote coin (spot), volume in quote coin, `confirm`. The documented page limit is 100, but pages
    of 300 are served at times: 300 rows are requested, and after a shorter page the rest is requested.
    """

    dataset = "ohlcv"
    # fmt: off
    intervals = {  # noqa: RUF012  # a declaration, never changed
        "1s": "1s", "1m": "1m", "3m": "3m", "5m": "5m", "15m": "15m", "30m": "30m",
        "1h": "1H", "2h": "2H", "4h": "4H", "6h": "6Hutc", "12h": "12Hutc",
        "1d": "1Dutc", "2d": "2Dutc", "3d": "3Dutc", "1w": "1Wutc", "1M": "1Mutc",
    }
    # fmt: on
    page_sizes = (300,)
    publish_delay = MINUTE
    paginator = TimeWindowPaginator(anchor="end")

    def cost(self, rows: int) -> Cost:
        """Return one of 20 calls in two seconds."""
        return Cost(_pool("history-candles", 20))

    def request(self, part: Slice) -> Request:
        """Request one window: rows older than its end and newer than 1 ms before its start."""
        params: dict[str, str | int] = {
            "instId": part.series.symbol,
            "bar": self.native_interval(part.series.interval),
            "after": part.span.end,
            "before": part.span.start - 1,
            "limit": part.rows,
        }
        return Request("/api/v5/market/history-candles", params, cost=self.cost(part.rows))

    def decode(self, body: bytes, part: Slice) -> DecodedRows:
        """Decode candles; volume is in base coin for spot and swaps alike."""
        layout = RowLayout(_columns(part.series.symbol), width=9, path=("data",), confirm=8)
        return layout.decode(body, part.series.dataset)


@attrs.frozen
class _CandleLayout(CsvLayout):
    """Where the columns are in candle files of spot pairs and swaps."""

    def decode(self, pieces: Iterable[bytes], series: Series, span: Span) -> Iterator[DecodedRows]:
        """Yield rows with their volume in base coin; DecodeError as CsvLayout."""
        layout = attrs.evolve(self, columns=_columns(series.symbol))
        return CsvLayout.decode(layout, pieces, series, span)


class CandleFiles(Archive):
    """Zips of 1m candles for each month and day in Hong Kong (UTC+8), without listing and checksums.

    Fields: instrument_name, o, h, l, c, volume and volume in base coin as in the API, volume in quote coin,
    open_time, confirm. The portal says since 2023-07; the files begin in 2019-12, for most pairs in 2020-01.
    """

    dataset = "ohlcv"
    intervals = {"1m": "1m"}  # noqa: RUF012  # a declaration, never changed
    files_url = "https://static.okx.com"
    listing_url = None
    layout = _CandleLayout(_COLUMNS, width=10, time=8, symbol=0, confirm=9)
    utc_offset = 8 * HOUR
    since = 1_575_129_600_000  # 2019-12-01 in Hong Kong
    publish_delay = 2 * DAY

    def cost(self) -> Cost:
        """Return one request to the file host."""
        return Cost(_FILES)

    def stem(self, series: Series) -> str:
        """Return the beginning of the names, such as `BTC-USDT-SWAP-candlesticks-`."""
        return f"{series.symbol}-candlesticks-"

    def key(self, series: Series, period: CalendarPeriod) -> str:
        """Return the key of a file: the files of all symbols of one month or day are in one folder.

        >>> swap = Series.of("okx", "ohlcv", "BTC-USDT-SWAP", "1m")
        >>> CandleFiles().key(swap, CalendarPeriod.parse("2024-01-31"))
        'cdn/okex/traderecords/candlesticks/daily/20240131/BTC-USDT-SWAP-candlesticks-2024-01-31.zip'
        """
        tree = "monthly" if period.grain == "month" else "daily"
        folder = f"cdn/okex/traderecords/candlesticks/{tree}/{str(period).replace('-', '')}"
        return f"{folder}/{self.stem(series)}{period}{self.suffix}"

    def checksum_request(self, key: str, *, fresh: bool = False) -> None:
        """Return None: OKX publishes no checksums."""


class FundingRate(Endpoint):
    """GET /api/v5/public/funding-rate-history: the last three months, 100 events a page, newest first."""

    dataset = "funding_rate"
    page_sizes = (100,)
    paginator = CursorPaginator(newest_first=True)
    publish_delay = 5 * MINUTE
    event_spacing = 8 * HOUR
    retention = 90 * DAY

    def cost(self, rows: int) -> Cost:
        """Return one of 10 calls in two seconds; OKX also counts per instrument, which allows more."""
        return Cost(_pool("funding-rate-history", 10))

    def request(self, part: Slice) -> Request:
        """Request the newest events of a span."""
        params: dict[str, str | int] = {
            "instId": part.series.symbol,
            "after": part.span.end,
            "before": part.span.start - 1,
            "limit": part.rows,
        }
        return Request("/api/v5/public/funding-rate-history", params, cost=self.cost(part.rows))

    def decode(self, body: bytes, part: Slice) -> DecodedRows:
        """Decode events: `realizedRate` is what was paid, `fundingRate` the forecast before it."""
        layout = ObjectLayout({"funding_rate": "realizedRate"}, time="fundingTime", path=("data",))
        return layout.decode(body, part.series.dataset)


class Okx(Exchange):
    """OKX, spot pairs (`BTC-USDT`) and perpetual swaps (`BTC-USDT-SWAP`).

    >>> from marketfetch.adapter import Interval
    >>> Okx().endpoint("ohlcv").native_interval(Interval.parse("1d"))
    '1Dutc'
    """

    name = "okx"
    default_url = "https://www.okx.com"
    sources: ClassVar[Sequence[type[Source]]] = (Ohlcv, FundingRate, CandleFiles)
    symbol_examples: ClassVar = {"BTC/USDT": "BTC-USDT", "BTC/USDT:USDT": "BTC-USDT-SWAP"}
    quirks = """
    - OKX aligns bars of six hours and more to midnight in Hong Kong (UTC+8) unless their name ends in
      `utc`. The adapter asks for the `utc` names, so a day is a day in UTC.
    - The exchange counts the volume of swaps in contracts. `volume` in the store is in base coin, for
      swaps as for spot pairs.
    - The documented page has 100 candles, and 300 are served at times. 300 are requested, and after a
      shorter page the rest.
    - Errors come with HTTP 200; the code in the answer decides.
    - `funding_rate` is the rate that was paid (`realizedRate`), not the forecast before it. The API
      serves about three months.
    - Files have the days and months of Hong Kong: the candles of 1 June in UTC are in the files of 1 and
      of 2 June. OKX publishes neither a list of them nor digests, so they are requested by name.
    """

    def raise_for_error(self, response: Response) -> None:
        """Raise by the `code` of the envelope, which HTTP 200 may hide: www.okx.com/docs-v5, "Error Code"."""
        if response.body.startswith(b'{"code":"0"') and response.status < 300:
            return
        if response.status in {403, 418, 429, 451}:
            super().raise_for_error(response)  # the status decides, not the code in the body
        code = _code(response.body)
        if code in {"50011", "50061"}:
            raise RateLimitExceeded(f"{self.name} asks to slow down (code {code})", retry_after=2.0)
        if code in {"50001", "50004", "50013", "50026", "50040"}:
            raise ExchangeNotAvailable(f"{self.name} is busy or in maintenance (code {code})")
        if code in {"51001", "51014"}:
            raise BadSymbol(f"{self.name} does not serve this symbol (code {code})")
        if code not in {"", "0"} and response.status < 500:
            text = excerpt(response.body, length=200)
            raise BadRequest(f"{self.name} rejects the request (code {code[:20]}): {text}")
        super().raise_for_error(response)

    def time_request(self) -> Request:
        """GET /api/v5/public/time."""
        return Request("/api/v5/public/time", cost=Cost(_pool("time", 10)))

    def decode_time(self, body: bytes) -> int:
        """Read `ts`."""
        with decode_errors_as("a list with ts"):
            return int(_data(body)[0]["ts"])

    def listing_requests(self) -> Sequence[Request]:
        """GET /api/v5/public/instruments, once for each kind of instrument."""
        cost = Cost(_pool("instruments", 20))
        return tuple(
            Request("/api/v5/public/instruments", {"instType": kind}, cost=cost) for kind in ("SPOT", "SWAP")
        )

    def decode_listing(self, body: bytes) -> Iterable[Instrument]:
        """Read the instruments with the times of their listing and expiry."""
        with decode_errors_as("a list of instruments"):
            for entry in _data(body):
                base, _, quote = (entry.get("instFamily") or entry["instId"]).partition("-")
                yield Instrument(
                    symbol=str(entry["instId"]),
                    base=str(entry.get("baseCcy") or base),
                    quote=str(entry.get("quoteCcy") or quote),
                    settle=str(entry.get("settleCcy") or "") or None,
                    listed_at=int(entry.get("listTime") or 0) or None,
                    delisted_at=int(entry.get("expTime") or 0) or None,
                    active=entry.get("state") == "live",
                )


def _code(body: bytes) -> str:
    try:
        payload = parse_json(body)
    except DecodeError:
        return ""
    return str(payload.get("code", "")) if isinstance(payload, dict) else ""


def _data(body: bytes) -> list[Any]:
    payload = parse_json(body)
    data = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(data, list):
        raise DecodeError(f"expected an envelope with a list of data, found {type(payload).__name__}")
    return data
