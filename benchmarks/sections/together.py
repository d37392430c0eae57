"""The same command, started several times: rows asked for each row stored, refusals, and content.

3.456 million rows. Where there are limits, a rate limit minute lasts 15 s, with the published budget.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import attrs

from benchmarks.competitors.shared_board import Part
from benchmarks.harness.exchange import Options, exchange, symbols
from benchmarks.harness.results import Result, at_most, without_bar
from benchmarks.sections.postgres import server
from benchmarks.sections.processes import started
from benchmarks.sections.rate import refused
from marketfetch.protocols import Store
from marketfetch.sinks.urls import sink_from
from marketfetch.values.spans import Span

__all__ = ["together"]

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


def together() -> Iterator[Result]:
    """Start one, two and four processes with one query and one store."""
    with _postgres() as place:
        alone = _run(place, 1)
    yield without_bar("PostgreSQL, 1 process: seconds", alone.seconds, " s")
    contents = {alone.content}
    for count in (2, 4):
        with _postgres() as place:
            found = _run(place, count)
        contents.add(found.content)
        yield at_most(f"… {count} processes: rows asked for each row stored", found.factor, 1.05)
        yield without_bar("… seconds, against 1 process", found.seconds / alone.seconds, " ×")
    with _postgres() as place:
        found = _run(place, 4, kill_after=found.seconds / 3)
    contents.add(found.content)
    yield without_bar("… 4 processes, one of them killed: rows asked for each row stored", found.factor)
    with _postgres() as place:
        found = _run(place, 4, minute=15.0)
    contents.add(found.content)
    yield at_most("… 4 processes, limits, 3 addresses: rows asked for each row stored", found.factor, 1.2)
    yield at_most("… answers 429 and 418", found.refused, 0)
    for kind in ("duckdb", "sqlite", "parquet"):
        with tempfile.TemporaryDirectory() as folder:
            found = _run(f"{kind}:{folder}/market", 4)
        contents.add(found.content)
        yield at_most(f"{kind}, 4 processes: rows asked for each row stored", found.factor, 1.05)
    assert len(contents) == 1, "the stores do not hold the same rows"


@contextmanager
def _postgres() -> Iterator[str]:
    with server() as running, running.database() as dsn:
        yield dsn


def _run(place: str, count: int, minute: float | None = None, kill_after: float | None = None) -> _Found:
    """Fetch all rows by so many processes at once; the first may be killed after some seconds."""
    options = Options(symbols=symbols(_SYMBOLS), latency=_LATENCY, minute=minute, proxies=3 if minute else 0)
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
    asked = sum(rows for windows in running.counted["rows"].values() for rows in windows.values())
    return _Found(asked / _ROWS, seconds, refused(running.counted), _digest(place))


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
