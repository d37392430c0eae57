"""Your own exchange: Tidebit is invented, its adapter is complete.

Tidebit counts time in seconds, sends candles as columns and funding newest first, sends errors inside
HTTP 200, and allows ten requests per second from each address.
"""

from collections.abc import Iterable, Sequence

import marketfetch.adapter as mf

CALL = mf.Cost(mf.LimitPool("tidebit calls", capacity=10, period=1000))
STEPS = {"1m": "60", "1h": "3600", "1d": "86400"}
CANDLE = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
ERRORS = {"unknown market": mf.BadSymbol, "slow down": mf.RateLimitExceeded}


def window(part: mf.Slice) -> dict[str, str | int]:
    """The span in whole seconds: `since` is inclusive, `until` is exclusive."""
    since, until = -(-part.span.start // 1000), -(-part.span.end // 1000)
    return {"market": part.series.symbol, "since": since, "until": until, "count": part.rows}


class Candles(mf.Endpoint):
    dataset = "ohlcv"
    intervals = STEPS
    page_sizes = (500,)

    def cost(self, rows: int) -> mf.Cost:
        return CALL

    def request(self, part: mf.Slice) -> mf.Request:
        return mf.Request(
            "/v2/bars", window(part) | {"step": self.native_interval(part.series.interval)}, cost=CALL
        )

    def decode(self, body: bytes, part: mf.Slice) -> mf.DecodedRows:
        with mf.decode_errors_as("bars as columns of the same length"):
            bars = mf.parse_json(body)["bars"]
            rows = [dict(zip(bars, row, strict=True)) for row in zip(*bars.values(), strict=True)]
        return mf.ObjectLayout(CANDLE, time="t", unit=1000).gather(rows, part.series.dataset)


class Funding(mf.Endpoint):
    dataset = "funding_rate"
    page_sizes = (100,)
    paginator = mf.CursorPaginator(newest_first=True)

    def cost(self, rows: int) -> mf.Cost:
        return CALL

    def request(self, part: mf.Slice) -> mf.Request:
        return mf.Request("/v2/funding", window(part), cost=CALL)

    def decode(self, body: bytes, part: mf.Slice) -> mf.DecodedRows:
        layout = mf.ObjectLayout({"funding_rate": "rate"}, time="at", path=("events",), unit=1000)
        return layout.decode(body, part.series.dataset)


class Tidebit(mf.Exchange):
    name = "tidebit"
    default_url = "https://api.tidebit.example"
    sources = (Candles, Funding)

    def raise_for_error(self, response: mf.Response) -> None:
        if response.status == 200 and response.body.startswith(b'{"error":'):
            error = mf.parse_json(response.body)["error"]
            raise ERRORS.get(error, mf.BadRequest)(f"tidebit says {error!r}")
        super().raise_for_error(response)

    def listing_requests(self) -> Sequence[mf.Request]:
        return (mf.Request("/v2/markets", cost=CALL),)

    def decode_listing(self, body: bytes) -> Iterable[mf.Instrument]:
        with mf.decode_errors_as("a list of markets"):
            for market in mf.parse_json(body)["markets"]:
                yield mf.Instrument(str(market["name"]), str(market["base"]), str(market["quote"]))
