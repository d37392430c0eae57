"""The latency of the event loop for other tasks while a run writes to PostgreSQL."""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.competitors.job import Job
from benchmarks.harness.comparison import child
from benchmarks.harness.exchange import Options, exchange, symbols
from benchmarks.harness.results import Result, at_most, without_bar
from benchmarks.sections.postgres import server

__all__ = ["loop_latency"]

_SYMBOLS, _DAYS = 20, 60
_START, _DAY = 1_775_001_600_000, 86_400_000  # 2026-04-01


def loop_latency(rounds: int) -> Iterator[Result]:
    """Tick every 10 ms on the loop of a run, and on an idle loop.

    The client is pinned to one core and the exchange to the other; the server uses the rest of both.
    """
    end = _START + _DAYS * _DAY
    with server() as running, exchange(Options(symbols=symbols(_SYMBOLS), core=1)) as source:
        job = Job(source.base_url, symbols(_SYMBOLS), _START, end, "1m", 20)
        found = []
        for number in range(rounds + 1):
            with running.database() as dsn:
                measured = _measure_ticks(dataclasses.replace(job, dsn=dsn))
            if number:  # not the first run, in which the exchange renders its pages
                found.append(measured)
        idle = [_measure_ticks(job)]
    yield at_most(
        "a 10 ms tick is late, at the 99th percentile", _median(found, "late", _percentile), 10, " ms"
    )
    yield at_most("… at worst", _median(found, "late", max), 50, " ms")
    # Without the time for which the thread was ready and another process had the core.
    yield without_bar(
        "… without the wait for a processor, 99th percentile", _median(found, "own", _percentile), " ms"
    )
    yield without_bar("… without it, at worst", _median(found, "own", max), " ms")
    yield without_bar("… on an idle loop, 99th percentile", _median(idle, "late", _percentile), " ms")
    yield without_bar("… on an idle loop, at worst", _median(idle, "late", max), " ms")
    speed = statistics.median(one["rows"] / one["seconds"] for one in found)
    yield without_bar("rows/s into PostgreSQL meanwhile", speed)


def _measure_ticks(job: Job) -> dict[str, Any]:
    module = "benchmarks.competitors.loop_ticks"
    return child([sys.executable, "-m", module, json.dumps(dataclasses.asdict(job))], core=0)


def _median(found: Sequence[dict[str, Any]], which: str, measure: Callable[[list[float]], float]) -> float:
    """Return the median of all runs' measure (such as the maximum) of their ticks, in milliseconds."""
    return statistics.median(measure(one[which]) for one in found) * 1000


def _percentile(late: list[float]) -> float:
    return statistics.quantiles(late, n=100, method="inclusive")[98]
