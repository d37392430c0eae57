"""What every store has to keep: a test class to subclass, numbered.

Needs pytest and hypothesis beside `marketfetch[testing]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from marketfetch.protocols import Store
from marketfetch.values.datasets import Column, datasets
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Coverage, Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["SinkContract"]

_MINUTE = 60_000
_START = 1_577_836_800_000
"""2020-01-01, a Wednesday: no week opens there."""
_EVER = Span(0, 4_102_444_800_000)
_NULL = float("nan")
_NASTY = (5e-324, 2.2250738585072014e-308, 1e308, 0.1 + 0.2, 1 / 3, -1e-7, 123456789.12345679, 2.0**53 + 2)


class SinkContract:
    """Subclass it as `TestMyStore` and make the store; every test gets a place of its own.

    A store that forgets when its instance goes (one in memory) says `lasting = False`.

    >>> from marketfetch.sinks.memory import MemorySink
    >>> class TestMemory(SinkContract):
    ...     lasting = False
    ...
    ...     def make_store(self, place: Path) -> Store:
    ...         return MemorySink()
    """

    lasting: ClassVar[bool] = True

    def make_store(self, place: Path) -> Store:
        """Make the store at a place: a path in an existing, empty folder, at which there is nothing yet.

        It is called again with the same path for another instance of the same store.
        """
        raise NotImplementedError("override make_store(place)")

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        """Where the store of a test is."""
        return tmp_path / "store"

    @pytest.fixture
    def store(self, place: Path) -> Store:
        """A store that is ready for every dataset."""
        store = self.make_store(place)
        store.prepare([*datasets().values()])
        return store

    # --- opening ---

    def test_01_making_a_store_touches_nothing(self, place: Path) -> None:
        """The constructor does no I/O: a command line may make a store only to print its name."""
        assert isinstance(self.make_store(place), Store)
        assert not list(place.parent.iterdir()), "the constructor made a file"

    def test_02_prepare_may_be_repeated(self, store: Store) -> None:
        """Each run prepares, also one that finds everything there; nothing is lost by it."""
        series = _series()
        _write(store, _batch(series, range(3)))
        store.prepare([series.dataset])
        store.prepare([*datasets().values()])
        assert len(store.read(series, _EVER)) == 3

    def test_03_it_says_how_many_may_write(self, store: Store) -> None:
        """At least one lane."""
        assert store.lanes >= 1

    # --- rows ---

    def test_04_rows_come_back_as_they_were(self, store: Store) -> None:
        """Every float64 comes back to the last bit (the sign of a zero apart), every NULL as NaN."""
        series, minutes = _series(), count(0, 100)

        @settings(max_examples=25, deadline=None)
        @given(st.lists(st.tuples(*map(_values, series.dataset.columns)), min_size=1, max_size=10))
        def check(rows: list[tuple[float, ...]]) -> None:
            first = next(minutes)  # where no other example has left values
            times = _START + _MINUTE * np.arange(first, first + len(rows))
            sent = Columns(times, np.array(rows).T)
            _write(store, Batch(series, sent, Coverage(series.interval.cover(times))))
            _same(store.read(series, Span(int(times[0]), int(times[-1]) + 1)), sent)

        check()

    def test_05_numbers_that_text_and_decimals_get_wrong_survive(self, store: Store) -> None:
        """Denormals, the largest, and those that need 17 digits."""
        sent = _batch(_series(), range(len(_NASTY)), quote_volume=_NASTY)
        _write(store, sent)
        _same(store.read(sent.series, _EVER), sent.columns)

    def test_06_a_full_batch_is_no_burden(self, store: Store) -> None:
        """The engine sends batches of 20,000 rows and more, across the ends of months and years."""
        sent = _batch(_series(), range(-20_000, 20_000))
        _write(store, sent)
        _same(store.read(sent.series, _EVER), sent.columns)

    @pytest.mark.parametrize("name", ["1m", "1h", "1d", "1w", "1M"])
    def test_07_every_grid_is_kept(self, store: Store, name: str) -> None:
        """Weeks and calendar months are as good as minutes, also across years."""
        series = _series(interval=name)
        end = series.interval.shift(series.interval.floor(_START), 15)
        times = series.interval.grid(Span(_START - 40 * 86_400_000, end))
        sent = _at(series, times)
        _write(store, sent)
        _same(store.read(series, _EVER), sent.columns)
        assert store.coverage([series])[series] == sent.coverage

    def test_08_events_keep_their_milliseconds(self, store: Store) -> None:
        """Events come when they come; what is known of the time between them is kept too."""
        series = _series(dataset="funding_rate")
        times = _START + np.array([0, 1, 28_800_003, 57_600_000, 40_000_000_007])
        rates = [0.0001, -0.00375, _NULL, 0.0, 1e-8]
        sent = _at(series, times, funding_rate=rates, special_funding_rate=[_NULL, 1.5, 2.5, _NULL, _NULL])
        coverage = Coverage(SpanSet.of(Span(_START - 5, _START + 40_000_000_011)))
        _write(store, Batch(series, sent.columns, coverage))
        _same(store.read(series, _EVER), sent.columns)
        assert store.coverage([series])[series] == coverage

    def test_09_reads_are_half_open(self, store: Store) -> None:
        """A span holds the row at its start and not the one at its end."""
        series = _series()
        _write(store, _batch(series, range(10)))

        def read(start: int, end: int) -> list[int]:
            times = store.read(series, Span(_START + start, _START + end)).times
            return [(int(time) - _START) // _MINUTE for time in times]

        assert read(2 * _MINUTE, 5 * _MINUTE) == [2, 3, 4]
        assert read(2 * _MINUTE, 5 * _MINUTE + 1) == [2, 3, 4, 5]
        assert read(2 * _MINUTE + 1, 5 * _MINUTE) == [3, 4]
        assert read(2 * _MINUTE + 1, 3 * _MINUTE) == []
        assert read(-_MINUTE, 1) == [0]
        assert read(10 * _MINUTE, 20 * _MINUTE) == []

    # --- merging ---

    def test_10_null_never_overwrites_a_value(self, store: Store) -> None:
        """What one source lacks does not destroy what another one had."""
        series = _series()
        _write(store, _batch(series, [0, 1], quote_volume=[7.0, 8.0], trades=[5, 6]))
        _write(store, _batch(series, [0, 1], quote_volume=[_NULL, 9.0], trades=_NULL))
        assert _column(store, series, "quote_volume") == [7.0, 9.0]
        assert _column(store, series, "trades") == [5, 6]

    def test_11_a_value_fills_a_null_and_a_new_value_wins(self, store: Store) -> None:
        """The exchange is the authority: what it says last is what is held."""
        series = _series()
        _write(store, _batch(series, [0, 1], quote_volume=[_NULL, 8.0], close=1.5))
        _write(store, _batch(series, [0, 1], quote_volume=[7.0, 8.5], close=2.5))
        assert _column(store, series, "quote_volume") == [7.0, 8.5]
        assert _column(store, series, "close") == [2.5, 2.5]

    def test_12_an_identical_batch_changes_nothing(self, store: Store) -> None:
        """The engine writes a batch again when it cannot know whether the first attempt succeeded."""
        sent = _batch(_series(), range(50), trades=[_NULL, *range(49)])
        _write(store, sent, sent)
        _write(store, sent)
        _same(store.read(sent.series, _EVER), sent.columns)
        assert store.coverage([sent.series])[sent.series] == sent.coverage

    def test_13_batches_overlap_and_come_in_any_order(self, store: Store) -> None:
        """Chunks of a series are fetched side by side; the rows are sorted all the same, once each."""
        series = _series()
        _write(store, *(_batch(series, rows) for rows in (range(60, 90), range(30), range(20, 65))))
        _same(store.read(series, _EVER), _batch(series, range(90)).columns)
        assert store.coverage([series])[series] == _batch(series, range(90)).coverage

    def test_14_series_do_not_mix(self, store: Store) -> None:
        """Exchange, dataset, symbol and interval all tell rows apart, also in one writer."""
        lines = [
            _series(),
            _series(exchange="okx"),
            _series(symbol="ETHUSDT"),
            _series(symbol="btcusdt"),
            _series(interval="1h"),
            _series(dataset="mark_price"),
            _series(dataset="premium_index"),
        ]
        close = {line: float(number) for number, line in enumerate(lines)}
        _write(store, *(_at(line, np.array([_START]), close=close[line]) for line in lines))
        assert {line: _column(store, line, "close") for line in lines} == {
            line: [close[line]] for line in lines
        }

    @pytest.mark.parametrize(
        "symbol", ["币安人生USDT", "BTCUSDT_260626", "it's", 'a"b', "BTC/USDT:USDT", "100%25", "a b=c\\d", ".."]
    )
    def test_15_a_symbol_is_any_text(self, store: Store, symbol: str) -> None:
        """The exchange's spelling is kept, whatever it means to a shell, a path or SQL."""
        series = _series(symbol=symbol)
        _write(store, _batch(series, range(3)))
        assert len(store.read(series, _EVER)) == 3
        assert list(store.ledger()) == [series]

    # --- coverage ---

    def test_16_of_an_unknown_series_nothing_is_known(self, store: Store) -> None:
        """Asking gives an empty answer, no error."""
        series = _series()
        assert store.coverage([series]) == {series: Coverage()}
        assert store.coverage([]) == {}
        assert not store.ledger()
        empty = store.read(series, _EVER)
        assert empty.values.shape == (len(series.dataset.columns), 0)

    def test_17_confirmed_absence_is_remembered(self, store: Store) -> None:
        """A batch without rows says that the exchange has none there: it is not asked again."""
        series = _series()
        absent = Coverage(SpanSet.of(_minutes(0, 10)), SpanSet.of(_minutes(0, 10)))
        _write(store, Batch(series, Columns.empty(series.dataset), absent))
        assert store.coverage([series])[series] == store.ledger()[series] == absent
        assert not len(store.read(series, _EVER))

    def test_18_coverage_unites_and_rows_beat_absence(self, store: Store) -> None:
        """Whichever is learnt first: a moment that has a row is not empty."""
        series = _series()
        absent = Coverage(SpanSet.of(_minutes(3, 12)), SpanSet.of(_minutes(3, 12)))
        _write(store, _batch(series, range(5)))
        _write(store, Batch(series, Columns.empty(series.dataset), absent))
        _write(store, _batch(series, range(10, 15)))
        held = store.coverage([series])[series]
        assert held.covered == SpanSet.of(_minutes(0, 15))
        assert held.empty == SpanSet.of(_minutes(5, 10))

    def test_19_the_ledger_lists_every_series(self, store: Store) -> None:
        """Also those without rows, each with what `coverage` says."""
        series = [_series(), _series(interval="1M"), _series(dataset="funding_rate"), _series(exchange="okx")]
        _write(store, *(_at(line, np.array([_START])) for line in series[:3]))
        absent = Coverage(SpanSet.of(_minutes(0, 1)), SpanSet.of(_minutes(0, 1)))
        _write(store, Batch(series[3], Columns.empty(series[3].dataset), absent))
        assert store.ledger() == store.coverage(series)
        assert all(coverage.covered for coverage in store.ledger().values())

    # --- living on ---

    def test_20_another_instance_sees_the_same(self, store: Store, place: Path) -> None:
        """Rows and coverage outlive the instance that wrote them, and the next one adds to them."""
        if not self.lasting:
            pytest.skip("this store forgets")
        series = _series()
        _write(store, _batch(series, range(5)))
        other = self.make_store(place)
        _same(other.read(series, _EVER), _batch(series, range(5)).columns)
        assert other.coverage([series]) == other.ledger() == store.ledger()
        other.prepare([series.dataset])
        _write(other, _batch(series, range(5, 8)))
        _same(store.read(series, _EVER), _batch(series, range(8)).columns)

    def test_21_a_writer_lives_on_a_thread_of_its_own(self, store: Store) -> None:
        """It is opened, used and closed on one that is not the main thread; several may follow."""
        series = _series()
        for rows in (range(5), range(5, 10)):
            with ThreadPoolExecutor(1) as thread:
                thread.submit(_write, store, _batch(series, rows)).result()
        _same(store.read(series, _EVER), _batch(series, range(10)).columns)

    def test_22_a_batch_is_durable_when_the_writer_returns(self, store: Store) -> None:
        """Others see its rows and its coverage before the writer is closed."""
        series = _series()
        with ThreadPoolExecutor(1) as thread, store.writer() as write:
            write(_batch(series, range(5)))
            held = thread.submit(store.coverage, [series]).result()
            rows = thread.submit(store.read, series, _EVER).result()
        assert held[series].covered == SpanSet.of(_minutes(0, 5))
        _same(rows, _batch(series, range(5)).columns)


def _series(
    exchange: str = "binance-usdm", dataset: str = "ohlcv", symbol: str = "BTCUSDT", interval: str = "1m"
) -> Series:
    return Series.of(exchange, dataset, symbol, interval)


def _minutes(first: int, end: int) -> Span:
    return Span(_START + first * _MINUTE, _START + end * _MINUTE)


def _at(series: Series, times: NDArray[np.int64], **given: float | Sequence[float]) -> Batch:
    """Make a batch; columns that are not given have a value of their own in each row."""
    values = np.arange(1.0, 1 + len(series.dataset.columns))[:, None] + (times - _START) / 8192
    for column, line in zip(series.dataset.columns, values, strict=True):
        line[:] = given.get(column.name, np.floor(line) if column.integer else line)
    return Batch(series, Columns(times, values), Coverage(series.interval.cover(times)))


def _batch(series: Series, minutes: Sequence[int], **given: float | Sequence[float]) -> Batch:
    return _at(series, _START + _MINUTE * np.array(minutes, np.int64), **given)


def _values(column: Column) -> st.SearchStrategy[float]:
    """Whatever may stand in a column."""
    whole = st.integers(-(2**53), 2**53).map(float)
    numbers = whole if column.integer else st.floats(allow_nan=False, allow_infinity=False)
    return numbers | st.just(_NULL) if column.optional else numbers


def _write(store: Store, *batches: Batch) -> None:
    with store.writer() as write:
        for batch in batches:
            write(batch)


def _column(store: Store, series: Series, name: str) -> list[float]:
    values: list[float] = store.read(series, _EVER).values[series.dataset.index(name)].tolist()
    return values


def _same(held: Columns, sent: Columns) -> None:
    assert held.times.dtype == np.int64, f"times are {held.times.dtype}, not int64"
    assert held.values.dtype == np.float64, f"values are {held.values.dtype}, not float64"
    np.testing.assert_array_equal(held.times, sent.times)
    np.testing.assert_array_equal(held.values, sent.values)
