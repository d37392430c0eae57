"""Compare a batch with the stored rows, column by column: which rows are new, and which differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marketfetch.values.pages import Columns

__all__ = ["diff_rows"]


def diff_rows(given: Columns, stored: Columns) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return two masks over the given rows: whether a row is new, and whether it changes a stored row.

    Both arguments are sorted by time. A NULL changes nothing, and neither does the sign of a zero.

    >>> given = Columns(np.array([0, 1, 2]), np.array([[5.0, np.nan, 7.0]]))
    >>> stored = Columns(np.array([0, 1]), np.array([[4.0, 6.0]]))
    >>> [mask.tolist() for mask in diff_rows(given, stored)]
    [[False, False, True], [True, False, False]]
    """
    if not len(stored):
        return np.ones(len(given), np.bool_), np.zeros(len(given), np.bool_)
    at = np.minimum(np.searchsorted(stored.times, given.times), len(stored) - 1)
    new = stored.times[at] != given.times
    changed = ((given.values != stored.values[:, at]) & ~np.isnan(given.values)).any(axis=0)
    return new, changed & ~new
