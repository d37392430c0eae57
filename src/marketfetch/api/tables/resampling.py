"""Candles of a longer interval, computed from the rows of a table."""

from __future__ import annotations

import math
from itertools import pairwise

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import ConfigurationError
from marketfetch.reports import SeriesReport
from marketfetch.values.datasets import Column, Dataset
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Columns
from marketfetch.values.spans import DAY, Span, SpanSet

__all__ = ["COMPLETE", "check_divides", "resampled", "resampled_dataset"]

COMPLETE = Column("complete", flag=True)
_VOLUMES = (
    "volume", "quote_volume", "trades", "taker_buy_volume", "taker_buy_quote_volume", "buy_volume",
    "sell_volume",
)  # fmt: skip
_RATIO = "buy_sell_ratio"
_KNOWN = {"open", "high", "low", "close", *_VOLUMES, _RATIO, COMPLETE.name}


def resampled_dataset(dataset: Dataset) -> Dataset:
    """Return the dataset of resampled rows; ConfigurationError for columns that cannot be resampled."""
    if dataset.event:
        raise ConfigurationError(
            f"resample: {dataset.name} has events, which are not candles; resample candles, then take the "
            f"event in force at each of them: candles.resample('4h').join({dataset.name.split('_')[0]})"
        )
    strange = [name for name in dataset.names if name not in _KNOWN]
    if strange:
        raise ConfigurationError(
            f"resample: {', '.join(strange)} of {dataset.name} is neither a price nor a volume; resample "
            "candles, then join the table: candles.resample('4h').join(other)"
        )
    columns = tuple(column for column in dataset.columns if column != COMPLETE)
    return attrs.evolve(dataset, columns=(*columns, COMPLETE))


def check_divides(source: Interval, target: Interval) -> None:
    """Raise ConfigurationError unless each row of `target` consists of whole rows of `source`.

    >>> check_divides(Interval.parse("1d"), Interval.parse("1w"))
    >>> check_divides(Interval.parse("4h"), Interval.parse("6h"))
    Traceback (most recent call last):
    marketfetch.errors.ConfigurationError: interval: 4h rows do not divide 6h; take rows of a shorter interval
    """
    length = 0 if target.is_event else target.length or DAY  # a month is made of days
    if source == target:
        return
    divides = (
        source.length is not None
        and length >= source.length
        and length % source.length == 0
        and (target.anchor - source.anchor) % source.length == 0
    )
    if not divides:
        raise ConfigurationError(
            f"interval: {source.name} rows do not divide {target.name}; take rows of a shorter interval"
        )


def resampled(
    dataset: Dataset, rows: Columns, source: Interval, target: Interval, line: SeriesReport | None
) -> Columns:
    """Return the rows of one series in a longer interval, with the column `complete` at the end.

    A row is complete if each of its parts is a row or, by the report `line`, confirmed empty. A row at a
    missing moment is provisional: it does not count. Sums are rounded once, and NULL with any NULL among
    their parts: nobody knows them.
    """
    if not len(rows):
        return Columns.empty(resampled_dataset(dataset))
    bars = target.floors(rows.times)
    starts = np.flatnonzero(np.append(True, bars[1:] != bars[:-1]))
    opens = bars[starts]
    columns = dict(zip(dataset.names, rows.values, strict=True))
    found = {name: _combined(name, values, starts) for name, values in columns.items()}
    if _RATIO in columns:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = found["buy_volume"] / found["sell_volume"]
        found[_RATIO] = np.where(np.isfinite(ratio), ratio, np.nan)
    counts = np.diff(np.append(starts, len(rows)))
    if line:
        held = Span(int(opens[0]), target.shift(int(opens[-1]), 1))
        empty = _whole_rows(line.empty & SpanSet.of(held), source)
        missing = SpanSet(tuple(span for gap in line.missing for span in gap.spans))
        provisional = rows.within(missing).times
        counts += _per_bar(opens, target.floors(empty)) - _per_bar(opens, target.floors(provisional))
    parts = found.pop(COMPLETE.name, np.ones(len(opens)))
    complete = (counts == _parts(opens, source, target)) & (parts == 1)
    return Columns(opens, np.array([*found.values(), complete], np.float64))


def _per_bar(opens: NDArray[np.int64], bars: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count how often each of `opens` is among the sorted `bars`."""
    return np.searchsorted(bars, opens, "right") - np.searchsorted(bars, opens)


def _whole_rows(spans: SpanSet, interval: Interval) -> NDArray[np.int64]:
    """Return the open times of the rows that lie inside spans as a whole."""
    inside = [(interval.ceil(span.start), interval.floor(span.end)) for span in spans]
    grids = [interval.grid(Span(start, end)) for start, end in inside if start < end]
    return np.concatenate(grids or [np.empty(0, np.int64)])


def _combined(name: str, values: NDArray[np.float64], starts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the value of each longer row: that of the first or last row, the extreme, or the sum."""
    match name:
        case "open" | "buy_sell_ratio":
            return values[starts]
        case "close":
            last: NDArray[np.intp] = np.append(starts[1:], len(values)) - 1
            return values[last]
        case "high":
            return np.asarray(np.maximum.reduceat(values, starts), np.float64)
        case "low" | "complete":
            return np.asarray(np.minimum.reduceat(values, starts), np.float64)
        case _:
            plain, bounds = values.tolist(), [*starts.tolist(), len(values)]
            return np.array([math.fsum(plain[start:end]) for start, end in pairwise(bounds)])


def _parts(opens: NDArray[np.int64], source: Interval, target: Interval) -> NDArray[np.int64]:
    """Return how many rows of `source` each row of `target` consists of."""
    if source == target or source.length is None:
        return np.ones(len(opens), np.int64)
    ends = target.floors(opens + 32 * DAY) if target.length is None else opens + target.length
    return (ends - opens) // source.length
