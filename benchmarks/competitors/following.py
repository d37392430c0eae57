"""Follow many symbols for some minutes, and measure how late each candle is stored.

Run as `python -m benchmarks.competitors.following JOB`, where JOB is the JSON of a `FollowJob`. Prints one
line of JSON: `late`, the seconds from the close of each candle until it was durable; and, from the first
round to the last one, the `candles`, the `requests`, their `weight`, and the `seconds` of processor time.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

import anyio
import attrs

from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline
from marketfetch.events import BatchWritten, Event
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings

__all__ = ["FollowJob"]

_MINUTE = 60_000


@attrs.frozen(kw_only=True)
class FollowJob:
    """The query of the process: 1m candles of these symbols into a store, for some minutes."""

    base_url: str
    symbols: Sequence[str]
    store: str
    minutes: int
    concurrency: int


async def _measure(job: FollowJob) -> dict[str, object]:
    late: list[float] = []
    pool = RotatingProxies(())

    def listen(event: Event) -> None:
        if isinstance(event, BatchWritten) and measuring:
            late.extend(time.time() - (opened + _MINUTE) / 1000 for opened in event.batch.columns.times[-1:])

    def spent() -> tuple[int, int, float]:
        (line,) = pool.statistics()
        return line.requests, line.weight, time.process_time()

    pipeline = Pipeline(
        BinanceUsdm(job.base_url),
        Query(symbols=job.symbols, start="5m"),
        job.store,
        proxies=pool,
        settings=Settings(concurrency=job.concurrency, heartbeat=60),
        listeners=[listen],
        board=None,
    )
    measuring = False
    async with pipeline.follow() as following:
        while not (health := following.health()) or not all(line.provisional for line in health):  # noqa: ASYNC110
            await anyio.sleep(0.2)
        await _middle_of_a_minute()
        measuring, before = True, spent()
        await anyio.sleep(60 * job.minutes)
        requests, weight, seconds = (after - first for after, first in zip(spent(), before, strict=True))
    return {
        "late": late,
        "candles": len(late),
        "requests": requests,
        "weight": weight,
        "seconds": seconds,
    }


async def _middle_of_a_minute() -> None:
    """Sleep until nothing is due for half a minute."""
    await anyio.sleep((90 - time.time() % 60) % 60)


if __name__ == "__main__":
    print(json.dumps(anyio.run(_measure, FollowJob(**json.loads(sys.argv[1])))))
