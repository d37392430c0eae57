"""Fetch the same candles into memory with all competitors: bound by the processor, and bound by latency."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.competitors.job import Job
from benchmarks.harness.comparison import PEERS, Competitor, compare
from benchmarks.harness.exchange import Options, exchange, symbols
from benchmarks.harness.results import Result, at_least, at_most, without_bar

__all__ = ["latency_bound", "processor_bound"]

_START = 1_775_001_600_000  # 2026-04-01
_DAY = 86_400_000
_PEERS = {
    "naive script": Competitor("naive_script"),
    "ccxt, a loop": Competitor("ccxt_loop", PEERS),
    "ccxt, paginate": Competitor("ccxt_paginate", PEERS),
    "python-binance, without its sleeps": Competitor("python_binance", PEERS),
}


def _job(base_url: str, days: int) -> Job:
    return Job(base_url, symbols(20), _START, _START + days * _DAY, "1m", 20)


def processor_bound(rounds: int) -> Iterator[Result]:
    """Fetch and decode 20 symbols × 60 days; client and exchange each have their own core."""
    competitors = {
        "raw socket": Competitor("raw_socket"),
        "marketfetch": Competitor("ours"),
        **_PEERS,
    }
    with exchange(Options(symbols=symbols(20), core=1)) as running:
        job = _job(running.base_url, days=60)
        compare({"warm": Competitor("raw_socket")}, job, rounds=1, core=0)  # fills the page cache
        found = compare(competitors, job, rounds=rounds, core=0)
    rows = found["marketfetch"][0]["rows"]
    seconds = {name: statistics.median(one["seconds"] for one in each) for name, each in found.items()}
    ours = seconds["marketfetch"]
    yield at_least("rows/s into memory, one core, pages of 1500", rows / ours, 1_000_000)
    yield at_least("… times as fast as the naive script", seconds["naive script"] / ours, 5)
    for way in ("ccxt, a loop", "ccxt, paginate"):
        yield at_least(f"… times as fast as {way}", seconds[way] / ours, 8)
    for name in competitors:
        yield without_bar(f"{name}: rows/s", rows / seconds[name])
    yield at_least("the exchange's reserve: raw socket against marketfetch", ours / seconds["raw socket"], 2)


def latency_bound(rounds: int) -> Iterator[Result]:
    """Fetch 20 symbols × 60 days from an exchange 100 ms away, 20 requests in flight."""
    with exchange(Options(symbols=symbols(20), latency=0.1, core=1)) as running:
        job = _job(running.base_url, days=60)
        found = compare({"marketfetch": Competitor("ours")}, job, rounds=rounds, core=None)["marketfetch"]
    pages = len(job.symbols) * -(-60 * 1440 // 1500)
    ideal = pages / job.concurrency * 0.1
    seconds = statistics.median(one["seconds"] for one in found)
    yield at_most("seconds against (requests ÷ concurrency) × latency", seconds / ideal, 1.25, " ×")
