"""Fill a store with marketfetch and measure the memory of the process.

Run as `python -m benchmarks.competitors.store_fill JOB`, where JOB is the JSON of a `Job` whose `dsn` is the
URL of the sink. With an archive, rows come from its files alone. Prints one line of JSON: `base`, the
resident memory before the run, and `peak`, the largest of the process, both in bytes; the `rows` written and
the `seconds` of the run.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path

import anyio

from benchmarks.competitors.job import Job
from benchmarks.harness.venue import venue_of
from marketfetch.api.pipeline import Pipeline
from marketfetch.sinks import sink_from
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings

# Modules that are imported at their first use count as part of the base. pyarrow imports pandas when it first
# converts a NumPy array.
_LATE = {"duckdb": ("duckdb",), "parquet": ("pyarrow.parquet", "pandas")}


def _memory(name: str) -> int:
    """Return VmRSS (resident now) or VmHWM (peak) of this process in bytes.

    getrusage is no substitute: its peak is at least the parent's size at the start of this process.
    """
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index(f"{name}:") + 1]) * 1024


def main() -> None:
    """Run the job of the command line and print the measurements."""
    job = Job(**json.loads(sys.argv[1]))
    assert job.dsn
    for module in _LATE.get(job.dsn.partition(":")[0], ()):
        import_module(module)
    anyio.run(anyio.sleep, 0)  # imports anyio's asyncio backend
    sink = sink_from(job.dsn)
    query = Query(
        symbols=job.symbols,
        interval=job.interval,
        start=job.start,
        end=job.end,
        sources=job.sources,
    )
    pipeline = Pipeline(venue_of(job), query, sink, settings=Settings(concurrency=job.concurrency))
    sink.prepare(query.datasets)
    base, clock = _memory("VmRSS"), time.perf_counter()
    report = anyio.run(pipeline.run)
    seconds, peak = time.perf_counter() - clock, _memory("VmHWM")
    if not report.complete:
        raise RuntimeError(f"the run is not complete: {report}")
    print(json.dumps({"base": base, "peak": peak, "rows": report.rows_written, "seconds": seconds}))


if __name__ == "__main__":
    main()
