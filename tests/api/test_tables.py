"""Tables as people expect them: Arrow, symbols, rows, frames, longer candles and joins."""

from __future__ import annotations

import math
import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import marketfetch as mf
from marketfetch.errors import ConfigurationError
from marketfetch.reports import Missing, Report, SeriesReport
from marketfetch.values.datasets import datasets
from marketfetch.values.pages import Columns
from tests.support.batches import MINUTE, START, batch

HOUR = 60 * MINUTE
BTC, ETH = (mf.Series.of("binance-usdm", "ohlcv", name, "1m") for name in ("BTCUSDT", "ETHUSDT"))


def report_of(*lines: SeriesReport) -> Report:
    return attrs.evolve(Report.empty(), series=lines)


def table_of(series: mf.Series, times: Any, *, report: Report | None = None, **columns: Any) -> mf.Table:
    """Return a table of one series; columns not named are NULL."""
    opens = np.array(times, np.int64)
    values = np.full((len(series.dataset.columns), len(opens)), np.nan)
    for name, column in columns.items():
        values[series.dataset.index(name)] = column
    return mf.Table(series.dataset, {series: Columns(opens, values)}, report or Report.empty())


def both(*tables: mf.Table) -> mf.Table:
    rows = {series: columns for table in tables for series, columns in table.rows.items()}
    lines = [line for table in tables for line in table.report.series]
    return mf.Table(tables[0].dataset, rows, report_of(*lines))


def candles(
    series: mf.Series = BTC, count: int = 8, start: int = START, report: Report | None = None
) -> mf.Table:
    step = series.interval.typical
    close = np.arange(1.0, count + 1)
    return table_of(
        series,
        start + step * np.arange(count),
        open=close - 0.5,
        high=close + 1,
        low=close - 1,
        close=close,
        volume=0.1,
        trades=3,
        report=report,
    )


def empty(dataset: str = "ohlcv") -> mf.Table:
    return mf.Table(datasets()[dataset], {}, Report.empty())


class TestArrow:
    def test_every_reader_of_capsules_takes_a_table(self) -> None:
        market = both(candles(), candles(ETH, 3))
        frame = pl.DataFrame(market)
        assert frame.equals(market.to_polars())
        assert pa.table(market).equals(market.to_arrow())
        rows: Any = duckdb.sql("SELECT symbol, count(*), sum(trades) FROM market GROUP BY ALL ORDER BY ALL")
        assert rows.fetchall() == [("BTCUSDT", 8, 24), ("ETHUSDT", 3, 9)]

    def test_a_batch_is_taken_too(self) -> None:
        frame = pl.DataFrame(batch(BTC, range(3), close=[1, 2, 3]))
        assert frame["close"].to_list() == [1, 2, 3]
        assert frame["trades"].to_list() == [None] * 3
        assert pa.table(batch(BTC, [])).schema == pa.table(candles()).schema

    def test_times_and_floats_are_not_copied(self) -> None:
        table = both(candles(), candles(ETH, 3))
        arrow: Any = pa.table(table)
        for number, columns in enumerate(table.rows.values()):
            for name, numbers in (("open_time", columns.times), ("close", columns.values[3])):
                data = arrow.column(name).chunk(number).buffers()[1]
                assert data.address == numbers.__array_interface__["data"][0]

    def test_polars_and_duckdb_get_the_memory_of_the_table(self) -> None:
        table = both(candles(), candles(ETH, 3))
        frame = pl.DataFrame(table)
        for name, place in (("open_time", None), ("close", 3)):
            chunks: Any = [chunk.to_arrow() for chunk in frame[name].get_chunks()]
            arrays = [rows.times if place is None else rows.values[place] for rows in table.rows.values()]
            assert [chunk.buffers()[1].address for chunk in chunks] == [
                array.__array_interface__["data"][0] for array in arrays
            ]
        reader = pa.RecordBatchReader.from_stream(table)  # what DuckDB reads
        for batch_, rows in zip(reader, table.rows.values(), strict=True):
            found: Any = batch_.column("close").buffers()[1]
            assert found.address == rows.values[3].__array_interface__["data"][0]

    def test_only_keys_bitmaps_and_integers_are_allocated(self) -> None:
        count = 100_000
        table = candles(count=count)
        before, peak = pa.total_allocated_bytes(), []
        tracemalloc.start()
        try:
            stream = table.__arrow_c_stream__()
            peak.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        allocated = pa.total_allocated_bytes() - before
        assert allocated < count * (len("binance-usdmBTCUSDT1m") + 3 * 4 + 8) * 1.05  # texts, offsets, trades
        assert peak[0] < count * 8  # less than one column: places of NaN, and bitmaps
        del stream
        assert pa.total_allocated_bytes() == before

    def test_memory_outlives_the_table(self) -> None:
        arrow = candles().to_arrow()
        assert arrow.column("close").to_pylist() == list(range(1, 9))

    def test_null_is_where_nan_was(self) -> None:
        column = table_of(BTC, START + MINUTE * np.arange(9), volume=[1, np.nan] * 4 + [2]).to_arrow()[
            "volume"
        ]
        assert column.null_count == 4
        assert column.to_pylist() == [1, None] * 4 + [2]

    def test_memory_in_another_order_is_copied(self) -> None:
        strided = Columns(START + MINUTE * np.arange(20)[::2], np.arange(180.0).reshape(20, 9)[::2].T)
        table = mf.Table(BTC.dataset, {BTC: strided}, Report.empty())
        assert table.to_arrow()["close"].to_pylist() == strided.values[3].tolist()

    @pytest.mark.parametrize("dataset", datasets())
    def test_an_empty_table_has_the_types_of_a_full_one(self, dataset: str) -> None:
        series = mf.Series.of("okx", dataset, "X", "1h")
        full, none = table_of(series, [START]), empty(dataset)
        assert pa.table(none).schema == pa.table(full).schema == pa.schema(none)
        assert pl.DataFrame(none).schema == pl.DataFrame(full).schema == none.to_polars().schema
        assert none.to_pandas().dtypes.equals(full.to_pandas().dtypes)

    @pytest.mark.parametrize(
        ("package", "extra", "call"),
        [
            ("pyarrow", "parquet", pl.DataFrame),
            ("pyarrow", "parquet", mf.Table.to_arrow),
            ("pandas", "pandas", mf.Table.to_pandas),
            ("pandas", "pandas", lambda table: table.wide("close")),
            ("polars", "polars", mf.Table.to_polars),
        ],
    )
    def test_error_names_the_extra(
        self, monkeypatch: pytest.MonkeyPatch, package: str, extra: str, call: Callable[[mf.Table], object]
    ) -> None:
        table = candles()
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(
            ConfigurationError, match=rf"needs {package}; pip install 'marketfetch\[{extra}\]'"
        ):
            call(table)


class TestSymbols:
    @pytest.mark.parametrize("spelling", ["ETHUSDT", "ethusdt", "ETH/USDT", "ETH-USDT", "ETH/USDT:USDT"])
    def test_one_symbol_in_any_spelling(self, spelling: str) -> None:
        table = both(candles(), candles(ETH, 3))
        assert table[spelling].symbols == ("ETHUSDT",)
        assert len(table[spelling]) == len(table.of(spelling)) == 3
        assert spelling in table
        assert table.symbols == ("BTCUSDT", "ETHUSDT")

    def test_report_is_of_the_symbol(self) -> None:
        span = mf.Span(START, START + 9 * MINUTE)
        lines = [SeriesReport(series, span, 0, mf.SpanSet(), mf.SpanSet()) for series in (BTC, ETH)]
        table = mf.Table(BTC.dataset, both(candles(), candles(ETH)).rows, report_of(*lines))
        assert [line.series for line in table["ETHUSDT"].report.series] == [ETH]

    def test_all_intervals_of_a_symbol(self) -> None:
        hourly = attrs.evolve(BTC, interval=mf.Interval.parse("1h"))
        table = both(candles(), candles(hourly, 2))
        assert len(table["BTC/USDT"]) == 10
        with pytest.raises(ConfigurationError, match="the table has 2 series of BTC/USDT"):
            table.of("BTC/USDT")

    @pytest.mark.parametrize(
        ("symbol", "expected_message"),
        [
            ("BTCUSD", "'BTCUSD' is not in this table; did you mean 'BTCUSDT'"),
            ("", "is not a name"),
            (0, "0 is not a name; write table"),
            (slice(3), "is not a name"),
            ("volumes", "'volumes' is not in this table; choose one of BTCUSDT, ETHUSDT"),
            ("close", r"'close' is a column; write table.wide\('close'\)"),
        ],
    )
    def test_what_is_no_symbol_is_refused(self, symbol: Any, expected_message: str) -> None:
        with pytest.raises(ConfigurationError, match=expected_message):
            both(candles(), candles(ETH))[symbol]
        assert symbol not in both(candles(), candles(ETH))

    def test_ambiguous_spelling_names_the_candidates(self) -> None:
        one, two = (mf.Series.of("okx", "ohlcv", name, "1m") for name in ("BTC-USDT", "BTC-USDT-SWAP"))
        table = both(candles(one), candles(two))
        with pytest.raises(ConfigurationError, match="write 'BTC-USDT' or 'BTC-USDT-SWAP'"):
            table["btcusdt"]
        assert "btcusdt" not in table
        assert table["BTC/USDT:USDT"].symbols == ("BTC-USDT-SWAP",)
        assert table["BTC-USDT"].symbols == ("BTC-USDT",)


class TestRows:
    def test_iteration_yields_rows(self) -> None:
        table = both(candles(), candles(ETH, 3))
        rows = list(table)
        assert len(rows) == len(table) == 11
        assert rows[0]._fields == table.columns
        assert rows[1].open_time == datetime(2020, 1, 1, 0, 1, tzinfo=UTC)
        assert (rows[1].symbol, rows[1].close, rows[1].trades, rows[1].quote_volume) == (
            "BTCUSDT",
            2.0,
            3,
            None,
        )
        assert isinstance(rows[1].trades, int)

    @given(st.integers(0, 20))
    def test_head_and_tail_are_those_of_all_rows(self, n: int) -> None:
        table = both(candles(), candles(ETH, 3))
        rows = list(table)
        assert list(table.head(n)) == rows[:n]
        assert list(table.tail(n)) == rows[max(len(rows) - n, 0) :]

    def test_the_report_of_a_part_is_about_its_rows(self) -> None:
        span, hole = mf.Span(START, START + HOUR), mf.SpanSet.of(mf.Span(START + 8 * MINUTE, START + HOUR))
        gaps = (Missing(hole, "too old"),)
        whole = both(
            candles(report=report_of(SeriesReport(BTC, span, 8, mf.SpanSet.of(span) - hole, hole, gaps))),
            candles(ETH, 3, report=report_of(SeriesReport(ETH, span, 3, mf.SpanSet.of(span), mf.SpanSet()))),
        )
        head, tail = whole.head(2), whole.tail(2)
        (line,) = head.report.series
        assert head.symbols == ("BTCUSDT",)
        assert line.wanted == mf.Span(START, START + 2 * MINUTE)
        assert not line.missing
        assert not line.empty
        assert head.report.complete
        assert "Not there" not in head._repr_html_()
        assert [line.wanted for line in tail.report.series] == [mf.Span(START + MINUTE, START + 3 * MINUTE)]
        assert whole.head(100).report == whole.report
        assert not whole.head(0).report.series

    @pytest.mark.parametrize("n", [-1, 1.5, True, "3", None])
    def test_number_of_rows_is_checked(self, n: Any) -> None:
        for take in (candles().head, candles().tail):
            with pytest.raises(ConfigurationError, match=r"n: .* is not a number of rows"):
                take(n)

    def test_ccxt(self) -> None:
        rows = candles(count=2).to_ccxt()
        assert rows == [
            [START, 0.5, 2.0, 0.0, 1.0, 0.1],
            [START + MINUTE, 1.5, 3.0, 1.0, 2.0, 0.1],
        ]
        assert type(rows[0][0]) is int
        marks = table_of(mf.Series.of("okx", "mark_price", "X", "1m"), [0], open=1, high=1, low=1, close=1)
        assert marks.to_ccxt() == [[0, 1.0, 1.0, 1.0, 1.0, None]]
        assert empty().to_ccxt() == []
        with pytest.raises(
            ConfigurationError,
            match=r"the lists of ccxt are of one series.*choose a symbol, such as table\['BTCUSDT'\]",
        ):
            both(candles(), candles(ETH)).to_ccxt()
        with pytest.raises(ConfigurationError, match="column of funding_rate: 'open' is unknown"):
            empty("funding_rate").to_ccxt()


class TestFrames:
    def test_index(self) -> None:
        two = both(candles(), candles(ETH, 3))
        assert two.to_pandas().index.equals(pd.RangeIndex(11))
        assert two["ETHUSDT"].to_pandas(index="time").index[-1] == pd.Timestamp("2020-01-01 00:02", tz="UTC")
        frame: Any = two.to_pandas(index="symbol-time")
        assert frame.index.names == ["symbol", "open_time"]
        assert frame.index.is_unique
        assert frame.loc["ETHUSDT", "close"].tolist() == [1, 2, 3]

    @pytest.mark.parametrize("index", ["time", "symbol-time"])
    def test_an_empty_frame_has_the_index(self, index: Any) -> None:
        dtypes = candles().to_pandas(index=index).index.to_frame().dtypes
        assert empty().to_pandas(index=index).index.to_frame().dtypes.equals(dtypes)

    def test_index_that_cannot_tell_rows_apart_is_refused(self) -> None:
        hourly = attrs.evolve(BTC, interval=mf.Interval.parse("1h"))
        with pytest.raises(
            ConfigurationError,
            match=r"index: 'time' tells .*, and the table has 2; choose a symbol, such as table\['BTCUSDT'\]",
        ):
            both(candles(), candles(ETH)).to_pandas(index="time")
        with pytest.raises(ConfigurationError, match="index: the table has 2 series of BTCUSDT"):
            both(candles(), candles(hourly)).to_pandas(index="symbol-time")
        with pytest.raises(ConfigurationError, match="index: 'times' is unknown; did you mean 'time'"):
            candles().to_pandas(index="times")  # type: ignore[arg-type]

    def test_wide(self) -> None:
        table = both(candles(), candles(ETH, 3, START + 7 * MINUTE))
        frame: Any = table.wide("close")
        assert frame.shape == (10, 2)
        assert list(frame.columns) == ["BTCUSDT", "ETHUSDT"]
        assert frame.ETHUSDT.dropna().tolist() == [1, 2, 3]
        assert frame.loc["2020-01-01 00:07"].tolist() == [8, 1]
        assert table.wide("trades").dtypes.unique().tolist() == [pd.Int64Dtype()]
        assert empty().wide("close").index.dtype == frame.index.dtype

    def test_wide_refuses_what_it_cannot_mean(self) -> None:
        with pytest.raises(
            ConfigurationError, match="column of ohlcv: 'closes' is unknown; did you mean 'close'"
        ):
            candles().wide("closes")
        with pytest.raises(ConfigurationError, match=r"column: .* is not a name"):
            candles().wide(["close"])  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="wide: the table has 2 series of BTCUSDT"):
            both(candles(), candles(attrs.evolve(BTC, exchange="okx"))).wide("close")


class TestResample:
    def test_longer_candles(self) -> None:
        five = both(candles(), candles(ETH, 10)).resample("5m")
        first = next(iter(five))
        assert (first.open, first.high, first.low, first.close) == (0.5, 6, 0, 5)
        assert (first.volume, first.trades, first.quote_volume) == (0.5, 15, None)
        assert (first.interval, first.complete) == ("5m", True)
        assert five["BTCUSDT"].to_pandas().complete.tolist() == [True, False]
        assert five["ETHUSDT"].to_pandas().complete.tolist() == [True, True]
        assert five.columns[-1] == "complete"

    @given(
        st.lists(st.integers(0, 3000), unique=True, min_size=1).map(sorted),
        st.sampled_from(["1m", "3m", "15m", "1h", "4h", "1d", "1w", "1M"]),
        st.randoms(use_true_random=False),
    )
    def test_it_is_what_the_rows_say(self, minutes: list[int], interval: str, random: Any) -> None:
        price = [random.uniform(1, 9) for _ in minutes]
        times = [START + MINUTE * minute for minute in minutes]
        table = table_of(BTC, times, open=price, high=price, low=price, close=price, volume=price)
        target = mf.Interval.parse(interval)
        groups: dict[int, list[float]] = {}
        for time, each in zip(times, price, strict=True):
            groups.setdefault(target.floor(time), []).append(each)
        found = table.resample(interval)
        assert found.of("BTCUSDT").times.tolist() == list(groups)
        for row, each in zip(found, groups.values(), strict=True):
            assert (row.open, row.high, row.low, row.close) == (each[0], max(each), min(each), each[-1])
            assert row.volume == math.fsum(each)
            span = mf.Span(
                int(row.open_time.timestamp() * 1000), target.shift(int(row.open_time.timestamp() * 1000), 1)
            )
            assert row.complete == (len(each) == BTC.interval.count(span))

    def test_in_two_steps_as_in_one(self) -> None:
        table = candles(count=1000)
        once, twice = table.resample("4h"), table.resample("1h").resample("4h")
        assert once.of("BTCUSDT").values[:4].tolist() == twice.of("BTCUSDT").values[:4].tolist()
        assert [row.complete for row in once] == [row.complete for row in twice] == [True] * 4 + [False]
        assert twice.columns == once.columns

    def test_confirmed_empty_moments_are_not_missing(self) -> None:
        keep = [0, 1, 3, 4, 5, 6, 8, 9]
        empty = mf.SpanSet.of(mf.Span(START + 2 * MINUTE, START + 3 * MINUTE))
        span = mf.Span(START, START + 10 * MINUTE)
        line = SeriesReport(BTC, span, 8, mf.SpanSet.of(span), empty)
        times = [START + MINUTE * minute for minute in keep]
        table = table_of(BTC, times, open=1, high=1, low=1, close=1, volume=1, report=report_of(line))
        five = table.resample("5m")
        assert [row.complete for row in five] == [True, False]
        # The empty minute is no empty row of 5m.
        assert [row.complete for row in five.resample("15m")] == [False]
        assert [row.complete for row in five.resample("5m")] == [True, False]

    def test_a_provisional_row_makes_no_candle_complete(self) -> None:
        span = mf.Span(START, START + 10 * MINUTE)
        gap = Missing(mf.SpanSet.of(mf.Span(START + 9 * MINUTE, START + 10 * MINUTE)), "not in the store")
        line = SeriesReport(BTC, span, 0, mf.SpanSet(), mf.SpanSet(), (gap,))
        table = mf.Table(BTC.dataset, candles(count=10).rows, report_of(line))
        assert [row.complete for row in table.resample("5m")] == [True, False]

    @pytest.mark.parametrize(
        ("source", "target"),
        [("4h", "6h"), ("1h", "1m"), ("3d", "1w"), ("1w", "1M"), ("1M", "1d"), ("1m", "event"), ("2d", "3d")],
    )
    def test_interval_that_does_not_divide_is_refused(self, source: str, target: str) -> None:
        series = attrs.evolve(BTC, interval=mf.Interval.parse(source))
        with pytest.raises(ConfigurationError, match=f"interval: {source} rows do not divide {target}"):
            mf.Table(BTC.dataset, {series: Columns.empty(BTC.dataset)}, Report.empty()).resample(target)

    @pytest.mark.parametrize(
        ("dataset", "expected_message"),
        [
            ("funding_rate", r"resample: funding_rate has events.*candles.resample\('4h'\).join\(funding\)"),
            ("open_interest", "open_interest is neither a price nor a volume.*then join"),
        ],
    )
    def test_other_rows_are_refused_with_what_to_do(self, dataset: str, expected_message: str) -> None:
        with pytest.raises(ConfigurationError, match=expected_message):
            empty(dataset).resample("4h")

    def test_ratio_is_that_of_the_sums(self) -> None:
        series = mf.Series.of("okx", "taker_volume", "X", "5m")
        table = table_of(series, [0, 300_000], buy_volume=[1, 5], sell_volume=[1, 1], buy_sell_ratio=[1, 5])
        (row,) = table.resample("15m")
        assert (row.buy_volume, row.sell_volume, row.buy_sell_ratio) == (6, 2, 3)

    def test_two_intervals_of_a_symbol_are_refused(self) -> None:
        table = both(candles(), candles(attrs.evolve(BTC, interval=mf.Interval.parse("5m"))))
        with pytest.raises(ConfigurationError, match="interval: the table has several intervals of BTCUSDT"):
            table.resample("1h")

    def test_empty_table(self) -> None:
        assert len(empty().resample("4h")) == 0
        none = mf.Table(BTC.dataset, {BTC: Columns.empty(BTC.dataset)}, Report.empty()).resample("4h")
        assert none.to_arrow().schema == candles(count=500).resample("4h").to_arrow().schema

    def test_a_million_rows(self) -> None:
        count = 1_000_000
        table = candles(count=count)
        assert table.resample("1d").of("BTCUSDT").values[4].sum() == pytest.approx(count / 10)
        assert pa.table(table).num_rows == count
        assert "1,000,000" in table._repr_html_()


class TestJoin:
    FUNDING = mf.Series.of("binance-usdm", "funding_rate", "BTCUSDT", "event")
    HOURS = mf.Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1h")

    def funding(self, *jitter: int) -> mf.Table:
        times = [START + 8 * HOUR * number + late for number, late in enumerate(jitter)]
        return table_of(self.FUNDING, times, funding_rate=np.arange(len(times)) + 1.0)

    def test_jitter_is_taken_off(self) -> None:
        joined = candles(self.HOURS, 24).join(self.funding(5, 12, 3), grid="1h")
        assert [row.funding_rate for row in joined] == [1] * 8 + [2] * 8 + [3] * 8

    def test_an_early_event_counts_at_its_step(self) -> None:
        minutes = table_of(BTC, [START + 8 * HOUR - MINUTE, START + 8 * HOUR])
        assert [row.funding_rate for row in minutes.join(self.funding(0, -9))] == [1, 2]

    def test_times_as_they_are(self) -> None:
        joined = candles(self.HOURS, 10).join(self.funding(5, 12), grid=None)
        assert [row.funding_rate for row in joined] == [None] + [1] * 8 + [2]

    def test_an_event_between_steps_is_not_known_before(self) -> None:
        joined = candles(self.HOURS, 2).join(self.funding(20 * MINUTE), grid="1h")
        assert [row.funding_rate for row in joined] == [None, 1]

    @given(
        st.lists(st.integers(0, 10**8), unique=True).map(sorted),
        st.lists(st.integers(0, 10**8), unique=True).map(sorted),
    )
    def test_as_pandas_does_it(self, times: list[int], events: list[int]) -> None:
        rates = np.arange(len(events), dtype=float)
        left, right = table_of(BTC, times), table_of(self.FUNDING, events, funding_rate=rates)
        found = [row.funding_rate for row in left.join(right, grid=None)]
        expected = pd.merge_asof(
            pd.DataFrame({"t": np.array(times, np.int64)}),
            pd.DataFrame({"t": np.array(events, np.int64), "rate": rates}),
            on="t",
        )
        assert found == [None if math.isnan(rate) else rate for rate in expected.rate]

    def test_candles_are_joined_by_their_open_time(self) -> None:
        marks = table_of(
            mf.Series.of("binance-usdm", "mark_price", "BTCUSDT", "1m"),
            [START, START + 2 * MINUTE],
            close=[7, 8],
        )
        joined = candles(count=3).join(marks)
        assert [row.mark_price_close for row in joined] == [7, None, 8]
        assert len(joined.to_polars().columns) == len(joined.columns) == 17

    def test_open_interest_is_what_was_known(self) -> None:
        interest = mf.Series.of("binance-usdm", "open_interest", "BTCUSDT", "5m")
        joined = candles(count=7).join(table_of(interest, [START, START + 5 * MINUTE], open_interest=[1, 2]))
        assert [row.open_interest for row in joined] == [1] * 5 + [2] * 2

    def test_a_symbol_without_partner_has_null(self) -> None:
        joined = both(candles(), candles(ETH)).join(self.funding(0))
        assert {row.funding_rate for row in joined["ETHUSDT"]} == {None}
        assert {row.funding_rate for row in joined["BTCUSDT"]} == {1}

    def test_report_has_both(self) -> None:
        span = mf.Span(START, START + HOUR)
        gap = (Missing(mf.SpanSet.of(span), "the last attempt failed"),)
        lacking = SeriesReport(self.FUNDING, span, 0, mf.SpanSet(), mf.SpanSet(), gap)
        funding = mf.Table(self.FUNDING.dataset, self.funding(0).rows, report_of(lacking))
        joined = candles().join(funding)
        assert not joined.report.complete

    def test_empty_tables_keep_their_columns(self) -> None:
        assert empty().join(empty("funding_rate")).columns[-1] == "special_funding_rate"
        assert [row.funding_rate for row in candles(count=2).join(empty("funding_rate"))] == [None, None]
        assert len(empty().join(self.funding(0))) == 0

    @pytest.mark.parametrize("grid", ["1M", "event", "soon", 5])
    def test_grid_needs_steps_of_one_length(self, grid: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"^grid: "):
            candles().join(self.funding(0), grid=grid)

    def test_what_cannot_be_joined_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="other: DataFrame is no Table"):
            candles().join(candles().to_pandas())  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="other: dict is no Table; take one of it by its key"):
            candles().join({"ohlcv": candles()})  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=r"this table events; .* candles.join\(events\)"):
            self.funding(0).join(candles())
        with pytest.raises(
            ConfigurationError, match="other: has no symbol of this table; it has BTCUSDT of binance"
        ):
            candles(ETH).join(self.funding(0))
        marks = table_of(mf.Series.of("binance-usdm", "mark_price", "BTCUSDT", "1h"), [START])
        with pytest.raises(
            ConfigurationError, match="other: has 1h rows of BTCUSDT, and this table 1m; resample"
        ):
            candles().join(marks)
        with pytest.raises(ConfigurationError, match="join each table once"):
            candles().join(self.funding(0)).join(self.funding(0)).join(self.funding(0))


class TestHtml:
    def test_first_and_last_rows_and_what_is_not_there(self) -> None:
        hole = mf.SpanSet.of(mf.Span(START + 50 * MINUTE, START + 51 * MINUTE))
        span = mf.Span(START, START + 60 * MINUTE)
        line = SeriesReport(BTC, span, 0, mf.SpanSet.of(span), hole, (Missing(hole, "<too old>"),))
        table = mf.Table(BTC.dataset, candles(count=50).rows, report_of(line))
        html = table._repr_html_()
        assert html.count("⋮") == len(table.columns) - 1
        assert "<td>2020-01-01 00:04</td>" in html
        assert "<td>2020-01-01 00:05</td>" not in html
        assert "<td>2020-01-01 00:45</td>" in html
        assert html.count("2020-01-01 00:50 to 2020-01-01 00:51") >= 2  # confirmed empty, and missing
        assert "&lt;too old&gt;" in html
        assert "<too old>" not in html

    @pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 1), (9, 9), (10, 10), (11, 10)])
    def test_short_tables_are_shown_as_a_whole(self, count: int, shown: int) -> None:
        html = candles(count=count)._repr_html_() if count else empty()._repr_html_()
        assert html.count("<td>BTCUSDT</td>") == shown + bool(count)
        assert ("⋮" in html) == (count > shown)

    def test_columns_with_nothing_to_say_are_left_out(self) -> None:
        assert "Not there" not in candles()._repr_html_()
        assert "unusable" not in candles()._repr_html_()

    def test_series_without_rows_say_why(self) -> None:
        span = mf.SpanSet.of(mf.Span(START, START + HOUR))
        line = SeriesReport(BTC, span.spans[0], 0, span, span)
        none = mf.Table(BTC.dataset, {BTC: Columns.empty(BTC.dataset)}, report_of(line))
        assert "the exchange has no rows in this span" in none._repr_html_()

    def test_a_symbol_that_has_no_series_is_named(self) -> None:
        report = attrs.evolve(Report.empty(), unknown={"BTCUSD": "unknown symbol; did you mean 'BTCUSDT'?"})
        html = mf.Table(BTC.dataset, candles().rows, report)._repr_html_()
        assert html.count("BTCUSD: unknown symbol; did you mean") == 1

    def test_time_after_the_last_event_is_not_called_empty(self) -> None:
        funding = mf.Series.of("binance-usdm", "funding_rate", "BTCUSDT", "event")
        span = mf.SpanSet.of(mf.Span(START, START + HOUR))
        line = SeriesReport(funding, span.spans[0], 1, span, mf.SpanSet.of(mf.Span(START + 1, START + HOUR)))
        html = table_of(funding, [START + 15], report=report_of(line), funding_rate=1)._repr_html_()
        assert "2020-01-01 00:00:00.015" in html
        assert "confirmed empty" not in html

    def test_names_are_escaped(self) -> None:
        series = attrs.evolve(BTC, symbol="<script>\x1b")
        html = candles(series)._repr_html_()
        assert "<script>" not in html
        assert "\x1b" not in html

    def test_colours_are_those_of_the_notebook(self) -> None:
        assert "color:inherit" in candles()._repr_html_()
