"""Binance USDⓈ-M futures, https://fapi.binance.com: klines of four kinds, funding, open interest, ratios.

Limits per address: 2400 weight in each minute of the server's clock; 500 calls in five minutes for funding;
1000 calls in five minutes for `/futures/data`. The latter two send no used-weight header. Weight and
`/futures/data` are counted together with COIN-M.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from marketfetch.adapter import MINUTE, LimitPool, Source
from marketfetch.adapters.binance import KlineFiles, OhlcvFiles
from marketfetch.adapters.binance_futures import (
    FUTURES_WEIGHT,
    AccountRatios,
    BinanceFutures,
    FundingEvents,
    FuturesKlines,
    PeriodStatistics,
)
from marketfetch.adapters.binance_metrics import AccountRatioLayout, MetricsFiles, MetricsLayout

__all__ = [
    "BinanceUsdm",
    "FundingRate",
    "IndexPrice",
    "IndexPriceFiles",
    "LongShortRatio",
    "LongShortRatioFiles",
    "MarkPrice",
    "MarkPriceFiles",
    "Ohlcv",
    "OpenInterest",
    "OpenInterestFiles",
    "PremiumIndex",
    "PremiumIndexFiles",
    "TakerVolume",
    "UsdmOhlcvFiles",
]

_FUNDING = LimitPool("binance-usdm funding", 500, 5 * MINUTE)
_STARTS_SINCE = 1_782_345_600_000
"""2026-06-25: the times in metrics are starts of periods from this day on, and ends before."""


class Ohlcv(FuturesKlines):
    """GET /fapi/v1/klines."""

    dataset = "ohlcv"
    path = "/fapi/v1/klines"


class PremiumIndex(FuturesKlines):
    """GET /fapi/v1/premiumIndexKlines."""

    dataset = "premium_index"
    path = "/fapi/v1/premiumIndexKlines"


class MarkPrice(FuturesKlines):
    """GET /fapi/v1/markPriceKlines."""

    dataset = "mark_price"
    path = "/fapi/v1/markPriceKlines"


class IndexPrice(FuturesKlines):
    """GET /fapi/v1/indexPriceKlines: all contracts of a pair have the same index."""

    dataset = "index_price"
    path = "/fapi/v1/indexPriceKlines"
    by_pair = True


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
    by_pair = True


class FundingRate(FundingEvents):
    """GET /fapi/v1/fundingRate."""

    dataset = "funding_rate"
    path = "/fapi/v1/fundingRate"
    pool = _FUNDING


class OpenInterest(PeriodStatistics):
    """GET /futures/data/openInterestHist."""

    dataset = "open_interest"
    route = "openInterestHist"
    fields: ClassVar = {"open_interest": "sumOpenInterest", "open_interest_value": "sumOpenInterestValue"}


class OpenInterestFiles(MetricsFiles):
    """Files of open interest."""

    dataset = "open_interest"
    market = "futures/um"
    layout = MetricsLayout({"open_interest": 2, "open_interest_value": 3}, starts_since=_STARTS_SINCE)


class LongShortRatio(AccountRatios):
    """GET /futures/data/globalLongShortAccountRatio, by symbol."""


class LongShortRatioFiles(MetricsFiles):
    """Files of the ratio of all accounts."""

    dataset = "long_short_ratio"
    market = "futures/um"
    layout = AccountRatioLayout({"long_short_ratio": 6}, starts_since=_STARTS_SINCE)


class TakerVolume(PeriodStatistics):
    """GET /futures/data/takerlongshortRatio."""

    dataset = "taker_volume"
    route = "takerlongshortRatio"
    fields: ClassVar = {"buy_volume": "buyVol", "sell_volume": "sellVol", "buy_sell_ratio": "buySellRatio"}


class BinanceUsdm(BinanceFutures):
    """Binance USDⓈ-M futures.

    >>> BinanceUsdm().endpoint("premium_index").cost(499).weight
    2
    """

    name = "binance-usdm"
    default_url = "https://fapi.binance.com"
    prefix = "/fapi/v1"
    weight = FUTURES_WEIGHT
    status_field = "status"
    symbol_examples: ClassVar = {"BTC/USDT:USDT": "BTCUSDT", "BTC/USDT:USDT-260925": "BTCUSDT_260925"}
    quirks = """
    - Funding and statistics have limits of their own, and their answers do not say how much is used: the
      requests are counted here.
    - Since 30 June 2026 Binance counts USDⓈ-M and COIN-M together: their requests share the limits of an
      address, but for funding.
    - The times in the files of statistics are the ends of periods up to 24 June 2026, and the starts
      since then. The store has ends, as the API does.
    """
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
        OpenInterestFiles,
        LongShortRatio,
        LongShortRatioFiles,
        TakerVolume,
    )
