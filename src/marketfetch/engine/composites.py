"""Composites: candles of a symbol that is computed from others. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import attrs
import numpy as np

from marketfetch.sources import DerivedSource
from marketfetch.values.pages import Columns

__all__ = ["CompositeOhlcv"]

_MEAN = frozenset({"open", "high", "low", "close"})


@attrs.frozen
class CompositeOhlcv(DerivedSource):
    """The candles of a composite: one for each open time at which every member has one.

    Prices (`open, high, low, close`) are averaged, all other columns are summed. A NULL in one member makes
    the result NULL.

    >>> from marketfetch.values.series import Series
    >>> eth, btc = (Series.of("okx", "ohlcv", name, "1m") for name in ("ETH-USDT", "BTC-USDT"))
    >>> rows = [Columns(np.array([0]), np.full((9, 1), value)) for value in (1.0, 3.0)]
    >>> CompositeOhlcv((eth, btc)).combine(rows).values[[0, 4], 0]
    array([2., 4.])
    """

    dataset = "ohlcv"

    def combine(self, rows: Sequence[Columns]) -> Columns:
        """Return the candles that follow from those of the members."""
        times = reduce(np.intersect1d, [member.times for member in rows])
        # The members are added in the order of the query: the sums have the same bits in every run.
        stacked = np.stack([member.values[:, np.searchsorted(member.times, times)] for member in rows])
        values = stacked.sum(axis=0)
        values[[at for at, name in enumerate(self.dataset_type.names) if name in _MEAN]] /= len(rows)
        return Columns(times, values)
