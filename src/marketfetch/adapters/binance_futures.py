"""What Binance's two futures hosts have in common: weights, funding, statistics, the listing of contracts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import attrs
import numpy as np

from marketfetch.adapter import (
    DAY,
    HOUR,
    MINUTE,
    Cost,
    CursorPaginator,
    DecodedRows,
    DecodeError,
    Endpoint,
    Instrument,
    LimitPool,
    ObjectLayout,
    Request,
    Series,
    Slice,
    TimeWindowPaginator,
    decode_errors_as,
    parse_json,
)
from marketfetch.adapters.binance import BinanceExchange, Klines, same_names

__all__ = [
    "FUTURES_STATISTICS",
    "FUTURES_WEIGHT",
    "AccountRatios",
    "BinanceFutures",
    "FundingEvents",
    "FuturesKlines",
    "PeriodStatistics",
]

_HOSTS = ("https://fapi.binance.com", "https://dapi.binance.com")
"""Since 2026-06-30 both hosts count together; of the calls of `/futures/data` that is assumed."""
FUTURES_WEIGHT = LimitPool(
    "binance-futures weight", 2400, MINUTE, "clock", used_header="x-mbx-used-weight-1m", hosts=_HOSTS
)
FUTURES_STATISTICS = LimitPool("binance-futures statistics", 1000, 5 * MINUTE, hosts=_HOSTS)
_NEVER = 4_133_404_800_000
"""The delivery date of contracts that have none: the year 2100."""


class FuturesKlines(Klines, abstract=True):
    """The kline routes: https://developers.binance.com, "Kline/Candlestick Data" and its siblings."""

    pool: ClassVar[LimitPool] = FUTURES_WEIGHT
    page_sizes = (99, 499, 1000, 1500)

    def cost(self, rows: int) -> Cost:
        """Return the weight by `limit`, as documented; the measured weights are never higher."""
        tiers = ((100, 1), (500, 2), (1001, 5))
        return Cost(self.pool, next((weight for below, weight in tiers if rows < below), 10))


class FundingEvents(Endpoint, abstract=True):
    """Events, oldest first from `startTime`, both ends inclusive.

    A `Special` event (a dividend adjustment) may have the same time as a regular event, so its rate has its
    own column, `special_funding_rate`. `markPrice` is empty in old events.
    """

    path: ClassVar[str]
    pool: ClassVar[LimitPool]
    page_sizes = (1000,)
    publish_delay = 5 * MINUTE
    event_spacing = 8 * HOUR
    paginator = CursorPaginator()

    def cost(self, rows: int) -> Cost:
        """Return one unit of the limit pool."""
        return Cost(self.pool)

    def request(self, part: Slice) -> Request:
        """Request the events of a span."""
        params: dict[str, str | int] = {
            "symbol": part.series.symbol,
            "startTime": part.span.start,
            "endTime": part.span.end - 1,
            "limit": part.rows,
        }
        return Request(self.path, params, cost=self.cost(part.rows))

    def first_row_request(self, series: Series, start: int) -> Request:
        """Request the oldest event at or after `start`; the request has no end time."""
        params: dict[str, str | int] = {"symbol": series.symbol, "startTime": start, "limit": 1}
        return Request(self.path, params, cost=self.cost(1))

    def decode(self, body: bytes, part: Slice) -> DecodedRows:
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


class PeriodStatistics(Endpoint, abstract=True):
    """GET /futures/data/…: statistics of the last 30 days; a request always has both ends.

    The time of a row is kept as the exchange gives it: the end of the period for open interest and account
    ratios, its start for taker volume.
    """

    route: ClassVar[str]
    fields: ClassVar[Mapping[str, str]]
    pool: ClassVar[LimitPool] = FUTURES_STATISTICS
    intervals = same_names("5m 15m 30m 1h 2h 4h 6h 12h 1d")
    page_sizes = (500,)
    paginator = TimeWindowPaginator(anchor="end")
    publish_delay = MINUTE
    retention = 30 * DAY - HOUR

    def cost(self, rows: int) -> Cost:
        """Return one call of the statistics pool."""
        return Cost(self.pool)

    def subject(self, series: Series) -> Mapping[str, str]:
        """Return the parameters that say whose statistics are requested."""
        return {"symbol": series.symbol}

    def request(self, part: Slice) -> Request:
        """Request one window."""
        params: dict[str, str | int] = {
            **self.subject(part.series),
            "period": self.native_interval(part.series.interval),
            "startTime": part.span.start,
            "endTime": part.span.end - 1,
            "limit": part.rows,
        }
        return Request(f"/futures/data/{self.route}", params, cost=self.cost(part.rows))

    def decode(self, body: bytes, part: Slice) -> DecodedRows:
        """Decode objects with a `timestamp`, a number or text."""
        return ObjectLayout(self.fields, time="timestamp").decode(body, part.series.dataset)


class AccountRatios(PeriodStatistics, abstract=True):
    """GET /futures/data/globalLongShortAccountRatio: all accounts, not only the top traders."""

    dataset = "long_short_ratio"
    route = "globalLongShortAccountRatio"
    fields: ClassVar = {
        "long_short_ratio": "longShortRatio",
        "long_account": "longAccount",
        "short_account": "shortAccount",
    }


class BinanceFutures(BinanceExchange, abstract=True):
    """The listing of a futures host."""

    status_field: ClassVar[str]
    """Where the listing says whether a contract is traded."""
    listing_weight = 1
    quirks = """
    - Index prices are those of the pair, so all contracts of a pair have the same.
    - The API serves statistics (`open_interest`, `long_short_ratio`, `taker_volume`) of the last 30 days.
      Older ones of open interest and the long/short ratio come from files, at 5m.
    - A row of open interest or of the long/short ratio has the time at which its period ends, a row of
      taker volume the time at which it starts, as the exchange gives them.
    - Funding is paid at times that the exchange may change, and an event may come some milliseconds after
      the full hour. Its time is stored as it is.
    - A special funding event, such as a dividend adjustment, may have the time of a regular one. Its rate
      is in the column `special_funding_rate` of the same row.
    - Old funding events have no `mark_price`; it is NULL.
    """

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
                    active=entry.get(self.status_field) == "TRADING",
                )
