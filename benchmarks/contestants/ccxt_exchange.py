"""ccxt's Binance futures as both of its contestants use it: pointed at the job's server, and unthrottled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import ccxt.async_support as ccxt

from benchmarks.contestants.job import Job, run

__all__ = ["LIMIT", "contend"]

# ccxt never asks Binance for more at once: a larger limit is cut down to this one without a word, and a loop
# that steps on by what it has asked for then loses a third of the rows.
LIMIT = 1000


@asynccontextmanager
async def _exchange_of(job: Job) -> AsyncIterator[Any]:
    """Give an exchange that sends nothing but requests for klines."""
    exchange = ccxt.binanceusdm(
        {
            "enableRateLimit": False,
            # It counts while a request waits for its turn to be sent, and hundreds do in a long job.
            "timeout": 600_000,
            "urls": {"api": {"fapiPublic": f"{job.base_url}/fapi/v1"}},
        }
    )
    # A session of its own making would open a hundred connections, whatever the job allows.
    exchange.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=job.concurrency))
    exchange.timeout_on_exit = 0  # a pause of a quarter second in `close`, for web sockets
    # Given by hand: loading them would ask the real exchange's other interfaces too.
    exchange.set_markets([_market(exchange, symbol) for symbol in job.symbols])
    try:
        yield exchange
    finally:
        await exchange.close()


def _market(exchange: Any, symbol: str) -> Any:
    kind = {"type": "swap", "swap": True, "spot": False, "contract": True, "linear": True, "inverse": False}
    return exchange.safe_market_structure({"id": symbol, "symbol": symbol, **kind})


def contend(history: Callable[[Any, Job, str], Awaitable[list[list[float]]]]) -> None:
    """Do the job of the command line with one way to fetch a symbol's history, all symbols side by side."""

    async def gather(job: Job) -> list[list[list[float]]]:
        async with _exchange_of(job) as exchange:
            return await asyncio.gather(*(history(exchange, job, symbol) for symbol in job.symbols))

    run(lambda job: asyncio.run(gather(job)), lambda rows: rows)
