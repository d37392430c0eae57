"""Follow mode: how late 600 symbols are stored, and what a candle costs."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import attrs

from benchmarks.competitors.following import FollowJob
from benchmarks.harness.comparison import child
from benchmarks.harness.exchange import Options, exchange, symbols
from benchmarks.harness.results import Result, at_most, without_bar
from benchmarks.sections.rate import refused

__all__ = ["follow"]

_SYMBOLS, _MINUTES = 600, 4
_CONCURRENCY = 100
"""With answers after 50 ms, 20 requests at a time would take 1.5 s for 600 symbols."""


def follow() -> Iterator[Result]:
    """Follow 1m candles of 600 symbols, against an exchange with the published limits."""
    names = symbols(_SYMBOLS)
    with tempfile.TemporaryDirectory() as folder:
        for store in ("memory:", f"sqlite:{folder}/market.sqlite", f"duckdb:{folder}/market.duckdb"):
            name, _, _ = store.partition(":")
            with exchange(Options(symbols=names, minute=60, latency=0.05)) as running:
                job = FollowJob(
                    base_url=running.base_url,
                    symbols=names,
                    store=store,
                    minutes=_MINUTES,
                    concurrency=_CONCURRENCY,
                )
                command = [sys.executable, "-m", "benchmarks.competitors.following"]
                found = child([*command, json.dumps(attrs.asdict(job))], core=None)
            yield from _results(f"{_SYMBOLS} symbols of 1m into {name}", found, running.counted)


def _results(what: str, found: dict[str, Any], counted: Any) -> Iterator[Result]:
    late = statistics.quantiles(found["late"], n=100, method="inclusive")
    yield at_most(f"{what}: stored after the close, median", late[49], 2, " s")
    yield at_most("… 99th percentile", late[98], 3, " s")
    yield at_most("… requests for each candle", found["requests"] / found["candles"], 1.01)
    yield at_most("… weight in a minute, of 2,400", found["weight"] / _MINUTES, 610)
    yield at_most("… connections", counted["connections"], _CONCURRENCY)
    yield at_most("… answers 429 and 418", refused(counted), 0)
    yield without_bar("… processor time of a candle", found["seconds"] / found["candles"] * 1000, " ms")
