"""The merge that every store promises, on arrays: a NULL never overwrites a value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns

__all__ = ["merge", "rows_equal"]


def merge(parts: Sequence[Columns], dataset: Dataset) -> Columns:
    """Unite parts, later ones over earlier ones, value by value; the result is sorted, one row for each time.

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
    # Some times occur more than once: lay the parts over one another in order.
    values = np.full(joined.values.shape, np.nan)
    for part in parts:
        rows = np.searchsorted(joined.times, part.times)
        values[:, rows] = np.where(np.isnan(part.values), values[:, rows], part.values)
    return Columns(joined.times, values)


def rows_equal(one: Columns, other: Columns) -> bool:
    """Tell whether two sets of rows are the same, value for value, NULL for NULL."""
    return np.array_equal(one.times, other.times) and np.array_equal(one.values, other.values, equal_nan=True)
