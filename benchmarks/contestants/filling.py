"""marketfetch filling a store, and the memory that it takes.

Run as `python -m benchmarks.contestants.filling JOB`, where JOB is the JSON of a `Job` whose `dsn` is the URL
of the sink. Prints one line of JSON: `base`, what the process has in memory before the run, and `peak`, the
most it ever had, both in bytes; the `rows` written and the `seconds` it took.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path

import anyio

from benchmarks.contestants.job import Job
from benchmarks.venue import unlimited
from marketfetch.api.pipeline import Pipeline
from marketfetch.sinks import sink_from
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings

# What is imported when it is first used belongs to the base. pyarrow imports pandas as soon as it makes an
# array of NumPy's, to know pandas' own ones.
_LATE = {"duckdb": ("duckdb",), "parquet": ("pyarrow.parquet", "pandas")}


def _memory(name: str) -> int:
    """Return a figure of this process in bytes: VmRSS is its memory now, VmHWM the most that it had.

    Not getrusage: its peak is never below what the parent had when it started this process.
    """
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index(f"{name}:") + 1]) * 1024


def main() -> None:
    """Do the job of the command line and print its measure."""
    job = Job(**json.loads(sys.argv[1]))
    assert job.dsn
    for module in _LATE.get(job.dsn.partition(":")[0], ()):
        import_module(module)
    anyio.run(anyio.sleep, 0)  # imports what it needs for asyncio
    sink = sink_from(job.dsn)
    query = Query(symbols=job.symbols, interval=job.interval, start=job.start, end=job.end)
    pipeline = Pipeline(
        unlimited()(job.base_url), query, sink, settings=Settings(concurrency=job.concurrency)
    )
    sink.prepare(query.datasets)
    base, clock = _memory("VmRSS"), time.perf_counter()
    report = anyio.run(pipeline.run)
    seconds, peak = time.perf_counter() - clock, _memory("VmHWM")
    if not report.complete:
        raise RuntimeError(f"the run is not complete: {report}")
    print(json.dumps({"base": base, "peak": peak, "rows": report.rows_written, "seconds": seconds}))


if __name__ == "__main__":
    main()
