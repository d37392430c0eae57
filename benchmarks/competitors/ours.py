"""marketfetch: one pipeline into memory, or into PostgreSQL if the job has a database.

If the job has an archive, rows come from its files alone.
"""

from __future__ import annotations

import anyio
import attrs
import numpy as np
from numpy.typing import NDArray

from benchmarks.competitors.job import Job, run
from benchmarks.harness.venue import venue_of
from marketfetch.api.pipeline import Pipeline
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.values.query import Query
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span


@attrs.frozen
class _Held:
    """A series, its span, and the sink with its rows."""

    sink: MemorySink
    series: Series
    span: Span


def _fetch(job: Job) -> list[_Held]:
    memory = MemorySink()
    sink = memory if job.dsn is None else PostgresSink(job.dsn)
    query = Query(
        symbols=job.symbols, interval=job.interval, start=job.start, end=job.end, sources=job.sources
    )
    pipeline = Pipeline(venue_of(job), query, sink, settings=Settings(concurrency=job.concurrency))
    report = anyio.run(pipeline.run)
    if not report.complete:
        raise RuntimeError(f"the run is not complete: {report}")
    span = Span(job.start, job.end)
    return [_Held(memory, line.series, span) for line in report.series] if job.dsn is None else []


def _numbers(held: _Held) -> NDArray[np.float64]:
    columns = held.sink.read(held.series, held.span)
    return np.column_stack([columns.times, *columns.values[:5]])


if __name__ == "__main__":
    run(_fetch, _numbers)
