"""A link is followed to where it leads; it is never replaced by a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from marketfetch.errors import ConfigurationError, SinkError
from marketfetch.sinks import DuckDBSink, ParquetSink, SQLiteSink
from tests.support.batches import EVER, batch, candles

SERIES = candles()
Kind = type[DuckDBSink] | type[SQLiteSink]
KINDS = pytest.mark.parametrize("kind", [DuckDBSink, SQLiteSink])


def fill(store: DuckDBSink | SQLiteSink | ParquetSink) -> None:
    store.prepare([SERIES.dataset])
    with store.writer() as write:
        write(batch(SERIES, range(5), close=2.0))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Another disk, where there is nothing yet."""
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


@KINDS
def test_a_link_to_a_file_that_is_not_there_yet(tmp_path: Path, disk: Path, kind: Kind) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(disk / "market.db")
    fill(kind(link))
    assert link.is_symlink()
    assert (disk / "market.db").is_file()
    assert len(kind(link).read(SERIES, EVER)) == 5


@KINDS
def test_a_relative_link_to_a_link(tmp_path: Path, disk: Path, kind: Kind) -> None:
    (tmp_path / "first.db").symlink_to("second.db")
    (tmp_path / "second.db").symlink_to(Path("disk") / "market.db")
    fill(kind(tmp_path / "first.db"))
    assert (tmp_path / "first.db").is_symlink()
    assert (tmp_path / "second.db").is_symlink()
    assert (disk / "market.db").is_file()


@KINDS
def test_a_linked_folder(tmp_path: Path, disk: Path, kind: Kind) -> None:
    (tmp_path / "data").symlink_to(disk)
    fill(kind(tmp_path / "data" / "market.db"))
    assert (disk / "market.db").is_file()


@KINDS
def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path, kind: Kind) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "absent" / "market.db")
    with pytest.raises((ConfigurationError, SinkError), match=r"there is no folder .*absent"):
        fill(kind(link))
    assert link.is_symlink()


def test_rows_in_the_wal_are_seen_through_a_link_that_one_may_not_write_beside(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, link = SQLiteSink(disk / "market.db"), tmp_path / "link.db"
    link.symlink_to(store.path)
    store.prepare([SERIES.dataset])
    with store.writer() as write:
        write(batch(SERIES, range(5), close=2.0))
        assert (disk / "market.db-wal").stat().st_size
        monkeypatch.setattr(os, "access", lambda *_: False)
        assert len(SQLiteSink(link).read(SERIES, EVER)) == 5
        assert SQLiteSink(link).coverage([SERIES])[SERIES].covered


def test_a_month_that_lies_on_another_disk_stays_there(tmp_path: Path, disk: Path) -> None:
    """Whoever moves old files to a larger disk leaves links in their place."""
    store = ParquetSink(tmp_path / "market")
    fill(store)
    (month,) = store.folder.rglob("2*.parquet")
    moved = disk / month.name
    month.rename(moved)
    month.symlink_to(moved)
    with store.writer() as write:
        write(batch(SERIES, range(5, 9), close=2.0))
    assert month.is_symlink()
    assert len(store.read(SERIES, EVER)) == 9
