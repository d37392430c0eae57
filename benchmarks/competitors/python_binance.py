"""python-binance's history of futures candles, all symbols concurrently, without its sleeps."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import aiohttp
import binance.async_client
from binance.enums import HistoricalKlinesType

from benchmarks.competitors.job import Job, run


async def _go_on(_seconds: float) -> None:
    """Do not sleep."""


async def _gather(job: Job) -> list[list[list[Any]]]:
    # Not `AsyncClient.create`: it sends a ping to the real exchange.
    connector = aiohttp.TCPConnector(limit=job.concurrency)
    client = binance.async_client.AsyncClient(session_params={"connector": connector})
    client.FUTURES_URL = f"{job.base_url}/fapi"
    try:
        # The limit stays at its default of 1000: the library takes `limit` for the length of the history.
        histories = (
            client.get_historical_klines(
                symbol, job.interval, job.start, job.end - 1, klines_type=HistoricalKlinesType.FUTURES
            )
            for symbol in job.symbols
        )
        return list(await asyncio.gather(*histories))
    finally:
        await client.close_connection()


if __name__ == "__main__":
    # It sleeps for a second after every third page, which would be most of its time. Its module uses asyncio
    # only for this sleep, so nothing else changes.
    binance.async_client.asyncio = SimpleNamespace(sleep=_go_on)
    # The library leaves prices as text.
    run(lambda job: asyncio.run(_gather(job)), lambda rows: rows)
