"""ccxt as its manual shows it: every symbol a loop over `fetch_ohlcv`, the symbols side by side."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.contestants.ccxt_exchange import LIMIT, exchange_of
from benchmarks.contestants.job import Job, run


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


async def _gather(job: Job) -> list[list[list[float]]]:
    async with exchange_of(job) as exchange:
        return await asyncio.gather(*(_history(exchange, job, symbol) for symbol in job.symbols))


if __name__ == "__main__":
    run(lambda job: asyncio.run(_gather(job)), lambda rows: rows)
