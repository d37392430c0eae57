"""The same command, started several times: rows asked for each row stored, refusals, and content.

3.456 million rows. Without limits there are four addresses, since a process that holds none waits; a request
takes 50 ms, on a Dask cluster 100 ms. With limits there are three addresses, and a rate limit minute lasts
15 s, with the published budget.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import anyio
import attrs

from benchmarks.competitors.shared_board import Part
from benchmarks.harness.exchange import Options, Running, exchange, symbols
from benchmarks.harness.results import Result, at_most, without_bar
from benchmarks.harness.venue import unlimited
from benchmarks.sections.postgres import server
from benchmarks.sections.processes import started
from benchmarks.sections.rate import refused
from marketfetch.api.pipeline import Pipeline
from marketfetch.dask import backfill
from marketfetch.protocols import Store
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.sinks.urls import sink_from
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span
from tests.support.dask_cluster import cluster

__all__ = ["concurrent_runs"]

_START, _MINUTE = 1_609_459_200_000, 60_000
_SYMBOLS, _DAYS = 40, 60
_ROWS = _SYMBOLS * _DAYS * 1440
_END = _START + _DAYS * 1440 * _MINUTE
_LATENCY = 0.05


@attrs.frozen
class _Found:
    """The rows asked for each row stored, the seconds, the refusals and the digest of what is stored."""

    factor: float
    seconds: float
    refused: int
    content: str


def concurrent_runs() -> Iterator[Result]:
    """Start processes, and workers of a cluster, with one query and one store."""
    contents = set[str]()
    for figures in (_processes_into_postgres(), _processes_into_files(), _workers_of_dask()):
        for found, results in figures:
            contents.add(found.content)
            yield from results
    assert len(contents) == 1, "the stores do not hold the same rows"


_Figures = Iterator[tuple[_Found, Sequence[Result]]]


def _processes_into_postgres() -> _Figures:
    alone = found = _in_postgres(lambda place: _run(place, 1))
    yield alone, [without_bar("PostgreSQL, 1 process: seconds", alone.seconds, " s")]
    for count in (2, 4):
        found = _in_postgres(partial(_run, count=count))
        yield (
            found,
            [
                at_most(f"… {count} processes: rows asked for each row stored", found.factor, 1.05),
                without_bar("… seconds, against 1 process", found.seconds / alone.seconds, " ×"),
            ],
        )
    found = _in_postgres(partial(_run, count=4, kill_after=found.seconds / 3))
    yield found, [without_bar("… 4 processes, one killed: rows asked for each row stored", found.factor)]
    found = _in_postgres(partial(_run, count=4, minute=15.0))
    what = "… 4 processes, limits, 3 addresses: rows asked for each row stored"
    yield found, [at_most(what, found.factor, 1.2), at_most("… answers 429 and 418", found.refused, 0)]


def _processes_into_files() -> _Figures:
    for kind in ("duckdb", "sqlite", "parquet"):
        with tempfile.TemporaryDirectory() as folder:
            found = _run(f"{kind}:{folder}/market", 4)
        yield found, [at_most(f"{kind}, 4 processes: rows asked for each row stored", found.factor, 1.05)]


def _workers_of_dask() -> _Figures:
    usual = Settings().concurrency
    alone, best = (_in_postgres(partial(_alone, concurrency=each)) for each in (usual, 4 * usual))
    yield (
        alone,
        [without_bar(f"PostgreSQL, 100 ms, 1 process, {usual} in flight: seconds", alone.seconds, " s")],
    )
    yield best, [without_bar(f"… {4 * usual} in flight, against {usual}", best.seconds / alone.seconds, " ×")]
    for workers, killed in ((2, 0), (4, 0), (4, 1), (4, 2)):
        found = _in_postgres(partial(_on_dask, workers=workers, kill_after=[alone.seconds / 6] * killed))
        how = f"Dask, {workers} workers" + (f", {killed} killed" if killed else "")
        yield (
            found,
            [
                without_bar(f"{how}: seconds, against 1 process", found.seconds / alone.seconds, " ×"),
                without_bar("… rows asked for each row stored", found.factor),
            ],
        )


def _in_postgres(fill: Callable[[str], _Found]) -> _Found:
    with server() as running, running.database() as dsn:
        return fill(dsn)


def _run(place: str, count: int, minute: float | None = None, kill_after: float | None = None) -> _Found:
    """Fetch all rows by so many processes at once; the first may be killed after some seconds."""
    options = Options(symbols=symbols(_SYMBOLS), latency=_LATENCY, minute=minute, proxies=3 if minute else 4)
    with tempfile.TemporaryDirectory() as board, exchange(options) as running, ExitStack() as stack:
        part = Part(
            base_url=running.base_url,
            proxies=running.proxies,
            board=f"file:{board}",
            minute=minute,
            weight=options.weight,
            symbols=options.symbols,
            start=_START,
            end=_END,
            store=place,
        )
        processes = started([part] * count, stack)
        began = time.perf_counter()
        if kill_after is not None:
            time.sleep(kill_after)
            processes[0].kill()
            processes[0].communicate()
            processes = processes[1:]
        outputs = [json.loads(process.communicate()[0]) for process in processes]
        seconds = time.perf_counter() - began
    assert all(each["complete"] for each in outputs), outputs
    return _found(running, seconds, place)


def _alone(place: str, concurrency: int) -> _Found:
    """Fetch all rows in this process."""
    options = Options(symbols=symbols(_SYMBOLS), latency=2 * _LATENCY)
    with exchange(options) as running:
        pipeline = Pipeline(
            unlimited()(running.base_url), _query(options), place, settings=Settings(concurrency=concurrency)
        )
        began = time.perf_counter()
        assert anyio.run(pipeline.run).complete
        seconds = time.perf_counter() - began
    return _found(running, seconds, place)


def _on_dask(place: str, workers: int, kill_after: Sequence[float]) -> _Found:
    """Fetch all rows on a cluster; some workers are killed, each so many seconds after the one before it."""
    from distributed import Client

    options = Options(symbols=symbols(_SYMBOLS), latency=2 * _LATENCY, proxies=workers)
    with (
        tempfile.TemporaryDirectory() as folder,
        exchange(options) as running,
        cluster(Path(folder), workers, {"PYTHONPATH": os.pathsep.join(sys.path)}) as started_cluster,
        Client(started_cluster.address, set_as_default=False) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        addresses = Path(folder) / "proxies.txt"
        addresses.write_text("\n".join(running.proxies))
        pool = partial(RotatingProxies.from_file, str(addresses), direct=False)
        venue, board = unlimited()(running.base_url), f"file:{folder}/board"
        began = time.perf_counter()
        filling = threads.submit(backfill, client, venue, _query(options), place, proxies=pool, board=board)
        for process, after in zip(started_cluster.workers, kill_after, strict=False):
            time.sleep(after)
            process.kill()
        assert filling.result().complete
        seconds = time.perf_counter() - began
    return _found(running, seconds, place)


def _query(options: Options) -> Query:
    return Query(symbols=options.symbols, start=_START, end=_END)


def _found(running: Running, seconds: float, place: str) -> _Found:
    return _Found(running.counted["asked"] / _ROWS, seconds, refused(running.counted), _digest(place))


def _digest(place: str) -> str:
    """Return a digest of all rows of a store, in the order of series and time."""
    store = sink_from(place)
    assert isinstance(store, Store)
    content, rows = hashlib.sha256(), 0
    for series in sorted(store.ledger(), key=str):
        columns = store.read(series, Span(_START, _END))
        content.update(columns.times.tobytes() + columns.values.tobytes())
        rows += len(columns)
    assert rows == _ROWS, f"{rows:,} rows are stored"
    return content.hexdigest()
