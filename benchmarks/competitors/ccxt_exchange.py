"""ccxt's Binance futures for both ccxt competitors: with the job's server, and without throttling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import ccxt.async_support as ccxt

from benchmarks.competitors.job import Job, run

__all__ = ["LIMIT", "run_ccxt"]

# ccxt silently reduces a larger limit to this one; a loop that advances by the larger limit would then lose
# a third of the rows.
LIMIT = 1000


@asynccontextmanager
async def _exchange_of(job: Job) -> AsyncIterator[Any]:
    """Yield an exchange that requests candles and nothing else."""
    exchange = ccxt.binanceusdm(
        {
            "enableRateLimit": False,
            # It includes the time that a request waits in the queue, and hundreds wait in a long job.
            "timeout": 600_000,
            "urls": {"api": {"fapiPublic": f"{job.base_url}/fapi/v1"}},
        }
    )
    # ccxt's own session would open a hundred connections, more than the job allows.
    exchange.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=job.concurrency))
    exchange.timeout_on_exit = 0  # no pause of 0.25 s in `close`
    # Markets are set here: loading them would request other APIs of the real exchange.
    exchange.set_markets([_market(exchange, symbol) for symbol in job.symbols])
    try:
        yield exchange
    finally:
        await exchange.close()


def _market(exchange: Any, symbol: str) -> Any:
    kind = {"type": "swap", "swap": True, "spot": False, "contract": True, "linear": True, "inverse": False}
    return exchange.safe_market_structure({"id": symbol, "symbol": symbol, **kind})


def run_ccxt(history: Callable[[Any, Job, str], Awaitable[list[list[float]]]]) -> None:
    """Run the job of the command line; `history` fetches one symbol, all symbols run concurrently."""

    async def gather(job: Job) -> list[list[list[float]]]:
        async with _exchange_of(job) as exchange:
            return await asyncio.gather(*(history(exchange, job, symbol) for symbol in job.symbols))

    run(lambda job: asyncio.run(gather(job)), lambda rows: rows)
