"""The columns of one table beside those of another, as they were known at each row."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import ConfigurationError
from marketfetch.values.datasets import Column, Dataset
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import SECOND

__all__ = ["jitter_grid", "joined", "joined_dataset", "on_grid"]

_STATES = ("open_interest", "long_short_ratio")
"""Datasets whose values describe one time, and not the interval that begins there; so do events."""


def joined_dataset(left: Dataset, right: Dataset) -> Dataset:
    """Return a dataset with the columns of both; a name that both have gets the name of `right` in front.

    >>> from marketfetch.values.datasets import datasets
    >>> joined_dataset(datasets()["ohlcv"], datasets()["mark_price"]).names[-1]
    'mark_price_close'
    """
    added = tuple(_added(left, right, column) for column in right.columns)
    if twice := sorted({column.name for column in added} & {*left.names}):
        raise ConfigurationError(f"other: {', '.join(twice)} is in this table already; join each table once")
    return attrs.evolve(left, columns=(*left.columns, *added))


def _added(left: Dataset, right: Dataset, column: Column) -> Column:
    name = f"{right.name}_{column.name}" if column.name in left.names else column.name
    return attrs.evolve(column, name=name, optional=True, integer=column.integer or column.flag, flag=False)


def jitter_grid(grid: str | timedelta | Interval | None) -> Interval | None:
    """Return the grid on which events lie; ConfigurationError for one without steps of a fixed length."""
    if grid is None:
        return None
    try:
        interval = Interval.parse(grid)
    except ConfigurationError as error:
        raise ConfigurationError(f"grid: {str(error).removeprefix('interval: ')}") from None
    if interval.length is None or interval.is_event:
        raise ConfigurationError(
            f"grid: the steps of {interval.name} differ in length; write '1m', '1h' or None"
        )
    return interval


def on_grid(times: NDArray[np.int64], grid: Interval | None) -> NDArray[np.int64]:
    """Return times without jitter: those at most a second off a step of the grid are moved onto it.

    >>> on_grid(np.array([28_800_005, 28_799_990, 28_830_000]), Interval.parse("1h"))
    array([28800000, 28800000, 28830000])
    """
    if grid is None or grid.length is None:
        return times
    nearest = grid.floors(times + grid.length // 2)
    return np.where(np.abs(times - nearest) <= SECOND, nearest, times)


def joined(
    rows: Mapping[Series, Columns], other: Mapping[Series, Columns], right: Dataset, grid: Interval | None
) -> dict[Series, Columns]:
    """Return the rows with the columns of `other` of the same exchange and symbol; NULL where there are none.

    An event, or a state such as open interest, holds until the next one: each row gets the last one at or
    before its open time. A candle or a volume belongs to its own interval: each row gets the one of the same
    open time, and both tables must have the same interval, since a longer candle is known only at its end.
    """
    partners: dict[tuple[str, str], list[Series]] = {}
    for series in other:
        partners.setdefault((series.exchange, series.symbol), []).append(series)
    wanted = [(series.exchange, series.symbol) for series in rows]
    if rows and other and not any(name in partners for name in wanted):
        raise ConfigurationError(
            f"other: has no symbol of this table; it has {_names(list(partners))}, and this table "
            f"{_names(wanted)}"
        )
    lasting = right.event or right.name in _STATES
    result = {}
    for series, columns in rows.items():
        found = partners.get((series.exchange, series.symbol), [])
        if not lasting:
            found = _of_interval(series, found)
        if len(found) > 1:
            raise ConfigurationError(
                f"other: has {len(found)} intervals of {series.symbol}; join one of them"
            )
        added = np.full((len(right.columns), len(columns)), np.nan)
        if found:
            there = other[found[0]]
            times = on_grid(there.times, grid if right.event else None)
            place = np.searchsorted(times, columns.times, "right") - 1
            known = place >= 0
            if not lasting:
                known &= times[place] == columns.times if len(times) else False
            added[:, known] = there.values[:, place[known]]
        result[series] = Columns(columns.times, np.concatenate((columns.values, added)))
    return result


def _of_interval(series: Series, found: list[Series]) -> list[Series]:
    same = [each for each in found if each.interval == series.interval]
    if found and not same:
        if series.interval.is_event:
            raise ConfigurationError(
                f"other: has {found[0].interval.name} rows of {series.symbol}, and this table events; "
                f"join the other way round: candles.join(events)"
            )
        raise ConfigurationError(
            f"other: has {found[0].interval.name} rows of {series.symbol}, and this table "
            f"{series.interval.name}; resample the table with the shorter interval first"
        )
    return same


def _names(of: list[tuple[str, str]]) -> str:
    shown = [f"{symbol} of {exchange}" for exchange, symbol in of[:3]]
    return ", ".join(shown) + (f" and {len(of) - 3} more" if len(of) > 3 else "")
