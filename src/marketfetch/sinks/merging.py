"""The merge that every store does, on arrays: NULL never overwrites a value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns

__all__ = ["merge", "rows_equal"]


def merge(parts: Sequence[Columns], dataset: Dataset) -> Columns:
    """Merge parts value by value, where a later part wins; the result is sorted, with one row for each time.

    >>> old = Columns(np.array([0]), np.array([[1.0], [2.0]]))
    >>> new = Columns(np.array([0]), np.array([[5.0], [np.nan]]))
    >>> merge([old, new], Dataset.parse("open_interest")).values[:, 0]
    array([5., 2.])
    """
    parts = [part for part in parts if len(part)]
    if not parts:
        return Columns.empty(dataset)
    joined = Columns.join(parts)
    if len(joined) == sum(map(len, parts)):
        return joined
    # Some times are in several parts: write the parts over one another in their order.
    values = np.full(joined.values.shape, np.nan)
    for part in parts:
        rows = np.searchsorted(joined.times, part.times)
        values[:, rows] = np.where(np.isnan(part.values), values[:, rows], part.values)
    return Columns(joined.times, values)


def rows_equal(one: Columns, other: Columns) -> bool:
    """Tell whether two sets of rows are equal, NULL being equal to NULL."""
    return np.array_equal(one.times, other.times) and np.array_equal(one.values, other.values, equal_nan=True)
