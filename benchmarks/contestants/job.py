"""What every contestant is asked and how it answers.

A contestant is run as `python -m benchmarks.contestants.NAME JOB`, where JOB is the JSON of a `Job`, and
prints one line of JSON: `seconds` and `cpu` (of this process) that fetching took, `rows`, and their `digest`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

__all__ = ["Job", "run"]

_Series = TypeVar("_Series")
_UNITS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclasses.dataclass(frozen=True)
class Job:
    """Klines of some symbols in `[start, end)`, in UTC milliseconds, and where to store them, if anywhere."""

    base_url: str
    symbols: Sequence[str]
    start: int
    end: int
    interval: str
    concurrency: int
    dsn: str | None = None
    table: str | None = None

    @property
    def step(self) -> int:
        """The interval in milliseconds."""
        return int(self.interval[:-1]) * _UNITS[self.interval[-1]]


def run(fetch: Callable[[Job], Sequence[_Series]], numbers: Callable[[_Series], Any]) -> None:
    """Do the job of the command line and print its measure.

    `fetch` returns what the contestant holds for every symbol, in their order. `numbers` makes the rows of a
    symbol into what `digest` reads; it runs after the clock has stopped.
    """
    job = Job(**json.loads(sys.argv[1]))
    wall, cpu = time.perf_counter(), time.process_time()
    fetched = fetch(job)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    # Not imported earlier, because the threads of NumPy's algebra spin for their first few hundredths of a
    # second, which would count as the contestant's.
    from benchmarks.contestants.digest import digest

    rows, checksum = digest(map(numbers, fetched), job.start, job.end)
    print(json.dumps({"seconds": wall, "cpu": cpu, "rows": rows, "digest": checksum}))
