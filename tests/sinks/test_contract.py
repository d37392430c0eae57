"""The built-in stores keep the contract that is asked of everybody's."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import psycopg
import pytest

from marketfetch.protocols import Store, SupportsForget, SupportsLatest, SupportsProvenance, SupportsRejected
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.testing.contracts.sink import SinkContract
from marketfetch.values.datasets import datasets


@pytest.mark.parametrize("kind", [MemorySink, DuckDBSink, SQLiteSink, ParquetSink, PostgresSink])
def test_built_in_stores_forget_and_keep_rejected_rows_and_provenance(kind: type[Store]) -> None:
    # The contract skips what a store has no methods for.
    assert issubclass(kind, SupportsForget)
    assert issubclass(kind, SupportsRejected)
    assert issubclass(kind, SupportsProvenance)
    assert issubclass(kind, SupportsLatest)


class TestMemory(SinkContract):
    lasting = False

    def make_store(self, place: Path) -> MemorySink:
        return MemorySink()


class TestParquet(SinkContract):
    def make_store(self, place: Path) -> ParquetSink:
        return ParquetSink(place)

    def write_format(self, place: Path, version: int) -> int:
        (mark,) = (place / "_marketfetch").glob("format-*")
        before = int(mark.name.removeprefix("format-"))
        mark.rename(mark.with_name(f"format-{version}"))
        return before


class TestDuckDB(SinkContract):
    @pytest.fixture(scope="class")
    @classmethod
    def prepared(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A file that is prepared once: making tables and views takes longer than most tests."""
        file = tmp_path_factory.mktemp("prepared") / "store"
        DuckDBSink(file).prepare([*datasets().values()])
        return file

    @pytest.fixture
    def store(self, place: Path, prepared: Path) -> DuckDBSink:
        shutil.copy(prepared, place)
        return self.make_store(place)

    def make_store(self, place: Path) -> DuckDBSink:
        return DuckDBSink(place)

    def write_format(self, place: Path, version: int) -> int:
        with duckdb.connect(place) as connection:
            ((before,),) = connection.execute("SELECT version FROM marketfetch_format").fetchall()
            connection.execute("UPDATE marketfetch_format SET version = ?", [version])
        return int(before)


class TestSQLite(SinkContract):
    def make_store(self, place: Path) -> SQLiteSink:
        return SQLiteSink(place)

    def write_format(self, place: Path, version: int) -> int:
        with closing(sqlite3.connect(place)) as connection, connection:
            ((before,),) = connection.execute("SELECT version FROM marketfetch_format").fetchall()
            connection.execute("UPDATE marketfetch_format SET version = ?", [version])
        return int(before)


class TestPostgres(SinkContract):
    dsn: str

    @pytest.fixture(autouse=True)
    def database(self, postgres_dsn: str) -> None:
        self.dsn = postgres_dsn

    def make_store(self, place: Path) -> PostgresSink:
        return PostgresSink(self.dsn)

    def write_format(self, place: Path, version: int) -> int:
        with psycopg.connect(self.dsn) as connection:
            (found,) = connection.execute("SELECT version FROM marketfetch.format").fetchone() or (0,)
            connection.execute("UPDATE marketfetch.format SET version = %s", [version])
        return int(found)
