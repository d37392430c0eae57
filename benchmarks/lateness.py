"""A loop that is shared: how late others on it are served while rows pour into PostgreSQL."""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.contest import child
from benchmarks.contestants.job import Job
from benchmarks.exchange import Options, exchange, symbols
from benchmarks.figures import Figure, at_most, known
from benchmarks.postgres import server

__all__ = ["lateness"]

_SYMBOLS, _DAYS = 20, 60
_START, _DAY = 1_775_001_600_000, 86_400_000  # 2026-04-01


def lateness(rounds: int) -> Iterator[Figure]:
    """Tick every 10 ms on the loop of a run, and on one that has nothing else to do.

    The client keeps to one core and the exchange to the other; the server takes what they leave of both.
    """
    end = _START + _DAYS * _DAY
    with server() as running, exchange(Options(symbols=symbols(_SYMBOLS), core=1)) as source:
        job = Job(source.base_url, symbols(_SYMBOLS), _START, end, "1m", 20)
        found = []
        for number in range(rounds + 1):
            with running.database() as dsn:
                measured = _ticked(dataclasses.replace(job, dsn=dsn))
            if number:  # in the first one the exchange renders its pages, and the sink waits for them
                found.append(measured)
        idle = [_ticked(job)]
    yield at_most(
        "a 10 ms tick is late, at the 99th percentile", _median(found, "late", _percentile), 10, " ms"
    )
    yield at_most("… at worst", _median(found, "late", max), 50, " ms")
    # The rest is for the machine to answer for: here the client waits for the server, and for strangers.
    yield known(
        "… without the wait for a processor, 99th percentile", _median(found, "own", _percentile), " ms"
    )
    yield known("… without it, at worst", _median(found, "own", max), " ms")
    yield known("… on an idle loop, 99th percentile", _median(idle, "late", _percentile), " ms")
    yield known("… on an idle loop, at worst", _median(idle, "late", max), " ms")
    speed = statistics.median(one["rows"] / one["seconds"] for one in found)
    yield known("rows/s into PostgreSQL meanwhile", speed)


def _ticked(job: Job) -> dict[str, Any]:
    module = "benchmarks.contestants.ticking"
    return child([sys.executable, "-m", module, json.dumps(dataclasses.asdict(job))], core=0)


def _median(found: Sequence[dict[str, Any]], which: str, measure: Callable[[list[float]], float]) -> float:
    """Return the median over the runs of a measure of their ticks, in milliseconds."""
    return statistics.median(measure(one[which]) for one in found) * 1000


def _percentile(late: list[float]) -> float:
    return statistics.quantiles(late, n=100, method="inclusive")[98]
