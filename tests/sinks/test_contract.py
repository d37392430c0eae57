"""The built-in stores keep the contract that is asked of everybody's."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketfetch.sinks.duckdb import DuckDBSink
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.parquet import ParquetSink
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.testing.sink_contract import SinkContract


class TestMemory(SinkContract):
    lasting = False

    def make_store(self, place: Path) -> MemorySink:
        return MemorySink()


class TestParquet(SinkContract):
    def make_store(self, place: Path) -> ParquetSink:
        return ParquetSink(place)


class TestDuckDB(SinkContract):
    def make_store(self, place: Path) -> DuckDBSink:
        return DuckDBSink(place)


class TestSQLite(SinkContract):
    def make_store(self, place: Path) -> SQLiteSink:
        return SQLiteSink(place)


class TestPostgres(SinkContract):
    dsn: str

    @pytest.fixture(autouse=True)
    def database(self, postgres_dsn: str) -> None:
        self.dsn = postgres_dsn

    def make_store(self, place: Path) -> PostgresSink:
        return PostgresSink(self.dsn)
