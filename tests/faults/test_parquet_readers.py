"""What is promised to readers of a Parquet store holds for each of them, whatever lies in the folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from tests.support.batches import START, batch, candles

SYMBOLS = ["BTCUSDT", "BTC/USDT:USDT", "币安人生USDT", "a%2Fb c=d"]
MONTH = 31 * 1440
DAY = 86_400_000

Row = tuple[str, str, str, int, float, float, bool]
"""Exchange, symbol, interval, time, open, trades, and whether the turnover is NULL."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with odd names, files of two months and of none, NULLs, and verdicts of every kind."""
    store = ParquetSink(tmp_path_factory.mktemp("my market"))
    store.prepare([candles().dataset])
    nothing = Columns.empty(candles().dataset)
    empty = SpanSet.of(Span(START - 100 * DAY, START))
    wrong = SpanSet.of(Span(START + 3 * DAY, START + 4 * DAY))
    with store.writer() as take:
        for symbol in SYMBOLS:
            take(batch(candles(symbol), [0, 1, MONTH], open=[0.1 + 0.2, 5e-324, 1e308], trades=[1, 2, 3]))
            take(Batch(candles(symbol), nothing, Coverage(empty, empty)))
            take(Batch(candles(symbol), nothing, Coverage(wrong, unusable=wrong)))
        take(Batch(candles("GONE"), nothing, Coverage(empty, empty)))
    assert len(list(store.folder.rglob("2*.parquet"))) > 2 * len(SYMBOLS), "no file without rows"
    return store.folder


def expected(symbols: list[str]) -> list[Row]:
    times = [START, START + 60_000, START + MONTH * 60_000]
    values = zip(times, [0.1 + 0.2, 5e-324, 1e308], [1, 2, 3], strict=True)
    rows = [("binance-usdm", one, "1m", *row, True) for row in values for one in symbols]
    return sorted(rows)


def rows_of(frame: pd.DataFrame) -> list[Row]:
    times = pd.to_datetime(frame["open_time"], utc=True).astype("datetime64[ms, UTC]").astype("int64")
    columns = [frame[name].astype(str) for name in ("exchange", "symbol", "interval")]
    absent = frame["quote_volume"].isna()
    values = [frame["open"].astype(float), frame["trades"].astype(float), absent]
    return sorted(zip(*columns, times, *values, strict=True))  # type: ignore[call-overload]  # of unlike columns


def of_polars(frame: pl.LazyFrame) -> pd.DataFrame:
    columns = ["exchange", "symbol", "interval", "open_time", "open", "trades", "quote_volume"]
    rows = frame.select(pl.col(columns)).collect()
    assert rows.schema["open_time"] == pl.Datetime("ms", "UTC")
    return pd.DataFrame({name: rows[name].to_list() for name in columns})


def of_duckdb(folder: Path) -> pd.DataFrame:
    with duckdb.connect() as connection:
        files = f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
        return connection.execute(f"SELECT * FROM {files}").df()


def of_datafusion(folder: Path) -> pd.DataFrame:
    datafusion = pytest.importorskip("datafusion", reason="there is no wheel of datafusion for this platform")
    context = datafusion.SessionContext()
    partitions = [(name, pa.string()) for name in ("exchange", "symbol", "interval")]
    context.register_parquet("ohlcv", f"{folder}/ohlcv/", table_partition_cols=partitions)
    frame: pd.DataFrame = context.sql("SELECT * FROM ohlcv").to_pandas()
    return frame


def of_fastparquet(folder: Path) -> pd.DataFrame:
    reason = "there is no wheel of fastparquet for this platform"
    fastparquet = pytest.importorskip("fastparquet", reason=reason)
    with ExitStack() as stack, warnings.catch_warnings():  # it leaves files open
        warnings.simplefilter("ignore", DeprecationWarning)  # and has times without units

        def opened(path: str, mode: str = "rb") -> IO[Any]:
            return stack.enter_context(Path(path).open(mode))

        found = fastparquet.ParquetFile(list(map(str, files(folder))), root=str(folder), open_with=opened)
        frame: pd.DataFrame = found.to_pandas()
    return frame


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "pandas": lambda folder: pd.read_parquet(folder / "ohlcv"),
    "pandas, the whole folder": pd.read_parquet,
    "polars": lambda folder: of_polars(pl.scan_parquet(folder / "ohlcv")),
    "polars, the whole folder": lambda folder: of_polars(pl.scan_parquet(folder)),
    "polars, a pattern": lambda folder: of_polars(
        pl.scan_parquet(f"{folder}/ohlcv/**/*.parquet", hive_partitioning=True)
    ),
    "duckdb": lambda folder: of_duckdb(folder / "ohlcv"),
    "pyarrow": lambda folder: (
        pyarrow.dataset.dataset(folder / "ohlcv", partitioning="hive").to_table().to_pandas()
    ),
    "pyarrow, the whole folder": lambda folder: pq.read_table(folder).to_pandas(),
    "datafusion": of_datafusion,
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_sees_one_table(folder: Path, reader: str) -> None:
    assert rows_of(READERS[reader](folder)) == expected(SYMBOLS)


def test_fastparquet_reads_the_rows_of_a_series(folder: Path) -> None:
    """It guesses what folders mean, 1m a time, and leaves symbols percent-encoded, as Spark does."""
    homes = [home for home in folder.glob("ohlcv/*/*/*") if "symbol=GONE" not in str(home)]
    found: list[Row] = []
    for home in homes:
        symbol = unquote(home.parts[-2].partition("=")[2])
        names = {"exchange": "binance-usdm", "symbol": symbol, "interval": "1m"}
        found += rows_of(of_fastparquet(home).assign(**names))
    assert sorted(found) == expected(SYMBOLS)


@pytest.mark.parametrize("reader", [name for name in READERS if "whole" not in name])
def test_what_is_written_or_was_left_aside_is_in_nobodys_way(tmp_path: Path, reader: str) -> None:
    store = ParquetSink(tmp_path / "market")
    with store.writer() as take:
        take(batch(candles(), [0, 1, MONTH], open=[0.1 + 0.2, 5e-324, 1e308], trades=[1, 2, 3]))
        aside = store.folder / "_marketfetch" / "aside"
        (aside / "elsewhere.0.0.1.2.3").write_bytes(b"PAR1 torn")
        (store.folder / "_marketfetch" / "locks" / "x.lock").write_text("elsewhere.0.0.1.2.3")
        assert rows_of(READERS[reader](store.folder)) == expected(["BTCUSDT"])


def files(folder: Path) -> Iterator[Path]:
    return folder.rglob("*.parquet")


def test_names_are_of_letters_that_every_file_system_has(folder: Path) -> None:
    for file in files(folder):
        assert str(file.relative_to(folder)).isascii()
        assert len(file.relative_to(folder).parts) == 5


@pytest.mark.parametrize("dataset", ["funding_rate", "open_interest", "premium_index", "taker_volume"])
def test_other_datasets_have_the_same_form(tmp_path: Path, dataset: str) -> None:
    series = Series.of("binance-usdm", dataset, "BTCUSDT", "1h")
    values = np.linspace(0.5, 1.5, len(series.dataset.columns) * 4).reshape(-1, 4)
    times = START + 3_600_000 * np.arange(4)
    store = ParquetSink(tmp_path)
    with store.writer() as take:
        take(Batch(series, Columns(times, values), Coverage(series.interval.cover(times))))
    frames = [
        pl.scan_parquet(tmp_path).collect().to_pandas(),
        pd.read_parquet(tmp_path),
        of_duckdb(tmp_path),
    ]
    frames.append(of_fastparquet(tmp_path))
    for frame in frames:
        rows = frame.sort_values("open_time")[list(series.dataset.names)].to_numpy()
        np.testing.assert_array_equal(rows.T, values)
