"""Fill PostgreSQL with marketfetch and measure the latency of ticks on the same event loop.

Run as `python -m benchmarks.competitors.loop_ticks JOB`, where JOB is the JSON of a `Job`; without a `dsn`
nothing is fetched and the loop is idle for three seconds. Prints one line of JSON, times in seconds: `late`,
the delay of every tick; `own`, the delay without the time for which the thread was ready to run and other
processes had the cores; the `seconds` of the run; and the `rows` written.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import attrs

from benchmarks.competitors.job import Job
from benchmarks.harness.venue import unlimited
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
        """Sleep for 10 ms again and again, and record each delay."""
        while True:
            waited, planned = _waited(), time.perf_counter() + _TICK
            await asyncio.sleep(_TICK)
            late = time.perf_counter() - planned
            self.late.append(late)
            self.own.append(max(0.0, late - (_waited() - waited)))


def _waited() -> float:
    """Return the seconds for which this thread was ready to run and had no core."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


async def _fill(job: Job) -> int:
    """Fill the database at full speed; returns the number of rows written."""
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
