"""Binance COIN-M futures, https://dapi.binance.com: klines of four kinds, funding, open interest, ratios.

A contract is worth a fixed number of US dollars and is settled in its base coin: `BTCUSD_PERP` in BTC. The
rows count contracts and base coin. `volume` is in base coin, as for every other exchange; the turnover in US
dollars is NULL, because no row says how many dollars a contract is worth.

Limits per address: 2400 weight in each minute of the server's clock; 1000 calls in five minutes for
`/futures/data`. Since 2026-06-30 Binance counts what is sent to COIN-M and to USDⓈ-M together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from marketfetch.adapter import (
    DAY,
    BadSymbol,
    CsvLayout,
    DecodedRows,
    Series,
    Slice,
    Source,
    TimeWindowPaginator,
)
from marketfetch.adapters.binance import KlineFiles, pair_of
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
    "BinanceCoinm",
    "CoinmIndexPriceFiles",
    "CoinmLongShortRatioFiles",
    "CoinmMarkPriceFiles",
    "CoinmOhlcvFiles",
    "CoinmOpenInterestFiles",
    "CoinmPremiumIndexFiles",
    "FundingRate",
    "IndexPrice",
    "LongShortRatio",
    "MarkPrice",
    "Ohlcv",
    "OpenInterest",
    "PremiumIndex",
    "TakerVolume",
]


class _CoinmKlines(FuturesKlines, abstract=True):
    """The kline routes: a window spans at most 200 days, and a page is filled from its end."""

    paginator = TimeWindowPaginator(anchor="end", max_span=200 * DAY)

    def first_row_request(self, series: Series, start: int) -> None:
        """Return None: a start without an end is answered with the newest rows of the next 200 days."""
        return


class Ohlcv(_CoinmKlines):
    """GET /dapi/v1/klines: fields 5 and 9 count contracts, fields 7 and 10 base coin."""

    dataset = "ohlcv"
    path = "/dapi/v1/klines"
    flow: ClassVar = {"volume": 7, "trades": 8, "taker_buy_volume": 10}


class PremiumIndex(_CoinmKlines):
    """GET /dapi/v1/premiumIndexKlines."""

    dataset = "premium_index"
    path = "/dapi/v1/premiumIndexKlines"


class MarkPrice(_CoinmKlines):
    """GET /dapi/v1/markPriceKlines."""

    dataset = "mark_price"
    path = "/dapi/v1/markPriceKlines"


class IndexPrice(_CoinmKlines):
    """GET /dapi/v1/indexPriceKlines: all contracts of a pair have the same index."""

    dataset = "index_price"
    path = "/dapi/v1/indexPriceKlines"
    by_pair = True


class FundingRate(FundingEvents):
    """GET /dapi/v1/fundingRate: dated contracts have no events."""

    dataset = "funding_rate"
    path = "/dapi/v1/fundingRate"
    pool = FUTURES_WEIGHT


class _PerpetualStatistics(PeriodStatistics, abstract=True):
    """Statistics by pair and contract type, of perpetual contracts only.

    A dated contract is the next quarter's first and the current quarter's later. An answer does not say which
    of the two contracts its rows are of.
    """

    def subject(self, series: Series) -> Mapping[str, str]:
        """Return the pair and the contract type; BadSymbol for a dated contract."""
        symbol = series.symbol
        if not symbol.endswith("_PERP"):
            raise BadSymbol(
                f"{series.exchange} serves {series.dataset} by contract type, and that of {symbol} changes;"
                f" ask for {pair_of(symbol)}_PERP"
            )
        return {"pair": pair_of(symbol), "contractType": "PERPETUAL"}


class OpenInterest(_PerpetualStatistics):
    """GET /futures/data/openInterestHist: `sumOpenInterest` counts contracts, its value is in base coin."""

    dataset = "open_interest"
    route = "openInterestHist"
    fields: ClassVar = {"open_interest": "sumOpenInterestValue"}


class LongShortRatio(AccountRatios):
    """GET /futures/data/globalLongShortAccountRatio: all contracts of a pair have the same ratio."""

    def subject(self, series: Series) -> Mapping[str, str]:
        """Return the pair."""
        return {"pair": pair_of(series.symbol)}


class TakerVolume(_PerpetualStatistics):
    """GET /futures/data/takerBuySellVol: the volumes count contracts, their values are in base coin."""

    dataset = "taker_volume"
    route = "takerBuySellVol"
    fields: ClassVar = {"buy_volume": "takerBuyVolValue", "sell_volume": "takerSellVolValue"}

    def decode(self, body: bytes, part: Slice) -> DecodedRows:
        """Decode the volumes, and compute the ratio; NULL where nothing was sold."""
        decoded = super().decode(body, part)
        bought, sold, ratio = decoded.columns.values
        with np.errstate(all="ignore"):  # the ratio of wrong volumes is refused with them
            np.divide(bought, sold, out=ratio, where=sold > 0)
        return decoded


class CoinmOhlcvFiles(KlineFiles):
    """Files of candles: fields 5 and 9 count contracts, 7 and 10 base coin, whatever the header says."""

    dataset = "ohlcv"
    market = "futures/cm"
    layout = CsvLayout({**KlineFiles.layout.columns, **Ohlcv.flow}, width=12)


class CoinmPremiumIndexFiles(KlineFiles):
    """Files of premium index candles."""

    dataset = "premium_index"
    market = "futures/cm"
    kind = "premiumIndexKlines"


class CoinmMarkPriceFiles(KlineFiles):
    """Files of mark price candles."""

    dataset = "mark_price"
    market = "futures/cm"
    kind = "markPriceKlines"


class CoinmIndexPriceFiles(KlineFiles):
    """Files of index price candles, by pair."""

    dataset = "index_price"
    market = "futures/cm"
    kind = "indexPriceKlines"
    by_pair = True


class CoinmOpenInterestFiles(MetricsFiles):
    """Files of open interest: field 2 counts contracts, field 3 base coin."""

    dataset = "open_interest"
    market = "futures/cm"
    layout = MetricsLayout({"open_interest": 3})


class CoinmLongShortRatioFiles(MetricsFiles):
    """Files of the ratio of all accounts, which is empty in those of the first years."""

    dataset = "long_short_ratio"
    market = "futures/cm"
    layout = AccountRatioLayout({"long_short_ratio": 6})


class BinanceCoinm(BinanceFutures):
    """Binance COIN-M futures: perpetual contracts (`BTCUSD_PERP`) and dated ones (`BTCUSD_260626`).

    >>> BinanceCoinm().endpoint("ohlcv").cost(499).weight
    2
    """

    name = "binance-coinm"
    default_url = "https://dapi.binance.com"
    prefix = "/dapi/v1"
    weight = FUTURES_WEIGHT
    status_field = "contractStatus"
    symbol_examples: ClassVar = {"BTC/USD:BTC": "BTCUSD_PERP", "BTC/USD:BTC-260626": "BTCUSD_260626"}
    quirks = """
    - The exchange counts contracts. `volume` and the other amounts in the store are in base coin, and the
      turnover in US dollars is NULL.
    - A request for candles spans 200 days at most, and its page is filled from the end.
    - `open_interest` and `taker_volume` exist for perpetual contracts alone. Dated contracts have no
      funding events.
    - All contracts of a pair have the same `long_short_ratio`.
    - Since 30 June 2026 Binance counts COIN-M and USDⓈ-M together: their requests share the limits of an
      address.
    """
    sources: ClassVar[Sequence[type[Source]]] = (
        Ohlcv,
        CoinmOhlcvFiles,
        PremiumIndex,
        CoinmPremiumIndexFiles,
        MarkPrice,
        CoinmMarkPriceFiles,
        IndexPrice,
        CoinmIndexPriceFiles,
        FundingRate,
        OpenInterest,
        CoinmOpenInterestFiles,
        LongShortRatio,
        CoinmLongShortRatioFiles,
        TakerVolume,
    )
