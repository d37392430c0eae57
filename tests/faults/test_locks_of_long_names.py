"""A process that was killed while it wrote a symbol of a long name: its lock is broken like any other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from marketfetch.common.processes import ProcessIdentity
from marketfetch.sinks.parquet.series_folder import SeriesFolder
from marketfetch.sinks.parquet.sink import ParquetSink
from tests.support.batches import EVER, batch, candles


def dead_owner() -> ProcessIdentity:
    """A process of this machine that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return attrs.evolve(ProcessIdentity.current(), pid=ended.pid)


@pytest.mark.parametrize("symbol", ["币安人生" * 5 + "USDT", "币" * 25, "X" * 220, "🙂" * 19])
def test_the_lock_of_a_killed_process_is_broken(tmp_path: Path, symbol: str) -> None:
    store, series = ParquetSink(tmp_path / "market"), candles(symbol)
    store.prepare([series.dataset])
    with store.writer() as write:
        write(batch(series, range(3), open=1.0))
        lock = SeriesFolder(store.folder, series).lock
        lock.write_text(f"{dead_owner()}.0a1b2c3d")
        write(batch(series, range(3, 6), open=1.0))
    assert len(store.read(series, EVER)) == 6
    lock.write_text(f"{dead_owner()}.0a1b2c3d")
    store.prepare([series.dataset])
    assert not lock.exists()


def test_long_names_that_begin_alike_have_locks_of_their_own(tmp_path: Path) -> None:
    locks = {SeriesFolder(tmp_path, candles("X" * 200 + end)).lock for end in ("A", "B", "C")}
    assert len(locks) == 3
