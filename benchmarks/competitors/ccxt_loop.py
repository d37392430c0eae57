"""ccxt as its manual shows it: a loop over `fetch_ohlcv` for each symbol, all symbols concurrently."""

from __future__ import annotations

from typing import Any

from benchmarks.competitors.ccxt_exchange import LIMIT, run_ccxt
from benchmarks.competitors.job import Job


async def _history(exchange: Any, job: Job, symbol: str) -> list[list[float]]:
    rows: list[list[float]] = []
    since = job.start
    while since < job.end:
        until = {"until": job.end - 1}
        page = await exchange.fetch_ohlcv(symbol, job.interval, since=since, limit=LIMIT, params=until)
        if not page:
            break
        rows += page
        since = page[-1][0] + job.step
    return rows


if __name__ == "__main__":
    run_ccxt(_history)
