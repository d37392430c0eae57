"""marketfetch filling PostgreSQL, and how late the event loop was meanwhile for somebody else.

Run as `python -m benchmarks.contestants.ticking JOB`, where JOB is the JSON of a `Job`; without a `dsn` in it
nothing is fetched and the loop is idle for a few seconds. Prints one line of JSON, times in seconds: `late`,
how late every tick was; `own`, how late it was less the time for which the loop's thread was ready to run and
others had the processors; `seconds`, how long the run took; and the `rows` it wrote.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import attrs

from benchmarks.contestants.job import Job
from benchmarks.venue import unlimited
from marketfetch.api.pipeline import Pipeline
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings

_TICK = 0.01
_IDLE = 3.0


@attrs.frozen
class _Ticks:
    late: list[float] = attrs.field(factory=list)
    own: list[float] = attrs.field(factory=list)

    async def note(self) -> None:
        """Be woken every hundredth of a second, and note by how much too late."""
        while True:
            waited, planned = _waited(), time.perf_counter() + _TICK
            await asyncio.sleep(_TICK)
            late = time.perf_counter() - planned
            self.late.append(late)
            self.own.append(max(0.0, late - (_waited() - waited)))


def _waited() -> float:
    """Return for how many seconds this thread was ready to run, and others had the processors."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


async def _fill(job: Job) -> int:
    """Fill the database as fast as it goes; returns how many rows were written."""
    if job.dsn is None:
        await asyncio.sleep(_IDLE)
        return 0
    query = Query(symbols=job.symbols, interval=job.interval, start=job.start, end=job.end)
    settings = Settings(concurrency=job.concurrency)
    report = await Pipeline(unlimited()(job.base_url), query, PostgresSink(job.dsn), settings=settings)
    if not report.complete:
        raise RuntimeError(f"the run is not complete: {report}")
    return report.rows_written


async def _measure(job: Job) -> None:
    ticks = _Ticks()
    ticker = asyncio.create_task(ticks.note())
    clock = time.perf_counter()
    rows = await _fill(job)
    seconds = time.perf_counter() - clock
    ticker.cancel()
    print(json.dumps({**attrs.asdict(ticks), "rows": rows, "seconds": seconds}))


if __name__ == "__main__":
    asyncio.run(_measure(Job(**json.loads(sys.argv[1]))))
