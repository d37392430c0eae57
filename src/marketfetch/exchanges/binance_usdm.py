"""Binance USDⓈ-M futures, https://fapi.binance.com: klines of four kinds, funding, open interest, ratios.

Limits per address: 2400 weight in each minute of the server's clock for `/fapi`; 500 calls in five minutes
for funding; 1000 calls in five minutes for `/futures/data`. The latter two send no used-weight header.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import numpy as np

from marketfetch.adapter import (
    DAY,
    HOUR,
    MINUTE,
    Cost,
    CursorPaginator,
    Decoded,
    DecodeError,
    Endpoint,
    Instrument,
    LimitPool,
    ObjectLayout,
    Request,
    Series,
    Slice,
    Source,
    TimeWindowPaginator,
    decode_errors_as,
    parse_json,
)
from marketfetch.exchanges.binance import BinanceExchange, KlineFiles, Klines, OhlcvFiles, same_names

__all__ = [
    "BinanceUsdm",
    "FundingRate",
    "IndexPrice",
    "IndexPriceFiles",
    "LongShortRatio",
    "MarkPrice",
    "MarkPriceFiles",
    "Ohlcv",
    "OpenInterest",
    "PremiumIndex",
    "PremiumIndexFiles",
    "TakerVolume",
    "UsdmOhlcvFiles",
]

_NEVER = 4_133_404_800_000
"""The delivery date of contracts that have none: the year 2100."""

_WEIGHT = LimitPool("binance-usdm weight", 2400, MINUTE, "clock", used_header="x-mbx-used-weight-1m")
_FUNDING = LimitPool("binance-usdm funding", 500, 5 * MINUTE)
_STATISTICS = LimitPool("binance-usdm statistics", 1000, 5 * MINUTE)


class _UsdmKlines(Klines, abstract=True):
    """The kline routes: https://developers.binance.com, "Kline/Candlestick Data" and its siblings."""

    page_sizes = (99, 499, 1000, 1500)

    def cost(self, rows: int) -> Cost:
        """Return the weight by `limit`, as documented; the measured weights are never higher."""
        tiers = ((100, 1), (500, 2), (1001, 5))
        return Cost(_WEIGHT, next((weight for below, weight in tiers if rows < below), 10))


class Ohlcv(_UsdmKlines):
    """GET /fapi/v1/klines."""

    dataset = "ohlcv"
    path = "/fapi/v1/klines"


class PremiumIndex(_UsdmKlines):
    """GET /fapi/v1/premiumIndexKlines."""

    dataset = "premium_index"
    path = "/fapi/v1/premiumIndexKlines"


class MarkPrice(_UsdmKlines):
    """GET /fapi/v1/markPriceKlines."""

    dataset = "mark_price"
    path = "/fapi/v1/markPriceKlines"


class IndexPrice(_UsdmKlines):
    """GET /fapi/v1/indexPriceKlines: all contracts of a pair have the same index."""

    dataset = "index_price"
    path = "/fapi/v1/indexPriceKlines"
    symbol_parameter = "pair"

    def name_for(self, series: Series) -> str:
        """Return the pair: the part of the symbol before the delivery date."""
        return series.symbol.split("_")[0]


class UsdmOhlcvFiles(OhlcvFiles):
    """Files of candles."""

    market = "futures/um"


class PremiumIndexFiles(KlineFiles):
    """Files of premium index candles."""

    dataset = "premium_index"
    market = "futures/um"
    kind = "premiumIndexKlines"


class MarkPriceFiles(KlineFiles):
    """Files of mark price candles."""

    dataset = "mark_price"
    market = "futures/um"
    kind = "markPriceKlines"


class IndexPriceFiles(KlineFiles):
    """Files of index price candles, by pair."""

    dataset = "index_price"
    market = "futures/um"
    kind = "indexPriceKlines"

    def name_for(self, series: Series) -> str:
        """Return the pair: the part of the symbol before the delivery date."""
        return series.symbol.split("_")[0]


class FundingRate(Endpoint):
    """GET /fapi/v1/fundingRate: events, oldest first from `startTime`, both ends inclusive.

    A `Special` event (a dividend adjustment) may have the same time as a regular event, so its rate has its
    own column, `special_funding_rate`. `markPrice` is empty in old events.
    """

    dataset = "funding_rate"
    page_sizes = (1000,)
    publish_delay = 5 * MINUTE
    paginator = CursorPaginator()

    def cost(self, rows: int) -> Cost:
        """Return one call of the funding pool."""
        return Cost(_FUNDING)

    def request(self, part: Slice) -> Request:
        """Request the events of a span."""
        params: dict[str, str | int] = {
            "symbol": part.series.symbol,
            "startTime": part.span.start,
            "endTime": part.span.end - 1,
            "limit": part.rows,
        }
        return Request("/fapi/v1/fundingRate", params, cost=self.cost(part.rows))

    def first_row_request(self, series: Series, start: int) -> Request:
        """Request the oldest event at or after `start`; the request has no end time."""
        params: dict[str, str | int] = {"symbol": series.symbol, "startTime": start, "limit": 1}
        return Request("/fapi/v1/fundingRate", params, cost=self.cost(1))

    def decode(self, body: bytes, part: Slice) -> Decoded:
        """Decode events; a regular and a special one of the same moment become one row.

        A row is finished when all its events have a rate: the exchange may fill in a rate later.
        """
        events = parse_json(body)
        if not isinstance(events, list):
            raise DecodeError(f"expected a list of events, found {type(events).__name__}")
        moments: dict[int, dict[str, Any]] = {}
        came_as: dict[int, list[Any]] = {}
        unfilled: set[int] = set()
        for event in events:
            with decode_errors_as("an event with fundingTime"):
                time, rate = int(event["fundingTime"]), event.get("fundingRate")
                row = moments.setdefault(time, {"fundingTime": event["fundingTime"]})
                special = event.get("rateType", "Regular") == "Special"
                row["specialRate" if special else "fundingRate"] = rate
                row["markPrice"] = event.get("markPrice") or row.get("markPrice")
            came_as.setdefault(time, []).append(event)
            if rate is None or rate == "":
                unfilled.add(time)
        layout = ObjectLayout(
            {"funding_rate": "fundingRate", "mark_price": "markPrice", "special_funding_rate": "specialRate"},
            time="fundingTime",
        )
        items, events_of = list(moments.values()), list(came_as.values())
        rows = layout.gather(items, part.series.dataset, came_as=events_of)
        filled = ~np.isin(rows.columns.times, list(unfilled)) if unfilled else None
        return attrs.evolve(rows, closed=filled, received=len(events))


class _Statistics(Endpoint, abstract=True):
    """GET /futures/data/…: statistics of the last 30 days; a request always has both ends.

    The time of a row is kept as the exchange gives it: the end of the period for open interest and account
    ratios, its start for taker volume.
    """

    route: ClassVar[str]
    fields: ClassVar[Mapping[str, str]]
    intervals = same_names("5m 15m 30m 1h 2h 4h 6h 12h 1d")
    page_sizes = (500,)
    paginator = TimeWindowPaginator(anchor="end")
    publish_delay = MINUTE
    retention = 30 * DAY - HOUR

    def cost(self, rows: int) -> Cost:
        """Return one call of the statistics pool."""
        return Cost(_STATISTICS)

    def request(self, part: Slice) -> Request:
        """Request one window."""
        params: dict[str, str | int] = {
            "symbol": part.series.symbol,
            "period": self.native_interval(part.series.interval),
            "startTime": part.span.start,
            "endTime": part.span.end - 1,
            "limit": part.rows,
        }
        return Request(f"/futures/data/{self.route}", params, cost=self.cost(part.rows))

    def decode(self, body: bytes, part: Slice) -> Decoded:
        """Decode objects with a `timestamp`, a number or text."""
        return ObjectLayout(self.fields, time="timestamp").decode(body, part.series.dataset)


class OpenInterest(_Statistics):
    """GET /futures/data/openInterestHist."""

    dataset = "open_interest"
    route = "openInterestHist"
    fields: ClassVar = {"open_interest": "sumOpenInterest", "open_interest_value": "sumOpenInterestValue"}


class LongShortRatio(_Statistics):
    """GET /futures/data/globalLongShortAccountRatio: all accounts, not only the top traders."""

    dataset = "long_short_ratio"
    route = "globalLongShortAccountRatio"
    fields: ClassVar = {
        "long_short_ratio": "longShortRatio",
        "long_account": "longAccount",
        "short_account": "shortAccount",
    }


class TakerVolume(_Statistics):
    """GET /futures/data/takerlongshortRatio."""

    dataset = "taker_volume"
    route = "takerlongshortRatio"
    fields: ClassVar = {"buy_volume": "buyVol", "sell_volume": "sellVol", "buy_sell_ratio": "buySellRatio"}


class BinanceUsdm(BinanceExchange):
    """Binance USDⓈ-M futures.

    >>> BinanceUsdm().endpoint("premium_index").cost(499).weight
    2
    """

    name = "binance-usdm"
    default_url = "https://fapi.binance.com"
    prefix = "/fapi/v1"
    weight = _WEIGHT
    listing_weight = 1
    sources: ClassVar[Sequence[type[Source]]] = (
        Ohlcv,
        UsdmOhlcvFiles,
        PremiumIndex,
        PremiumIndexFiles,
        MarkPrice,
        MarkPriceFiles,
        IndexPrice,
        IndexPriceFiles,
        FundingRate,
        OpenInterest,
        LongShortRatio,
        TakerVolume,
    )

    def decode_listing(self, body: bytes) -> Iterable[Instrument]:
        """Read the contracts with the time of their listing and, once announced, of their delivery."""
        with decode_errors_as("a list of contracts"):
            for entry in self.entries(body):
                ends = int(entry.get("deliveryDate") or _NEVER)
                yield Instrument(
                    symbol=str(entry["symbol"]),
                    base=str(entry.get("baseAsset", "")),
                    quote=str(entry.get("quoteAsset", "")),
                    settle=str(entry.get("marginAsset") or "") or None,
                    listed_at=int(entry.get("onboardDate") or 0) or None,
                    delisted_at=ends if ends < _NEVER else None,
                    active=entry.get("status") == "TRADING",
                )
