"""Sorting sound rows from the others: every row of an answer has one defined outcome, and is counted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marketfetch.arithmetic.decoding import Decoded
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns, Page
from marketfetch.values.series import Slice
from marketfetch.values.spans import SpanSet

__all__ = ["inspect", "possible"]

_SIGNED = frozenset({"premium_index", "funding_rate"})
"""Datasets whose prices and rates may be negative."""


def possible(dataset: Dataset, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell for each row whether its values can be true.

    NULL only where a column may be NULL, nothing infinite, low ≤ open, close ≤ high, nothing negative
    that counts or prices something (a premium or a funding rate may be).

    >>> rows = np.array([[1.0, 1.0], [2.0, 0.5], [0.5, 0.6], [1.5, 0.7]])
    >>> possible(Dataset.parse("mark_price"), rows)
    array([ True, False])
    """
    sound = np.ones(values.shape[1], np.bool_)
    sound &= ~np.isinf(values).any(axis=0)
    required = [at for at, column in enumerate(dataset.columns) if not column.optional]
    sound &= ~np.isnan(values[required]).any(axis=0)
    sound &= _is_ordered(dataset, values)
    if dataset.name not in _SIGNED:
        # NaN compares false, so that a NULL is never negative.
        sound &= ~(values < 0).any(axis=0)
    return sound


def inspect(decoded: Decoded, part: Slice) -> Page:
    """Keep the rows that may be stored and account for all others.

    Kept: inside the asked span, on the series' grid, closed, possible; sorted, one for each time (the
    last of several). The others are counted by reason.
    """
    if _flawless(decoded, part):  # nearly every page is, and this is a third of the work
        return Page(decoded.columns, received=decoded.received, cursor=decoded.cursor)
    return _sorted_out(decoded, part)


def _flawless(decoded: Decoded, part: Slice) -> bool:
    """Tell whether every row may be stored, in the order in which they are."""
    times, values, dataset = decoded.columns.times, decoded.columns.values, part.series.dataset
    if not len(times) or decoded.undecodable or (decoded.closed is not None and not decoded.closed.all()):
        return False
    if times[0] < part.span.start or times[-1] >= part.span.end:
        return False
    if not decoded.columns.is_sorted or not part.series.interval.aligned(times).all():
        return False
    if not np.isfinite(values).all() or (dataset.name not in _SIGNED and values.min() < 0):
        return False
    return bool(_is_ordered(dataset, values).all())


def _is_ordered(dataset: Dataset, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell for each row whether low ≤ open, close ≤ high, where it has such columns."""
    if dataset.names[:4] != ("open", "high", "low", "close"):
        return np.ones(values.shape[1], np.bool_)
    opened, high, low, close = values[:4]
    ordered: NDArray[np.bool_] = (low <= opened) & (low <= close) & (opened <= high) & (close <= high)
    return ordered


def _sorted_out(decoded: Decoded, part: Slice) -> Page:
    columns, span, interval = decoded.columns, part.span, part.series.interval
    times = columns.times
    rejected: dict[str, int] = {}
    if decoded.undecodable:
        rejected["undecodable"] = decoded.undecodable

    def reject(reason: str, rows: NDArray[np.bool_]) -> None:
        if count := int(np.count_nonzero(rows)):
            rejected[reason] = count

    inside = (times >= span.start) & (times < span.end)
    aligned = interval.aligned(times)
    closed = np.ones(len(times), np.bool_) if decoded.closed is None else decoded.closed
    sound = possible(part.series.dataset, columns.values)
    fit = inside & aligned
    reject("outside the window", ~inside)
    reject("off the grid", inside & ~aligned)
    reject("unfinished", fit & ~closed)
    reject("impossible", fit & closed & ~sound)
    good = fit & closed & sound
    kept = columns if good.all() else columns.take(good)
    unique = Columns.join([kept])
    if duplicates := len(kept) - len(unique):
        rejected["duplicate"] = duplicates
    # A row off the grid denies nothing, either: the whole of the exchange's grid may be another one.
    spoiled = interval.cells(times[inside & ~good]) - interval.cover(unique.times)
    if decoded.undecodable:
        # Which moments the broken rows stood for is unknown: nothing may be called absent.
        spoiled |= SpanSet.of(span) - interval.cover(unique.times)
    return Page(unique, rejected, spoiled, decoded.received, not bool(inside.all()), decoded.cursor)
