"""The simulated exchange of the benchmarks, in a child process that can be pinned to a core.

Run as `python -m benchmarks.harness.exchange OPTIONS`, where OPTIONS is the JSON of an `Options`. Prints one
line of JSON when it is ready, and one with its counters when its standard input is closed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import attrs

from benchmarks.harness.page_cache import CachedKlines
from marketfetch.testing import (
    ArchiveOptions,
    GeneratedMarket,
    LimitRules,
    LocalProxies,
    Market,
    SimulatedArchive,
    SimulatedExchange,
    SimulatorOptions,
)

__all__ = ["Options", "Running", "exchange", "symbols"]


def symbols(count: int) -> list[str]:
    """Return `count` symbol names."""
    return [f"C{number:02}USDT" for number in range(count)]


@attrs.frozen(kw_only=True)
class Options:
    """Options of the exchange process.

    `minute` is the length of a rate limit minute in seconds, None for no limits; `weight` is the budget of
    one address and minute; `skew` is the clock skew in milliseconds. `archive` is where an archive begins and
    ends, in UTC milliseconds, None for no archive; its files of 1m candles are rendered before it is ready.
    """

    symbols: Sequence[str]
    latency: float = 0.0
    minute: float | None = None
    weight: int = 2400
    skew: int = 0
    proxies: int = 0
    core: int | None = None
    cache_bytes: int = 2**30
    archive: Sequence[int] | None = None


@attrs.define
class Running:
    """A running exchange; `counted` is filled after its end."""

    base_url: str
    proxies: Sequence[str]
    archive_url: str | None = None
    counted: Mapping[str, Any] = attrs.field(factory=dict)


@contextmanager
def exchange(options: Options) -> Iterator[Running]:
    """Run an exchange until the block is left."""
    command = [sys.executable, "-m", "benchmarks.harness.exchange", json.dumps(attrs.asdict(options))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            running = Running(**json.loads(process.stdout.readline()))
            yield running
        finally:
            process.stdin.close()
            account = process.stdout.read()
    running.counted = json.loads(account)


def _counted(simulated: SimulatedExchange, window: int) -> dict[str, Any]:
    """Return the exchange's counters, and the candles of each client in each rate limit window."""
    rows, asked = defaultdict[str, Counter[int]](Counter), 0
    for seen in simulated.request_log.latest:
        if seen.status == 200 and seen.path.endswith("klines"):
            limit = int(seen.params.get("limit", 0))
            rows[seen.client][seen.time // window] += limit
            # Longer candles are requested to look for gaps; they are no rows of the query.
            asked += limit if seen.params["interval"] == "1m" else 0
    return {
        "asked": asked,
        "statuses": dict(simulated.request_log.statuses),
        "weights": dict(simulated.request_log.weights),
        "requests": simulated.request_log.total,
        "connections": simulated.request_log.connections.total(),
        "rows": {client: dict(windows) for client, windows in rows.items()},
    }


@contextmanager
def _archive(options: Options, market: Market) -> Iterator[str | None]:
    """Serve the archive that the options want, and yield its URL."""
    if options.archive is None:
        yield None
        return
    since, now = options.archive
    asked = ArchiveOptions(since=since, now=lambda: now, cache=options.cache_bytes)
    with SimulatedArchive(market, asked) as archive:
        for tree, symbol in product(("monthly", "daily"), options.symbols):
            for key in archive.keys(f"data/futures/um/{tree}/klines/{symbol}/1m/"):
                archive.read(key)
        yield archive.base_url


def main() -> None:
    """Serve until standard input is closed."""
    options = Options(**json.loads(sys.argv[1]))
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    limits = None
    if options.minute is not None:
        limits = LimitRules(futures_weight=options.weight, period_scale=options.minute / 60)
    settings = SimulatorOptions(
        latency=options.latency,
        limits=limits,
        clock_skew=options.skew,
        klines=lambda market: CachedKlines(market, options.cache_bytes),
        log_size=1_000_000,
    )
    bytearray(2**24)  # raises glibc's mmap threshold, which makes the rendering of pages twice as fast
    market = GeneratedMarket(options.symbols)
    with (
        SimulatedExchange(market, settings) as simulated,
        LocalProxies(options.proxies) as proxies,
        _archive(options, market) as archive_url,
    ):
        ready = {"base_url": simulated.base_url, "proxies": proxies.urls, "archive_url": archive_url}
        print(json.dumps(ready), flush=True)
        sys.stdin.read()
        window = round((options.minute or 60) * 1000)
        print(json.dumps(_counted(simulated, window)), flush=True)


if __name__ == "__main__":
    main()
