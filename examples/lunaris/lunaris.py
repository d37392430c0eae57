"""An exchange with awkward traits: Lunaris is invented, its adapter is complete.

It takes questions as JSON with POST, counts time in seconds, sends the newest rows of a window, opens its
days at midnight of UTC+08:00, lists its symbols by cursor, sends errors inside HTTP 200, and limits the same
requests in each second and in each minute.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import marketfetch.adapter as mf

# 200 requests in each minute, and never more than 20 in one second.
LIMIT = mf.LimitPool("lunaris requests", 200, 60_000, burst=mf.Burst(20, 1000))
CALL = mf.Cost(LIMIT)
JSON = {"content-type": "application/json"}
ERRORS = {1001: mf.BadSymbol, 1002: mf.RateLimitExceeded, 1003: mf.BadRequest, 1009: mf.ExchangeNotAvailable}


def content(body: bytes) -> Any:
    """Return what is in the envelope of a good answer."""
    with mf.decode_errors_as("an envelope with data"):
        return mf.parse_json(body)["data"]


class Candles(mf.Endpoint):
    dataset = "ohlcv"
    intervals: ClassVar = {"1m": "M1", "10m": "M10", "1h": "H1", "1d+08:00": "D1"}
    page_sizes = (100,)
    paginator = mf.TimeWindowPaginator(anchor="end")
    layout = mf.ObjectLayout(
        {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"},
        time="ts",
        path=("data", "candles"),
        unit=1000,
    )

    def cost(self, rows: int) -> mf.Cost:
        return CALL

    def request(self, part: mf.Slice) -> mf.Request:
        question = {
            "symbol": part.series.symbol,
            "resolution": self.native_interval(part.series.interval),
            "from": -(-part.span.start // 1000),  # inclusive, as `to` is
            "to": (part.span.end - 1) // 1000,
            "limit": part.rows,
        }
        body = json.dumps(question).encode()
        return mf.Request("/v1/candles", cost=CALL, method="POST", body=body, headers=JSON)

    def decode(self, body: bytes, part: mf.Slice) -> mf.DecodedRows:
        return self.layout.decode(body, part.series.dataset)


class Lunaris(mf.Exchange):
    name = "lunaris"
    default_url = "https://api.lunaris.example"
    sources = (Candles,)

    def raise_for_error(self, response: mf.Response) -> None:
        # A good page is not parsed twice; an error may be of any length.
        if response.status == 200 and not response.body.startswith(b'{"ok":true,'):
            answer = mf.parse_json(response.body)
            if isinstance(answer, dict) and answer.get("ok") is False:
                code = answer.get("code", 0)
                raise ERRORS.get(code, mf.BadRequest)(f"lunaris answers with code {code}")
        super().raise_for_error(response)

    def listing_requests(self) -> Sequence[mf.Request]:
        return (self.listing_page(""),)

    def listing_page(self, cursor: str) -> mf.Request:
        return mf.Request("/v1/symbols", {"cursor": cursor} if cursor else {}, cost=CALL)

    def next_listing_request(self, request: mf.Request, body: bytes) -> mf.Request | None:
        with mf.decode_errors_as("a page with its cursor"):
            cursor = content(body)["next"]
            return None if cursor is None else self.listing_page(str(cursor))

    def decode_listing(self, body: bytes) -> Iterable[mf.Instrument]:
        with mf.decode_errors_as("a page of symbols"):
            for entry in content(body)["symbols"]:
                yield mf.Instrument(str(entry["id"]), str(entry["base"]), str(entry["quote"]))
