"""The store contract for the newest rows of series."""

from __future__ import annotations

import pytest

from marketfetch.protocols import Store, SupportsForget, SupportsLatest
from marketfetch.testing.contracts.sink_cases import (
    EVER,
    batch_of,
    batch_without_rows,
    minutes,
    same,
    series_of,
    write,
)
from marketfetch.values.pages import Columns
from marketfetch.values.spans import SpanSet

__all__ = ["LatestContract"]

_MONTH = 45_000
"""More minutes than a month has: rows so far apart are in two files of a store in files."""


class LatestContract:
    """Tests 37 to 39 of `SinkContract`, skipped for stores without SupportsLatest."""

    def test_37_the_newest_rows_are_the_end_of_all_rows(self, store: Store) -> None:
        """Sorted by time, of each series asked for; fewer where there are fewer."""
        finder, series, other = _latest_store(store), series_of(), series_of(dataset="funding_rate")
        for first in (0, _MONTH, 3 * _MONTH):  # the last part is newest, and was not written last
            write(store, batch_of(series, range(first, first + 7)))
        write(store, batch_of(series, range(20, 25)), batch_of(other, [0, 480]))
        write(store, batch_without_rows(series, empty=[minutes(3 * _MONTH + 7, 40 * _MONTH)]))
        everything = store.read(series, EVER)
        for limit in (1, 6, 7, 8, 15, 26, 1000):
            found = finder.latest([series, other], limit)
            same(found[series], everything.take(slice(-limit, None)))
            same(found[other], store.read(other, EVER).take(slice(-limit, None)))

    def test_38_a_series_without_rows_has_no_newest_row(self, store: Store) -> None:
        """Whether the store knows the series or not."""
        empty, unknown = series_of(), series_of(symbol="ETHUSDT")
        write(store, batch_without_rows(empty, empty=[minutes(0, 60)]))
        for series, rows in _latest_store(store).latest([empty, unknown], 10).items():
            same(rows, Columns.empty(series.dataset))

    def test_39_the_series_are_those_of_the_ledger(self, store: Store) -> None:
        """An empty store has none; a series whose coverage was forgotten is not one of them."""
        finder, series = _latest_store(store), series_of(symbol="币安/人生 'x'")
        assert list(finder.series()) == []
        write(store, batch_of(series, range(3)), batch_of(series_of(interval="1h"), [0]))
        assert set(finder.series()) == set(store.ledger()) == {series, series_of(interval="1h")}
        if isinstance(store, SupportsForget):
            store.forget(series, SpanSet.of(EVER), rows=True)
            assert set(finder.series()) == {series_of(interval="1h")}


def _latest_store(store: Store) -> SupportsLatest:
    if not isinstance(store, SupportsLatest):
        pytest.skip("this store has no latest()")
    return store
