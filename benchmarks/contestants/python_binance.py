"""python-binance's own history of futures klines, the symbols side by side, without its sleeps."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import aiohttp
import binance.async_client
from binance.enums import HistoricalKlinesType

from benchmarks.contestants.job import Job, run


async def _go_on(_seconds: float) -> None:
    """Do not sleep."""


async def _gather(job: Job) -> list[list[list[Any]]]:
    # `AsyncClient.create` would ping the real exchange first.
    connector = aiohttp.TCPConnector(limit=job.concurrency)
    client = binance.async_client.AsyncClient(session_params={"connector": connector})
    client.FUTURES_URL = f"{job.base_url}/fapi"
    try:
        # Its limit stays at 1000: it takes a larger one for the length of the whole history.
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
    # After every third page it sleeps for a second, to be kind to the exchange, and would be measured by that
    # alone. Sleeping is all that its module wants of asyncio, so that nothing else is changed.
    binance.async_client.asyncio = SimpleNamespace(sleep=_go_on)
    # Rows stay as the exchange sends them, prices as text: the library does no more.
    run(lambda job: asyncio.run(_gather(job)), lambda rows: rows)
