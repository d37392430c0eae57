"""ccxt with its own pagination: one call per symbol, which requests all pages at once."""

from __future__ import annotations

from typing import Any

from benchmarks.competitors.ccxt_exchange import LIMIT, run_ccxt
from benchmarks.competitors.job import Job


async def _history(exchange: Any, job: Job, symbol: str) -> list[list[float]]:
    # ccxt allows ten calls by default. One more than needed: each page begins a millisecond early.
    calls = -(-(job.end - job.start) // (LIMIT * job.step)) + 1
    params = {"paginate": True, "paginationCalls": calls, "until": job.end - 1}
    rows: list[list[float]] = await exchange.fetch_ohlcv(symbol, job.interval, job.start, params=params)
    return rows


if __name__ == "__main__":
    run_ccxt(_history)
