"""A store that is deleted or replaced under a run is an error that names it; no row is lost silently."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from marketfetch.errors import SinkError
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.sinks.sqlite import SQLiteSink
from tests.support.batches import batch, candles

SERIES = candles("BTCUSDT")


def deleted(file: Path) -> None:
    file.unlink()


def moved_away(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))


def replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"another file")
    other.replace(file)


@pytest.mark.parametrize("take", [deleted, moved_away, replaced])
@pytest.mark.parametrize("kind", [SQLiteSink, DuckDBSink])
def test_rows_that_went_into_no_file_are_not_called_written(
    tmp_path: Path, kind: type[SQLiteSink | DuckDBSink], take: Callable[[Path], None]
) -> None:
    file = tmp_path / "market"
    store = kind(file)
    store.prepare([SERIES.dataset])
    with store.writer() as write:
        write(batch(SERIES, [0, 1]))
        take(file)
        with pytest.raises(SinkError, match="market was deleted, moved or replaced while it was open"):
            write(batch(SERIES, [2]))


@pytest.mark.parametrize("kind", [SQLiteSink, DuckDBSink])
def test_a_new_file_takes_the_rows_of_the_next_run(
    tmp_path: Path, kind: type[SQLiteSink | DuckDBSink]
) -> None:
    file = tmp_path / "market"
    store = kind(file)
    for _ in range(2):
        store.prepare([SERIES.dataset])
        with store.writer() as write:
            write(batch(SERIES, [0, 1]))
            write(batch(SERIES, [2]))
        assert set(store.ledger()) == {SERIES}
        for each in tmp_path.iterdir():
            each.unlink()


@pytest.mark.parametrize("take", [shutil.rmtree, moved_away])
def test_a_parquet_folder_that_is_gone_is_told(tmp_path: Path, take: Callable[[Path], None]) -> None:
    store = ParquetSink(tmp_path / "market")
    store.prepare([SERIES.dataset])
    refusal = pytest.raises(
        SinkError, match="market was deleted, moved or replaced under a run; leave it there"
    )
    with refusal, store.writer() as write:
        write(batch(SERIES, [0, 1]))
        take(store.folder)
        write(batch(SERIES, [2]))
