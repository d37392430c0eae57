"""The contract of every store, as a class of numbered tests to subclass.

Needs `marketfetch[testing]`, which has pytest and hypothesis.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfetch.protocols import Store
from marketfetch.testing.contracts.sink_cases import (
    EVER,
    MINUTE,
    NULL,
    START,
    batch_at,
    batch_of,
    column_of,
    minutes,
    same,
    series_of,
    values_of,
    write,
)
from marketfetch.testing.contracts.sink_latest import LatestContract
from marketfetch.testing.contracts.sink_ledger import LedgerContract
from marketfetch.testing.contracts.sink_provenance import ProvenanceContract
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import datasets
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.spans import Span, SpanSet

__all__ = ["SinkContract"]

_NASTY = (5e-324, 2.2250738585072014e-308, 1e308, 0.1 + 0.2, 1 / 3, -1e-7, 123456789.12345679, 2.0**53 + 2)


class SinkContract(LedgerContract, ProvenanceContract, LatestContract):
    """Subclass it as `TestMyStore` and override `make_store`; every test uses its own path.

    Set `lasting = False` for a store whose data ends with its instance, such as one in memory. Override
    `write_format` for a store whose files contain the version of their format.

    >>> from marketfetch.sinks import MemorySink
    >>> class TestMemory(SinkContract):
    ...     lasting = False
    ...
    ...     def make_store(self, place: Path) -> Store:
    ...         return MemorySink()
    """

    lasting: ClassVar[bool] = True

    def make_store(self, place: Path) -> Store:
        """Return a store for a path in an existing, empty folder; nothing exists at the path yet.

        A second call with the same path must return another instance of the same store.
        """
        raise NotImplementedError("override make_store(place)")

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        """The path of the test's store."""
        return tmp_path / "store"

    @pytest.fixture
    def store(self, place: Path) -> Store:
        """A store prepared for every dataset."""
        store = self.make_store(place)
        store.prepare([*datasets().values()])
        return store

    # --- opening ---

    def test_01_making_a_store_touches_nothing(self, place: Path) -> None:
        """The constructor does no I/O: a command may create a store only to print its name."""
        store = self.make_store(place)
        assert isinstance(store, Store)
        assert store.max_writers >= 1, f"max_writers is {store.max_writers}; at least 1 is needed"
        assert not list(place.parent.iterdir()), "the constructor created a file"

    def test_02_prepare_may_be_repeated(self, store: Store) -> None:
        """Every run calls `prepare`, also on an existing store; stored rows stay."""
        series = series_of()
        write(store, batch_of(series, range(3)))
        store.prepare([series.dataset])
        store.prepare([*datasets().values()])
        assert len(store.read(series, EVER)) == 3

    # --- rows ---

    def test_03_rows_come_back_as_they_were(self, store: Store) -> None:
        """Every float64 is read back bit by bit (except the sign of zero), and every NULL as NaN."""
        series, starts = series_of(), count(0, 100)

        @settings(max_examples=8, deadline=None)
        @given(st.lists(st.tuples(*map(values_of, series.dataset.columns)), min_size=1, max_size=30))
        def check(rows: list[tuple[float, ...]]) -> None:
            first = next(starts)  # times that no other example uses
            times = START + MINUTE * np.arange(first, first + len(rows))
            sent = Columns(times, np.array(rows).T)
            write(store, Batch(series, sent, Coverage(series.interval.cover(times))))
            same(store.read(series, Span(int(times[0]), int(times[-1]) + 1)), sent)

        check()

    def test_04_numbers_that_text_and_decimals_get_wrong_survive(self, store: Store) -> None:
        """Denormals, very large numbers, and numbers that need 17 digits."""
        sent = batch_of(series_of(), range(len(_NASTY)), quote_volume=_NASTY)
        write(store, sent)
        same(store.read(sent.series, EVER), sent.columns)

    def test_05_a_batch_may_have_tens_of_thousands_of_rows(self, store: Store) -> None:
        """The engine sends batches of 20,000 rows and more, also across ends of months and years."""
        sent = batch_of(series_of(), range(-20_000, 20_000))
        write(store, sent)
        same(store.read(sent.series, EVER), sent.columns)

    @pytest.mark.parametrize("name", ["1m", "1h", "1d", "1w", "1M"])
    def test_06_every_grid_is_kept(self, store: Store, name: str) -> None:
        """Weeks and calendar months are stored like minutes, also across years."""
        series = series_of(interval=name)
        end = series.interval.shift(series.interval.floor(START), 15)
        times = series.interval.grid(Span(START - 40 * 86_400_000, end))
        sent = batch_at(series, times)
        write(store, sent)
        same(store.read(series, EVER), sent.columns)
        assert store.coverage([series])[series] == sent.coverage

    def test_07_events_keep_their_milliseconds(self, store: Store) -> None:
        """Event times are on no grid; the coverage between events is stored too."""
        series = series_of(dataset="funding_rate")
        times = START + np.array([0, 1, 28_800_003, 57_600_000, 40_000_000_007])
        rates = [0.0001, -0.00375, NULL, 0.0, 1e-8]
        sent = batch_at(series, times, funding_rate=rates, special_funding_rate=[NULL, 1.5, 2.5, NULL, NULL])
        coverage = Coverage(SpanSet.of(Span(START - 5, START + 40_000_000_011)))
        write(store, Batch(series, sent.columns, coverage))
        same(store.read(series, EVER), sent.columns)
        assert store.coverage([series])[series] == coverage

    def test_08_reads_are_half_open(self, store: Store) -> None:
        """A span includes the row at its start and excludes the row at its end."""
        series = series_of()
        write(store, batch_of(series, range(10)))

        def read(start: int, end: int) -> list[int]:
            times = store.read(series, Span(START + start, START + end)).times
            return [(int(time) - START) // MINUTE for time in times]

        assert read(2 * MINUTE, 5 * MINUTE) == [2, 3, 4]
        assert read(2 * MINUTE, 5 * MINUTE + 1) == [2, 3, 4, 5]
        assert read(2 * MINUTE + 1, 5 * MINUTE) == [3, 4]
        assert read(2 * MINUTE + 1, 3 * MINUTE) == []
        assert read(-MINUTE, 1) == [0]
        assert read(10 * MINUTE, 20 * MINUTE) == []

    # --- merging ---

    def test_09_null_never_overwrites_a_value(self, store: Store) -> None:
        """A column that a later batch lacks keeps its stored value."""
        series = series_of()
        write(store, batch_of(series, [0, 1], quote_volume=[7.0, 8.0], trades=[5, 6]))
        write(store, batch_of(series, [0, 1], quote_volume=[NULL, 9.0], trades=NULL))
        assert column_of(store, series, "quote_volume") == [7.0, 9.0]
        assert column_of(store, series, "trades") == [5, 6]

    def test_10_a_value_fills_a_null_and_a_new_value_wins(self, store: Store) -> None:
        """The value that the exchange sent last is stored."""
        series = series_of()
        write(store, batch_of(series, [0, 1], quote_volume=[NULL, 8.0], close=1.5))
        write(store, batch_of(series, [0, 1], quote_volume=[7.0, 8.5], close=2.5))
        assert column_of(store, series, "quote_volume") == [7.0, 8.5]
        assert column_of(store, series, "close") == [2.5, 2.5]

    def test_11_an_identical_batch_changes_nothing(self, store: Store) -> None:
        """The engine repeats a batch if it cannot know whether the first write was committed."""
        sent = batch_of(series_of(), range(50), trades=[NULL, *range(49)])
        write(store, sent, sent)
        write(store, sent)
        same(store.read(sent.series, EVER), sent.columns)
        assert store.coverage([sent.series])[sent.series] == sent.coverage

    def test_12_batches_overlap_and_come_in_any_order(self, store: Store) -> None:
        """Parts of a series are fetched concurrently; rows are read sorted, each once."""
        series = series_of()
        write(store, *(batch_of(series, rows) for rows in (range(60, 90), range(30), range(20, 65))))
        same(store.read(series, EVER), batch_of(series, range(90)).columns)
        assert store.coverage([series])[series] == batch_of(series, range(90)).coverage

    def test_13_series_do_not_mix(self, store: Store) -> None:
        """Rows of another exchange, dataset, symbol or interval are separate, also in one writer."""
        lines = [
            series_of(),
            series_of(exchange="okx"),
            series_of(symbol="ETHUSDT"),
            series_of(symbol="btcusdt"),
            series_of(interval="1h"),
            series_of(dataset="mark_price"),
            series_of(dataset="premium_index"),
        ]
        close = {line: float(number) for number, line in enumerate(lines)}
        write(store, *(batch_at(line, np.array([START]), close=close[line]) for line in lines))
        assert {line: column_of(store, line, "close") for line in lines} == {
            line: [close[line]] for line in lines
        }

    @pytest.mark.parametrize(
        "symbol",
        ["币安人生USDT", "BTCUSDT_260626", "it's", 'a"b', "BTC/USDT:USDT", "100%25", "a b=c\\d", ".."],
    )
    def test_14_a_symbol_is_any_text(self, store: Store, symbol: str) -> None:
        """The exchange's spelling is kept, also characters that are special in a shell, a path or SQL."""
        series = series_of(symbol=symbol)
        write(store, batch_of(series, range(3)))
        assert len(store.read(series, EVER)) == 3
        assert list(store.ledger()) == [series]

    # --- coverage ---

    def test_15_of_an_unknown_series_nothing_is_known(self, store: Store) -> None:
        """All queries return an empty result, and no error."""
        series = series_of()
        assert store.coverage([series]) == {series: Coverage()}
        assert store.coverage([]) == {}
        assert not store.ledger()
        empty = store.read(series, EVER)
        assert empty.values.shape == (len(series.dataset.columns), 0)

    def test_16_confirmed_absence_is_remembered(self, store: Store) -> None:
        """A batch without rows records that the exchange has none there; they are not requested again."""
        series = series_of()
        absent = Coverage(SpanSet.of(minutes(0, 10)), SpanSet.of(minutes(0, 10)))
        write(store, Batch(series, Columns.empty(series.dataset), absent))
        assert store.coverage([series])[series] == store.ledger()[series] == absent
        assert not len(store.read(series, EVER))

    def test_17_coverage_unites_and_rows_beat_absence(self, store: Store) -> None:
        """In any order of batches, a moment with a row is not empty."""
        series = series_of()
        absent = Coverage(SpanSet.of(minutes(3, 12)), SpanSet.of(minutes(3, 12)))
        write(store, batch_of(series, range(5)))
        write(store, Batch(series, Columns.empty(series.dataset), absent))
        write(store, batch_of(series, range(10, 15)))
        held = store.coverage([series])[series]
        assert held.covered == SpanSet.of(minutes(0, 15))
        assert held.empty == SpanSet.of(minutes(5, 10))

    def test_18_the_ledger_lists_every_series(self, store: Store) -> None:
        """Series without rows too, each with the coverage that `coverage` returns."""
        series = [
            series_of(),
            series_of(interval="1M"),
            series_of(dataset="funding_rate"),
            series_of(exchange="okx"),
        ]
        write(store, *(batch_at(line, np.array([START])) for line in series[:3]))
        absent = Coverage(SpanSet.of(minutes(0, 1)), SpanSet.of(minutes(0, 1)))
        write(store, Batch(series[3], Columns.empty(series[3].dataset), absent))
        assert store.ledger() == store.coverage(series)
        assert all(coverage.covered for coverage in store.ledger().values())

    # --- living on ---

    def test_19_another_instance_sees_the_same(self, store: Store, place: Path) -> None:
        """Rows and coverage outlive the instance that wrote them, and the next one adds to them."""
        if not self.lasting:
            pytest.skip("the data of this store ends with its instance")
        series = series_of()
        write(store, batch_of(series, range(5)))
        other = self.make_store(place)
        same(other.read(series, EVER), batch_of(series, range(5)).columns)
        assert other.coverage([series]) == other.ledger() == store.ledger()
        other.prepare([series.dataset])
        write(other, batch_of(series, range(5, 8)))
        same(store.read(series, EVER), batch_of(series, range(8)).columns)

    def test_20_a_writer_lives_on_one_other_thread(self, store: Store) -> None:
        """It is opened, used and closed on one thread, which is not the main thread; others may follow."""
        series = series_of()
        for rows in (range(5), range(5, 10)):
            with ThreadPoolExecutor(1) as thread:
                thread.submit(write, store, batch_of(series, rows)).result()
        same(store.read(series, EVER), batch_of(series, range(10)).columns)

    def test_21_a_batch_is_durable_when_the_writer_returns(self, store: Store) -> None:
        """Other threads read its rows and its coverage before the writer is closed."""
        series = series_of()
        with ThreadPoolExecutor(1) as thread, store.writer() as take:
            take(batch_of(series, range(5)))
            held = thread.submit(store.coverage, [series]).result()
            rows = thread.submit(store.read, series, EVER).result()
        assert held[series].covered == SpanSet.of(minutes(0, 5))
        same(rows, batch_of(series, range(5)).columns)
