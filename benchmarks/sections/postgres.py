"""Bound by the database: the whole pipeline into PostgreSQL, against a binary COPY of prepared rows.

The server commits durably (fsync, synchronous commits), unlike that of the tests. Server, exchange and client
share two cores.
"""

from __future__ import annotations

import dataclasses
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import attrs
import numpy as np
import psycopg

from benchmarks.competitors.job import Job
from benchmarks.harness.batches import START, prepared
from benchmarks.harness.comparison import Competitor, compare
from benchmarks.harness.exchange import Options, exchange, symbols
from benchmarks.harness.results import Result, at_least, at_most, interleaved, without_bar
from marketfetch.sinks.postgres import PostgresSink
from marketfetch.sinks.postgres.copy_binary import WireColumn, copy_body, to_timestamps
from marketfetch.values.pages import Batch
from tests.support import postgres

__all__ = ["database_bound", "server"]

_SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "autovacuum": "off",  # it would slow some rounds and not others
}
_VALUES = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "trades",
    "taker_buy_volume",
    "taker_buy_quote_volume",
)
_TYPES = {"open_time": "timestamptz", "trades": "bigint"}
_CREATE = "CREATE TABLE r (series_id integer, {}, PRIMARY KEY (series_id, open_time))".format(
    ", ".join(f"{name} {_TYPES.get(name, 'double precision')}" for name in _VALUES)
)
_SYMBOLS = {
    "r": "(SELECT 'C' || lpad(series_id::text, 2, '0') || 'USDT' AS symbol, * FROM r)",
    "ohlcv": "ohlcv",
}
"""The library's view, and the plain table of the other sides in the same format."""
_PIECE, _DAY = 2**18, 86_400_000


@contextmanager
def server() -> Iterator[postgres.Server]:
    """Run a server with durable commits."""
    with postgres.running(postgres.sources("auto")[0], _SETTINGS) as running:
        yield running


@attrs.frozen
class _Fill:
    """The seconds of a fill, the updated rows, the bytes of write-ahead log, and the digest of the table."""

    seconds: float
    updated: int
    wal: int
    content: tuple[int, str] = (0, "")


def database_bound(rounds: int, naive_rounds: int) -> Iterator[Result]:
    """Write 20 symbols × 60 days in every way, and 20 days of them by the naive script."""
    with server() as running, exchange(Options(symbols=symbols(20))) as source:
        job = Job(source.base_url, symbols(20), START, START + 60 * _DAY, "1m", 20)
        compare({"warm": Competitor("raw_socket")}, job, rounds=1, core=None)  # fills the page cache
        yield from _against_the_limit(running, job, rounds)
        job = dataclasses.replace(job, end=START + 20 * _DAY)
        yield from _against_the_naive_script(running, job, naive_rounds)


def _against_the_limit(running: postgres.Server, job: Job, rounds: int) -> Iterator[Result]:
    batches = prepared(20, 60, PostgresSink(""))
    bodies, rows = list(map(_body, batches)), sum(batch.rows for batch in batches)
    half = dataclasses.replace(job, end=START + 30 * _DAY)
    sides: dict[str, Callable[[], _Fill]] = {
        "raw COPY": lambda: _filled(running, "r", lambda dsn: _copy(dsn, bodies, writers=1)),
        "raw COPY, two connections": lambda: _filled(running, "r", lambda dsn: _copy(dsn, bodies, writers=2)),
        "the sink alone": lambda: _filled(running, "ohlcv", lambda dsn: _write(dsn, batches)),
        "pipeline, new rows": lambda: _filled(running, "ohlcv", lambda dsn: _pipeline(dsn, job)),
        "pipeline, the same rows again": lambda: _filled(running, "ohlcv", lambda dsn: _again(dsn, job, job)),
        "pipeline, half of them again": lambda: _filled(running, "ohlcv", lambda dsn: _again(dsn, half, job)),
    }
    found = interleaved(sides, rounds)
    _check_same_rows(found)
    speed = {name: rows / statistics.median(one.seconds for one in each) for name, each in found.items()}
    raw, raw_twice, sink, new, same, partly = speed.values()
    twice = found["pipeline, the same rows again"]
    yield at_least("new rows/s of the whole pipeline, of raw COPY", new / raw * 100, 90, " %")
    yield without_bar("… of raw COPY through two connections", new / raw_twice * 100, " %")
    yield without_bar("the sink alone, of raw COPY through two connections", sink / raw_twice * 100, " %")
    yield at_least("the same rows again, against new ones", same / new, 1, " ×")
    yield at_most("… rows updated", max(one.updated for one in twice), 0)
    yield at_most("… bytes of write-ahead log for a row", max(one.wal for one in twice) / rows, 2)
    yield at_least(
        "half of the rows again, against the slower of new and same", partly / min(new, same), 1, " ×"
    )
    for name, each in speed.items():
        yield without_bar(f"{name}: rows/s", each)


def _against_the_naive_script(running: postgres.Server, job: Job, rounds: int) -> Iterator[Result]:
    sides: dict[str, Callable[[], _Fill]] = {
        "naive script": lambda: _filled(running, "r", lambda dsn: _competitor("naive_script", dsn, job)),
        "ours": lambda: _filled(running, "ohlcv", lambda dsn: _pipeline(dsn, job)),
    }
    found = interleaved(sides, rounds)
    _check_same_rows(found)
    naive, ours = (statistics.median(one.seconds for one in each) for each in found.values())
    yield at_least("new rows/s, against the naive script and execute_values", naive / ours, 15, " ×")


def _check_same_rows(found: Mapping[str, Sequence[_Fill]]) -> None:
    contents = {(name, one.content) for name, each in found.items() for one in each}
    if len({content for _, content in contents}) != 1:
        raise AssertionError(f"the sides did not store the same rows: {sorted(contents)}")


def _filled(running: postgres.Server, table: str, fill: Callable[[str], _Fill]) -> _Fill:
    """Fill a new database, then digest the rows of the table regardless of their order."""
    names = ", ".join(("symbol", *_VALUES))
    with running.database() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(_CREATE)
        filled = fill(dsn)
        row = connection.execute(
            f"SELECT count(*), sum(hash_record_extended(ROW({names}), 0))::text FROM {_SYMBOLS[table]} AS t"
        ).fetchone()
    assert row is not None
    return attrs.evolve(filled, content=row)


def _observed(dsn: str, work: Callable[[], float]) -> _Fill:
    """Call `work`, which returns its seconds, and read the server's counters before and after."""
    account = (
        "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, coalesce(sum(n_tup_upd), 0) "
        "FROM pg_stat_user_tables WHERE relname = 'ohlcv'"
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        before = connection.execute(account).fetchone()
        seconds = work()
        after = connection.execute(account).fetchone()
    assert before is not None
    assert after is not None
    return _Fill(seconds, updated=int(after[1] - before[1]), wal=int(after[0] - before[0]))


def _competitor(module: str, dsn: str, job: Job) -> _Fill:
    asked = dataclasses.replace(job, dsn=dsn, table="r")
    done = compare({module: Competitor(module)}, asked, rounds=1, core=None)[module]
    return _Fill(done[0]["seconds"], 0, 0)


def _pipeline(dsn: str, job: Job) -> _Fill:
    return _observed(dsn, lambda: _competitor("ours", dsn, job).seconds)


def _again(dsn: str, before: Job, job: Job) -> _Fill:
    """Fetch rows of which some or all are stored already: the coverage is deleted in between."""
    _pipeline(dsn, before)
    with psycopg.connect(dsn) as connection:
        connection.execute("TRUNCATE marketfetch.coverage")
    return _pipeline(dsn, job)


def _write(dsn: str, batches: Sequence[Batch]) -> _Fill:
    """Write with the sink's number of writers."""
    sink = PostgresSink(dsn)
    sink.prepare([batches[0].series.dataset])

    def writer(number: int) -> None:
        with sink.writer() as write:
            for batch in batches[number :: sink.max_writers]:
                write(batch)

    return _observed(dsn, lambda: _together(writer, sink.max_writers))


def _copy(dsn: str, bodies: Sequence[bytes], writers: int) -> _Fill:
    """Send prepared COPY bodies, one transaction each."""

    def writer(number: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for body in bodies[number::writers]:
                with connection.cursor().copy("COPY r FROM STDIN (FORMAT BINARY)") as copy:
                    for start in range(0, len(body), _PIECE):
                        copy.write(body[start : start + _PIECE])

    return _observed(dsn, lambda: _together(writer, writers))


def _together(writer: Callable[[int], None], count: int) -> float:
    """Run writers in threads; return the seconds until the last one has ended."""
    threads = [threading.Thread(target=writer, args=(number,)) for number in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def _body(batch: Batch) -> bytes:
    """Return the binary COPY body of a batch, with the symbol's number as series id."""
    columns, names = batch.columns, batch.series.dataset.names
    number = symbols(20).index(batch.series.symbol)
    strips = [WireColumn(np.full(len(columns), number, np.int32)), WireColumn(to_timestamps(columns.times))]
    for name, values in zip(names, columns.values, strict=True):
        strips.append(WireColumn(values.astype(np.int64) if name == "trades" else values))
    return b"".join(copy_body([strips]))
