"""A Parquet file that a killed process had put in its place, and not yet into the ledger."""

from __future__ import annotations

import os
from multiprocessing import get_context
from pathlib import Path

import pytest

from marketfetch.errors import SinkError
from marketfetch.sinks import ParquetSink
from marketfetch.sinks.parquet.series_folder import SeriesFolder
from tests.support.batches import EVER, batch, candles

SERIES = candles()
MONTH = 31 * 1440


def fill(store: ParquetSink, *batches: range) -> None:
    store.prepare([SERIES.dataset])
    with store.writer() as write:
        for rows in batches:
            write(batch(SERIES, rows, close=2.0))


def _killed_before_the_ledger(store: ParquetSink, rows: range) -> None:
    """Write a batch, and die where the ledger would be put in its place."""
    SeriesFolder._put_ledger = lambda *_: os._exit(9)  # type: ignore[method-assign]
    fill(store, rows)


def killed(store: ParquetSink, rows: range) -> None:
    child = get_context("spawn").Process(target=_killed_before_the_ledger, args=(store, rows))
    child.start()
    child.join()
    assert child.exitcode == 9


def bytes_of(store: ParquetSink) -> dict[str, bytes]:
    files = (file for file in store.folder.rglob("*.parquet") if "_marketfetch" not in file.parts)
    return {str(file.relative_to(store.folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize("then", ["prepared", "written"])
def test_the_next_run_lists_it(tmp_path: Path, then: str) -> None:
    store, whole = ParquetSink(tmp_path / "store"), ParquetSink(tmp_path / "whole")
    fill(store, range(5))
    killed(store, range(MONTH, MONTH + 5))
    assert store.coverage([SERIES])[SERIES].covered.length == 10 * 60_000, "it says itself what it holds"
    if then == "prepared":
        store.prepare([SERIES.dataset])
        fill(whole, range(5), range(MONTH, MONTH + 5))
    else:
        with store.writer() as write:
            write(batch(SERIES, range(5, 9), close=2.0))
        fill(whole, range(9), range(MONTH, MONTH + 5))
    assert bytes_of(store) == bytes_of(whole)


def test_a_first_file_is_listed_as_well(tmp_path: Path) -> None:
    store, whole = ParquetSink(tmp_path / "store"), ParquetSink(tmp_path / "whole")
    killed(store, range(5))
    store.prepare([SERIES.dataset])
    fill(whole, range(5))
    assert bytes_of(store) == bytes_of(whole)


def test_it_is_missed_when_it_is_deleted(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path / "store")
    fill(store, range(5))
    killed(store, range(MONTH, MONTH + 5))
    store.prepare([SERIES.dataset])
    (february,) = store.folder.rglob("2020-02.parquet")
    february.unlink()
    with pytest.raises(SinkError, match=r"2020-02\.parquet is missing"):
        store.coverage([SERIES])


def test_a_file_of_somebody_elses_is_not_counted_on(tmp_path: Path) -> None:
    store = ParquetSink(tmp_path / "store")
    fill(store, range(5))
    killed(store, range(5, 9))
    home = SeriesFolder(store.folder, SERIES).path
    (home / "notes.parquet").write_bytes(b"not ours")
    store.prepare([SERIES.dataset])
    assert SeriesFolder(store.folder, SERIES)._ledger().files.keys() == {"2020-01"}
    (home / "notes.parquet").unlink()
    assert len(store.read(SERIES, EVER)) == 9
