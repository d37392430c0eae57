"""Funding events and statistics of a generated market: open interest, ratios, taker volume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marketfetch.testing.markets.decimal_text import FixedPointColumn, RenderedColumn, TextColumn
from marketfetch.testing.markets.market import MarketInstrument, MarketRows, Window
from marketfetch.testing.markets.noise import PriceFunction, random_ints
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span, SpanSet

__all__ = ["funding_events", "statistics"]

_FUNDING = Interval.parse("8h")
_JITTER_BITS = 4
_MARKS_SINCE = 1_641_081_600_000
"""2022-01-02: earlier events have no mark price."""


def funding_events(
    instrument: MarketInstrument, key: int, price: PriceFunction, window: Window
) -> MarketRows:
    """Return funding events: every eight hours, up to 15 ms late, some followed by a `special` event.

    Columns: `funding_rate`, `mark_price` (empty text if absent), `special` (1 for an extra event at the same
    time as a regular one).
    """
    # The delay can move an event across the window's edge: compute one more event on each side, then cut.
    reach = 1 << _JITTER_BITS
    limit = None if window.limit is None else window.limit + 1
    due = Window(window.start - reach, window.end, limit, window.newest)
    grid = due.opens(_FUNDING, _existing(instrument))
    late, rates, unmarked, special_here = random_ints(key, grid, _JITTER_BITS, 16, 4, 5)
    times, rates = grid + late, rates - 2**14
    unmarked, special_here = (unmarked == 0) | (grid < _MARKS_SINCE), special_here == 0
    rows = np.repeat(np.arange(len(grid)), 1 + special_here)
    special = np.append(False, rows[1:] == rows[:-1]) if len(rows) else np.empty(0, np.bool_)
    marks = [
        "" if none else f"{mark / 10**price.places:.8f}"
        for mark, none in zip(price.at(grid), unmarked, strict=True)
    ]
    columns: dict[str, RenderedColumn] = {
        "funding_rate": FixedPointColumn(np.where(special, rates[rows] // 3 + 1, rates[rows]), 8),
        "mark_price": TextColumn(np.array(marks or [""], np.bytes_)[rows] if marks else np.empty(0, "S4")),
        "special": FixedPointColumn(special.astype(np.int64)),
    }
    table = MarketRows(times[rows], columns)
    return table.take(window.cut(table.times))


def _existing(instrument: MarketInstrument) -> SpanSet:
    first = _FUNDING.ceil(instrument.listed_at + 1)
    life = instrument.existing(_FUNDING).spans[-1]
    return SpanSet.of(Span(first, life.end)) if first < life.end else SpanSet()


def statistics(dataset: str, times: NDArray[np.int64], key: int, price: PriceFunction) -> MarketRows:
    """Return a statistic at given times; the columns are named as in the library's datasets."""
    if dataset == "open_interest":
        (lots,) = random_ints(key, times, 24) + 10**8
        value = lots // 1000 * price.at(times)
        return MarketRows(
            times,
            {
                "open_interest": FixedPointColumn(lots, 3),
                "open_interest_value": FixedPointColumn(value, price.places),
            },
        )
    if dataset == "taker_volume":
        bought, sold = random_ints(key, times, 20, 20) + 1000
        ratio = bought * 10_000 // sold
        return MarketRows(
            times,
            {
                "buy_volume": FixedPointColumn(bought, 3),
                "sell_volume": FixedPointColumn(sold, 3),
                "buy_sell_ratio": FixedPointColumn(ratio, 4),
            },
        )
    if dataset in {"long_short_ratio", "top_account_ratio", "top_position_ratio"}:
        (long,) = random_ints(key, times, 12) + 3000
        short = 10_000 - long
        return MarketRows(
            times,
            {
                "long_short_ratio": FixedPointColumn(long * 10_000 // short, 4),
                "long_account": FixedPointColumn(long, 4),
                "short_account": FixedPointColumn(short, 4),
            },
        )
    raise KeyError(dataset)
