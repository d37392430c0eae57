"""Flat memory: a run of ten million rows needs no more memory than one of one million, in every store."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from benchmarks.competitors.job import Job
from benchmarks.harness.comparison import child
from benchmarks.harness.exchange import Options, exchange, symbols
from benchmarks.harness.results import Result, at_most, without_bar
from benchmarks.sections.postgres import server

__all__ = ["flat_memory", "on_disk"]

_StoreFactory: TypeAlias = Callable[[], AbstractContextManager[str]]
"""Creates an empty store, yields its URL, and removes it when the block is left."""

_SYMBOLS = 20
_START, _DAY = 1_735_689_600_000, 86_400_000  # 2025-01-01
_FEW, _MANY = 35, 348  # days: 1,008,000 and 10,022,400 rows


def flat_memory() -> Iterator[Result]:
    """Fill every persistent store with few and with many rows, each in its own process."""
    # All runs request the same pages, which the exchange renders once and caches.
    options = Options(symbols=symbols(_SYMBOLS), cache_bytes=2**31)
    with server() as running, exchange(options) as source:
        stores: dict[str, _StoreFactory] = {
            "PostgreSQL": running.database,
            "DuckDB": partial(on_disk, "duckdb:{}/market.duckdb"),
            "SQLite": partial(on_disk, "sqlite:{}/market.db"),
            "Parquet": partial(on_disk, "parquet:{}/market"),
        }
        for name, store_path in stores.items():
            few, many = (_fill(source.base_url, store_path, days) for days in (_FEW, _MANY))
            yield at_most(f"{name}: peak of 10 M rows against 1 M", many["peak"] / few["peak"], 1.1, " ×")
            yield at_most("… beyond the base", (many["peak"] - many["base"]) / 1e6, 300, " MB")
            yield without_bar("… the base: interpreter and libraries", many["base"] / 1e6, " MB")
            yield without_bar("… rows/s", many["rows"] / many["seconds"])


def _fill(base_url: str, store_path: _StoreFactory, days: int) -> dict[str, Any]:
    """Fill an empty store with `days` days and return the measurements of the process."""
    with store_path() as url:
        job = Job(base_url, symbols(_SYMBOLS), _START, _START + days * _DAY, "1m", 20, dsn=url)
        module = "benchmarks.competitors.store_fill"
        found = child([sys.executable, "-m", module, json.dumps(dataclasses.asdict(job))], core=None)
    if found["rows"] != _SYMBOLS * days * 1440:
        raise AssertionError(f"{found['rows']:,} rows were written, of {_SYMBOLS * days * 1440:,}")
    return found


@contextmanager
def on_disk(template: str) -> Iterator[str]:
    """Yield the URL of a store in a folder on disk: files in a tmpfs would take memory."""
    with TemporaryDirectory(prefix="marketfetch-", dir=Path(__file__).parents[2] / ".venv") as folder:
        yield template.format(folder)
