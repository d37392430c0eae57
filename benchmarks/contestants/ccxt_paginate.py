"""ccxt with its own pagination: one call per symbol, whose pages it asks for all at once."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.contestants.ccxt_exchange import LIMIT, exchange_of
from benchmarks.contestants.job import Job, run


async def _history(exchange: Any, job: Job, symbol: str) -> list[list[float]]:
    # By default it refuses more than ten. One to spare: every page begins a millisecond early.
    calls = -(-(job.end - job.start) // (LIMIT * job.step)) + 1
    params = {"paginate": True, "paginationCalls": calls, "until": job.end - 1}
    rows: list[list[float]] = await exchange.fetch_ohlcv(symbol, job.interval, job.start, params=params)
    return rows


async def _gather(job: Job) -> list[list[list[float]]]:
    async with exchange_of(job) as exchange:
        return await asyncio.gather(*(_history(exchange, job, symbol) for symbol in job.symbols))


if __name__ == "__main__":
    run(lambda job: asyncio.run(_gather(job)), lambda rows: rows)
