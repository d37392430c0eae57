"""The error for a place that does not hold the named kind of store says what the place holds."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import duckdb
import pytest

import marketfetch as mf
from marketfetch.cli.parsing.command_line import parse
from marketfetch.sinks.duckdb.errors import OpenedFile, sink_error
from marketfetch.sinks.urls import sink_from
from marketfetch.values.datasets import Dataset

DATASETS = [Dataset.parse("ohlcv")]


@pytest.mark.parametrize("kind", [mf.SQLiteSink, mf.DuckDBSink])
def test_a_folder_in_the_place_of_a_file(kind: type[mf.SQLiteSink | mf.DuckDBSink], tmp_path: Path) -> None:
    with pytest.raises(mf.errors.SinkError, match="is a folder; name a file in it"):
        kind(tmp_path).prepare(DATASETS)


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    place = tmp_path / "market.sqlite"
    sqlite3.connect(place).close()
    place.write_bytes(b"something")
    with pytest.raises(mf.errors.SinkError, match="is a file; name a folder"):
        mf.ParquetSink(place).prepare(DATASETS)
    with pytest.raises(mf.errors.ConfigurationError, match="is a file; name a folder"):
        mf.ParquetSink(place).ledger()
    assert place.read_bytes() == b"something"


def test_a_duckdb_file_given_to_sqlite_is_told_as_one(tmp_path: Path) -> None:
    place = tmp_path / "market.db"
    duckdb.connect(str(place)).close()
    with pytest.raises(mf.errors.SinkError) as raised:
        mf.SQLiteSink(place).ledger()
    assert str(raised.value) == f"{place} is a DuckDB file; write duckdb:{place}"


def test_an_sqlite_file_given_to_duckdb_is_told_as_one() -> None:
    # Made by hand: DuckDB asks the network for what can read such a file.
    failure = duckdb.IOException('Failed to download extension "sqlite_scanner" at URL "http://…"')
    error = sink_error(failure, OpenedFile(Path("market.sqlite"), "256MB"))
    assert str(error) == "market.sqlite is an SQLite file; write sqlite:market.sqlite"


@pytest.mark.parametrize(
    ("written", "expected_message"),
    [
        ("market.sqlite", "such as sqlite:market.sqlite"),
        ("data/market.duckdb", "such as duckdb:data/market.duckdb"),
        ("password=hunter2 dbname=market.sqlite", "such as duckdb:market.duckdb"),
        ("hunter2@db.sqlite", "such as duckdb:market.duckdb"),
    ],
)
def test_a_file_without_its_kind_is_told_how_to_write_it(written: str, expected_message: str) -> None:
    with pytest.raises(mf.errors.ConfigurationError) as raised:
        sink_from(written)
    assert str(raised.value).endswith(expected_message)
    assert "hunter2" not in str(raised.value)


def test_a_name_that_the_locale_cannot_express_is_told_how_to_pass() -> None:
    with pytest.raises(mf.errors.ConfigurationError, match=r"word 3 .*set LC_ALL=C.UTF-8"):
        parse(["coverage", "--symbol", "\udce5\udcb8"], {})


@pytest.mark.parametrize("name", ["market\0.db", "market\ud800.db"])
@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "parquet"])
def test_characters_that_no_path_has_are_refused_before_anything_is_opened(kind: str, name: str) -> None:
    with pytest.raises(mf.errors.ConfigurationError, match="has a character that no path has; remove it"):
        mf.open(f"{kind}:{name}")
