"""A market whose rows are computed from their times, without any state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.testing.markets.decimal_text import FixedPointColumn, RenderedColumn
from marketfetch.testing.markets.market import MarketInstrument, MarketRows, Window
from marketfetch.testing.markets.noise import PriceFunction, hash_key, random_ints
from marketfetch.testing.markets.statistics import funding_events, statistics
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span

__all__ = ["GeneratedMarket"]

_MINUTE = 60_000
_CANDLES = frozenset({"ohlcv", "premium_index", "mark_price", "index_price"})
_MARK_PLACES = 8


class GeneratedMarket:
    """A market generated from a seed: plausible candles, premiums, funding and statistics for any symbol.

    A row depends only on seed, dataset, symbol, interval and its time: pages are the same in any order and
    in any process. A price is a function of time: candles of all intervals agree on their opens, and each
    close is the next open.

    Symbols are texts such as `BTCUSDT`, all listed at `listed_at` (UTC ms), or `MarketInstrument` values with
    their own dates. Candles wholly inside one of the `gaps` do not exist, as after an outage.

    >>> market = GeneratedMarket(["BTCUSDT"], seed=7)
    >>> page = market.rows("ohlcv", "BTCUSDT", Interval.parse("1h"), Window(0, 1_800_000_000_000, limit=3))
    >>> len(page), int(page.times[0]) == market.instruments["BTCUSDT"].listed_at
    (3, True)
    """

    def __init__(
        self,
        symbols: Iterable[str | MarketInstrument] = ("BTCUSDT", "ETHUSDT"),
        seed: int = 0,
        *,
        listed_at: int = 1_577_836_800_000,
        gaps: Iterable[Span] = (),
    ) -> None:
        listed = (
            MarketInstrument.parse(item, listed_at) if isinstance(item, str) else item for item in symbols
        )
        self._instruments = {instrument.symbol: instrument for instrument in listed}
        self._seed = seed
        self._gaps = tuple(gaps)

    @property
    def instruments(self) -> Mapping[str, MarketInstrument]:
        return self._instruments

    def rows(self, dataset: str, symbol: str, interval: Interval, window: Window) -> MarketRows:
        instrument = self._instruments[symbol]
        key = hash_key(self._seed, dataset, symbol, interval.name)
        if dataset == "funding_rate":
            return funding_events(instrument, key, self._price(symbol), window)
        opens = window.opens(interval, instrument.existing(interval, self._gaps))
        if dataset not in _CANDLES:
            return statistics(dataset, opens, key, self._price(symbol))
        if dataset == "ohlcv":
            return _traded(opens, interval, key, self._price(symbol))
        level = self._premium(symbol) if dataset == "premium_index" else self._mark(dataset, symbol)
        return _marked(opens, interval, key, level)

    def _price(self, symbol: str) -> PriceFunction:
        key = hash_key(self._seed, "price", symbol)
        centre = 20_000 + key % 400_000
        return PriceFunction(key, centre, centre, 1 + key % 5)

    def _premium(self, symbol: str) -> PriceFunction:
        return PriceFunction(hash_key(self._seed, "premium", symbol), 0, 100_000, _MARK_PLACES)

    def _mark(self, dataset: str, symbol: str) -> PriceFunction:
        # Mark and index prices have more decimals than the price, and are near but not equal to it.
        price = self._price(symbol)
        finer = int(10 ** (_MARK_PLACES - price.places))
        centre = price.centre * finer + hash_key(self._seed, dataset, symbol) % finer
        return attrs.evolve(price, centre=centre, swing=price.swing * finer, places=_MARK_PLACES)


def _prices(
    opens: NDArray[np.int64],
    interval: Interval,
    level: PriceFunction,
    up: NDArray[np.int64],
    down: NDArray[np.int64],
) -> dict[str, NDArray[np.int64]]:
    # In consecutive candles each close is the next open, and is computed once.
    ends = _ends(opens, interval)
    if np.array_equal(ends[:-1], opens[1:]):
        edges = level.at(np.append(opens, ends[-1:]))
        open_, close = edges[:-1], edges[1:]
    else:
        open_, close = level.at(opens), level.at(ends)
    wick = max(1, level.swing // 2**14)
    high, low = np.maximum(open_, close) + up * wick, np.minimum(open_, close) - down * wick
    return {"open": open_, "high": high, "low": low, "close": close}


def _ends(opens: NDArray[np.int64], interval: Interval) -> NDArray[np.int64]:
    if interval.length is not None:
        return opens + interval.length
    return np.array([interval.shift(int(time), 1) for time in opens], np.int64)


def _decimals(columns: Mapping[str, NDArray[np.int64]], places: int) -> dict[str, RenderedColumn]:
    return {name: FixedPointColumn(column, places) for name, column in columns.items()}


def _marked(opens: NDArray[np.int64], interval: Interval, key: int, level: PriceFunction) -> MarketRows:
    up, down = random_ints(key, opens, 5, 5)
    return MarketRows(opens, _decimals(_prices(opens, interval, level, up, down), level.places))


def _traded(opens: NDArray[np.int64], interval: Interval, key: int, level: PriceFunction) -> MarketRows:
    up, down, lots, share, count, quiet = random_ints(key, opens, 5, 5, 14, 8, 11, 6)
    prices = _prices(opens, interval, level, up, down)
    traded_at = (prices["open"] + prices["close"]) >> 1
    minutes = max(1, interval.typical // _MINUTE)
    lots = (lots + 1) * minutes
    if minutes == 1 and not quiet.all():
        # One minute in 64 has no trade: its price does not change and its volume is zero.
        lots = np.where(quiet == 0, 0, lots)
        prices = {name: np.where(quiet == 0, prices["open"], column) for name, column in prices.items()}
    taken = (lots * (share + 1) + 255) >> 8
    lot_places = max(0, 4 - level.places)
    turnover_places = lot_places + level.places
    volumes: dict[str, RenderedColumn] = {
        "volume": FixedPointColumn(lots, lot_places),
        "quote_volume": FixedPointColumn(lots * traded_at, turnover_places),
        "trades": FixedPointColumn(np.minimum(lots, 1 + count)),
        "taker_buy_volume": FixedPointColumn(taken, lot_places),
        "taker_buy_quote_volume": FixedPointColumn(taken * traded_at, turnover_places),
    }
    return MarketRows(opens, _decimals(prices, level.places) | volumes)
