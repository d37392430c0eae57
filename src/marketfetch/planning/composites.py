"""Composite series: the mean of several symbols' prices and the sum of what counts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns

__all__ = ["combine", "intersect_coverage"]

_MEAN = frozenset({"open", "high", "low", "close"})


def combine(members: Sequence[Columns], dataset: Dataset) -> Columns:
    """Make the composite's rows, only for times at which every member has one.

    Prices (`open, high, low, close`) are averaged, everything else is summed; NULL in one member makes
    the sum NULL.

    >>> eth, btc = (Columns(np.array([0]), np.full((9, 1), value)) for value in (1.0, 3.0))
    >>> combine([eth, btc], Dataset.parse("ohlcv")).values[[0, 4], 0]
    array([2., 4.])
    """
    times = reduce(np.intersect1d, [member.times for member in members])
    # Members one after another, always in the same order: the sums are the same bits in every run.
    stacked = np.stack([member.values[:, np.searchsorted(member.times, times)] for member in members])
    values = stacked.sum(axis=0)
    values[[at for at, name in enumerate(dataset.names) if name in _MEAN]] /= len(members)
    return Columns(times, values)


def intersect_coverage(members: Sequence[Coverage]) -> Coverage:
    """Return what is known of a composite: everything known of all members.

    It is empty where one member is empty, and else unusable where one is unusable: there it has no candle.
    """
    covered = reduce(lambda left, right: left & right, [member.covered for member in members])
    empty = reduce(lambda left, right: left | right, [member.empty for member in members]) & covered
    unusable = reduce(lambda left, right: left | right, [member.unusable for member in members])
    return Coverage(covered, empty, unusable & covered - empty)
