"""Composite series: mean prices and summed volumes of several symbols."""

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
    """Return the rows of a composite: one for each time at which every member has a row.

    Prices (`open, high, low, close`) are averaged, all other columns are summed. A NULL in one member makes
    the result NULL.

    >>> eth, btc = (Columns(np.array([0]), np.full((9, 1), value)) for value in (1.0, 3.0))
    >>> combine([eth, btc], Dataset.parse("ohlcv")).values[[0, 4], 0]
    array([2., 4.])
    """
    times = reduce(np.intersect1d, [member.times for member in members])
    # The members are added in the order of the query: the sums have the same bits in every run.
    stacked = np.stack([member.values[:, np.searchsorted(member.times, times)] for member in members])
    values = stacked.sum(axis=0)
    values[[at for at, name in enumerate(dataset.names) if name in _MEAN]] /= len(members)
    return Columns(times, values)


def intersect_coverage(members: Sequence[Coverage]) -> Coverage:
    """Return the coverage of a composite: the moments that are covered in all members.

    Such a moment is empty if one member is empty there, else unusable if one is unusable, else present.
    """
    covered = reduce(lambda left, right: left & right, [member.covered for member in members])
    empty = reduce(lambda left, right: left | right, [member.empty for member in members]) & covered
    unusable = reduce(lambda left, right: left | right, [member.unusable for member in members])
    return Coverage(covered, empty, unusable & covered - empty)
