"""The job of every competitor, and the format of its output.

A competitor is run as `python -m benchmarks.competitors.NAME JOB`, where JOB is the JSON of a `Job`, and
prints one line of JSON: `seconds` and `cpu` seconds of fetching, the number of `rows`, and their `digest`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

__all__ = ["Job", "run"]

_Series = TypeVar("_Series")
_UNITS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclasses.dataclass(frozen=True)
class Job:
    """Candles of some symbols in `[start, end)`, in UTC milliseconds.

    The database and the archive are URLs, None for none.
    """

    base_url: str
    symbols: Sequence[str]
    start: int
    end: int
    interval: str
    concurrency: int
    dsn: str | None = None
    table: str | None = None
    archive_url: str | None = None

    @property
    def sources(self) -> Literal["archive", "rest"]:
        """Where rows come from: the files of the archive if there is one, else the API."""
        return "archive" if self.archive_url else "rest"

    @property
    def step(self) -> int:
        """The interval in milliseconds."""
        return int(self.interval[:-1]) * _UNITS[self.interval[-1]]


def run(fetch: Callable[[Job], Sequence[_Series]], numbers: Callable[[_Series], Any]) -> None:
    """Run the job of the command line and print the measurements.

    `fetch` returns the rows of every symbol, in the job's order. `numbers` converts the rows of one symbol
    for `digest`; it is not measured.
    """
    job = Job(**json.loads(sys.argv[1]))
    wall, cpu = time.perf_counter(), time.process_time()
    fetched = fetch(job)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    # A late import: the threads of NumPy's BLAS spin when they start and would be measured.
    from benchmarks.competitors.digest import digest

    rows, checksum = digest(map(numbers, fetched), job.start, job.end)
    print(json.dumps({"seconds": wall, "cpu": cpu, "rows": rows, "digest": checksum}))
