"""Flat memory: ten million rows need no more of it than one million, in every store."""

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

from benchmarks.contest import child
from benchmarks.contestants.job import Job
from benchmarks.exchange import Options, exchange, symbols
from benchmarks.figures import Figure, at_most, known
from benchmarks.postgres import server

__all__ = ["flat_memory"]

_Place: TypeAlias = Callable[[], AbstractContextManager[str]]
"""Makes an empty store, gives its URL, and removes it when the block is left."""

_SYMBOLS = 20
_START, _DAY = 1_735_689_600_000, 86_400_000  # 2025-01-01
_FEW, _MANY = 35, 348  # days: 1,008,000 and 10,022,400 rows


def flat_memory() -> Iterator[Figure]:
    """Fill every store that is not itself in memory, with little and with much, in processes of their own."""
    # All runs ask for the same pages: they are rendered once, and kept by the exchange.
    options = Options(symbols=symbols(_SYMBOLS), cache_bytes=2**31)
    with server() as running, exchange(options) as source:
        places: dict[str, _Place] = {
            "PostgreSQL": running.database,
            "DuckDB": partial(_file, "duckdb:{}/market.duckdb"),
            "SQLite": partial(_file, "sqlite:{}/market.db"),
            "Parquet": partial(_file, "parquet:{}/market"),
        }
        for name, place in places.items():
            few, many = (_fill(source.base_url, place, days) for days in (_FEW, _MANY))
            yield at_most(f"{name}: peak of 10 M rows against 1 M", many["peak"] / few["peak"], 1.1, " ×")
            yield at_most("… beyond the base", (many["peak"] - many["base"]) / 1e6, 300, " MB")
            yield known("… the base: interpreter and libraries", many["base"] / 1e6, " MB")
            yield known("… rows/s", many["rows"] / many["seconds"])


def _fill(base_url: str, place: _Place, days: int) -> dict[str, Any]:
    """Fill an empty store with so many days and return what the process found out about itself."""
    with place() as url:
        job = Job(base_url, symbols(_SYMBOLS), _START, _START + days * _DAY, "1m", 20, dsn=url)
        module = "benchmarks.contestants.filling"
        found = child([sys.executable, "-m", module, json.dumps(dataclasses.asdict(job))], core=None)
    if found["rows"] != _SYMBOLS * days * 1440:
        raise AssertionError(f"{found['rows']:,} rows were written, of {_SYMBOLS * days * 1440:,}")
    return found


@contextmanager
def _file(template: str) -> Iterator[str]:
    """Make a folder for a store of files. The disk's: a file in a tmpfs would be memory, if not ours."""
    with TemporaryDirectory(prefix="marketfetch-", dir=Path(__file__).parents[1] / ".venv") as folder:
        yield template.format(folder)
