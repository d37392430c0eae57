"""Validation: each row of a response is kept, or counted under one reason."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.decoding.layouts import DecodedRows
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns, Page
from marketfetch.values.rejected_rows import RejectedRow, raw_text
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

__all__ = ["CheckedRows", "all_sound", "check_rows", "plausible", "validate_page"]

_SIGNED = frozenset({"premium_index", "funding_rate"})
"""Datasets whose prices and rates may be negative."""
_COMPANIONS = frozenset({"mark_price"})
"""Optional columns that are no value by themselves: a mark price without the rate that was paid."""
_MAX_INVALID = 10_000
"""No exchange has pages with more wrong rows: a page with more is not believed about any of them."""


def plausible(dataset: Dataset, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell for each row whether its values can be true.

    NULL only in optional columns, and not in all; nothing infinite; whole counts; low ≤ open, close ≤ high;
    no negative prices and counts (a premium or a funding rate may be negative).

    >>> rows = np.array([[1.0, 1.0], [2.0, 0.5], [0.5, 0.6], [1.5, 0.7]])
    >>> plausible(Dataset.parse("mark_price"), rows)
    array([ True, False])
    """
    sound = _can_be_stored(dataset, values) & _has_value(dataset, values)
    sound &= _is_ordered(dataset, values)
    if dataset.name not in _SIGNED:
        # NaN compares false, so that a NULL is never negative.
        sound &= ~(values < 0).any(axis=0)
    return sound


def _can_be_stored(dataset: Dataset, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell for each row whether a table could hold it.

    Nothing infinite, no NULL in a required column, and a whole number below 2**63 in each integer column.
    """
    required = [at for at, column in enumerate(dataset.columns) if not column.optional]
    storable = np.ones(values.shape[1], np.bool_)
    storable &= ~np.isinf(values).any(axis=0)
    storable &= ~np.isnan(values[required]).any(axis=0)
    storable &= _has_whole_counts(dataset, values)
    return storable


def _has_whole_counts(dataset: Dataset, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell for each row whether its integer columns hold 64-bit integers or NULL: 1.5 trades are wrong."""
    whole = np.ones(values.shape[1], np.bool_)
    for at, column in enumerate(dataset.columns):
        if column.integer:
            counts = values[at]
            whole &= np.isnan(counts) | ((counts == np.floor(counts)) & (np.abs(counts) < 2.0**63))
    return whole


def _has_value(dataset: Dataset, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell for each row whether it has a value: a funding event whose rate is not filled in has none."""
    telling = [at for at, column in enumerate(dataset.columns) if not column.optional]
    if not telling:
        telling = [at for at, column in enumerate(dataset.columns) if column.name not in _COMPANIONS]
    valued = np.ones(values.shape[1], np.bool_)
    valued &= ~np.isnan(values[telling]).all(axis=0)
    return valued


@attrs.frozen(eq=False)
class CheckedRows:
    """Which decoded rows may be stored, and how many may not, by reason.

    `sound` and `reasons` have an entry for each row of the columns; the reason of a sound row is empty.
    `rejected` counts the undecodable rows, too.
    """

    sound: NDArray[np.bool_]
    reasons: NDArray[np.object_]
    rejected: dict[str, int]


def check_rows(decoded: DecodedRows, series: Series, span: Span) -> CheckedRows:
    """Tell for each row whether it is inside the span, closed, with a value, on the grid and possible.

    Each row is counted under the first of these that is not true of it.

    >>> mark = Series.of("okx", "mark_price", "BTC-USDT-SWAP", "1m")
    >>> rows = Columns(np.array([0, 90_000]), np.ones((4, 2)))
    >>> check_rows(DecodedRows(rows), mark, Span(0, 120_000)).rejected
    {'off the grid': 1}
    """
    times, values = decoded.columns.times, decoded.columns.values
    rejected: dict[str, int] = {}
    reasons = np.full(len(times), "", object)
    sound = np.ones(len(times), np.bool_)
    for reason, found in (
        ("outside the window", (times < span.start) | (times >= span.end)),
        ("unfinished", np.zeros(len(times), np.bool_) if decoded.closed is None else ~decoded.closed),
        ("without a value", ~_has_value(series.dataset, values)),
        ("off the grid", ~series.interval.aligned(times)),
        ("impossible", ~plausible(series.dataset, values)),
    ):
        rows = sound & found
        if count := int(np.count_nonzero(rows)):
            rejected[reason], reasons[rows] = count, reason
            sound &= ~rows
    for reason in _reasons_of_broken(decoded, span):
        rejected[reason] = rejected.get(reason, 0) + 1
    return CheckedRows(sound, reasons, rejected)


def validate_page(decoded: DecodedRows, part: Slice) -> Page:
    """Keep the rows that may be stored, and count all others by reason.

    Kept rows are inside the asked span, on the grid, closed, with a value and possible. They are sorted, one
    for each time (the last of several). Rows off the grid, impossible rows and rows with text for a number
    are wrong for good; rows that are unfinished or without a value may become right.
    """
    if decoded.columns.is_sorted and all_sound(decoded, part.series, part.span):
        earliest = int(decoded.columns.times[0])
        return Page(decoded.columns, received=decoded.received, cursor=decoded.cursor, earliest=earliest)
    return _validate_each(decoded, part)


def all_sound(decoded: DecodedRows, series: Series, span: Span) -> bool:
    """Tell whether there are rows and every one may be stored: a third of the work of `check_rows`.

    >>> mark = Series.of("okx", "mark_price", "BTC-USDT-SWAP", "1m")
    >>> all_sound(DecodedRows(Columns(np.array([0, 60_000]), np.ones((4, 2)))), mark, Span(0, 120_000))
    True
    """
    times, values, dataset = decoded.columns.times, decoded.columns.values, series.dataset
    if not len(times) or decoded.undecodable or (decoded.closed is not None and not decoded.closed.all()):
        return False
    if times.min() < span.start or times.max() >= span.end or not series.interval.aligned(times).all():
        return False
    # With a NaN both are NaN, which compares false. Where nothing is NULL, every row has a value.
    least, greatest = values.min(), values.max()
    if not (least > -np.inf and greatest < np.inf) or (least < 0 and dataset.name not in _SIGNED):
        return False
    return bool(_has_whole_counts(dataset, values).all() and _is_ordered(dataset, values).all())


def _is_ordered(dataset: Dataset, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell for each row whether low ≤ open, close ≤ high; true for datasets without these columns."""
    if dataset.names[:4] != ("open", "high", "low", "close"):
        return np.ones(values.shape[1], np.bool_)
    opened, high, low, close = values[:4]
    ordered: NDArray[np.bool_] = (low <= opened) & (low <= close) & (opened <= high) & (close <= high)
    return ordered


def _validate_each(decoded: DecodedRows, part: Slice) -> Page:
    columns, span, interval = decoded.columns, part.span, part.series.interval
    times, checked = columns.times, check_rows(decoded, part.series, span)
    rejected = checked.rejected
    kept = columns if checked.sound.all() else columns.take(checked.sound)
    unique = Columns.join([kept])
    if duplicates := len(kept) - len(unique):
        rejected["duplicate"] = duplicates
    outside = checked.reasons == "outside the window"
    broken = [row for row in decoded.broken if row.time in span]
    # Rows off the grid count, too: the step in which such a row lies is not absent.
    bad = [*times[~outside & ~checked.sound].tolist(), *(row.time for row in broken)]
    earliest = min([*bad, *unique.times[:1].tolist()], default=None)
    without_sound_row = interval.cells(np.array(bad, np.int64)) - interval.cover(unique.times)
    if decoded.undecodable > len(decoded.broken):
        # The times of some broken rows are unknown: no moment of the window may be called absent.
        without_sound_row = SpanSet.of(span) - interval.cover(unique.times)
    invalid, storable = _invalid(decoded, part, checked.reasons, without_sound_row)
    return Page(
        unique,
        rejected,
        without_sound_row,
        decoded.received,
        has_rows_outside="outside the window" in rejected,
        cursor=decoded.cursor,
        invalid=invalid,
        storable=storable,
        earliest=earliest,
    )


def _reasons_of_broken(decoded: DecodedRows, span: Span) -> Iterator[str]:
    yield from (row.reason if row.time in span else "outside the window" for row in decoded.broken)
    yield from repeat("undecodable", decoded.undecodable - len(decoded.broken))


def _invalid(
    decoded: DecodedRows, part: Slice, reasons: NDArray[np.object_], without_sound_row: SpanSet
) -> tuple[tuple[RejectedRow, ...], Columns | None]:
    """Return the rows that are wrong for good, in moments without a sound row; and the storable ones.

    Example: of two rows for 09:00, one of them with high below low, only the other one counts: the wrong one
    is not returned.
    """
    if not without_sound_row:
        return (), None
    columns, interval, dataset = decoded.columns, part.series.interval, part.series.dataset
    wrong = np.flatnonzero((reasons == "off the grid") | (reasons == "impossible"))
    if len(wrong) + len(decoded.broken) > _MAX_INVALID:
        return (), None
    lone = [at for at in wrong.tolist() if interval.floor(int(columns.times[at])) in without_sound_row]
    rows = [RejectedRow(int(columns.times[at]), reasons[at], _raw(decoded, dataset, at)) for at in lone]
    broken = (row for row in decoded.broken if row.reason == "undecodable" and row.time in part.span)
    rows += [row for row in broken if interval.floor(row.time) in without_sound_row]
    candidates = columns.take(np.array(lone, np.intp))
    storable = candidates.take(_can_be_stored(dataset, candidates.values))
    return tuple(rows), storable if len(storable) else None


def _raw(decoded: DecodedRows, dataset: Dataset, at: int) -> str:
    if decoded.raw is not None:
        return decoded.raw(at)
    return raw_text(dict(zip(dataset.names, decoded.columns.values[:, at].tolist(), strict=True)))
