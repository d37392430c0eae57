"""The stores that come with marketfetch; each is loaded, with what it needs, when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marketfetch.sinks.duckdb.sink import DuckDBSink
    from marketfetch.sinks.memory import MemorySink
    from marketfetch.sinks.parquet.sink import ParquetSink
    from marketfetch.sinks.postgres import PostgresSink
    from marketfetch.sinks.sqlite import SQLiteSink
    from marketfetch.sinks.table_mapping import TableMapping, without_quote
    from marketfetch.sinks.urls import sink_from

__all__ = [
    "DuckDBSink",
    "MemorySink",
    "ParquetSink",
    "PostgresSink",
    "SQLiteSink",
    "TableMapping",
    "sink_from",
    "without_quote",
]

_HOMES = {
    "DuckDBSink": "duckdb",
    "MemorySink": "memory",
    "ParquetSink": "parquet",
    "PostgresSink": "postgres",
    "SQLiteSink": "sqlite",
    "TableMapping": "mapping",
    "sink_from": "urls",
    "without_quote": "mapping",
}


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'marketfetch.sinks' has no attribute {name!r}")
    value = getattr(import_module(f"marketfetch.sinks.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
