"""Use thousands of proxies once, then measure the idle session.

Run as `python -m benchmarks.competitors.idle_session BASE_URL PROXY COUNT`. PROXY accepts any credential and
serves as COUNT proxies with different user names. Prints one line of JSON: the number of `proxies` used, the
number of `pollers` (tasks that watch connections), and `idle`, the share of a processor while idle.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import anyio

from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.values.http import Cost, LimitPool, Request

_IDLE = 5.0
_CALLS = LimitPool("calls", capacity=4, period=3_600_000)
"""A budget so small that a used proxy is chosen after all unused ones."""


async def _use(fetcher: CurlFetcher, pool: RotatingProxies, request: Request) -> None:
    async with pool.lease(request) as lease:
        response = await fetcher.fetch(request, lease.egress)
        lease.answered(response)
    if response.status != 200:
        raise RuntimeError(f"{lease.egress.name}: {response}")


async def _measure(base_url: str, proxy: str, count: int) -> None:
    address = proxy.removeprefix("http://")
    pool = RotatingProxies((f"http://user{number}:x@{address}" for number in range(count)), direct=False)
    request = Request("/fapi/v1/time", cost=Cost(_CALLS), base_url=base_url)
    fetcher, limiter = CurlFetcher(), anyio.CapacityLimiter(20)

    async def one() -> None:
        async with limiter:
            await _use(fetcher, pool, request)

    async with fetcher.session():
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(one)
        tasks = [task.get_coro() for task in asyncio.all_tasks()]
        clock, cpu = time.perf_counter(), time.process_time()
        await anyio.sleep(_IDLE)
        idle = (time.process_time() - cpu) / (time.perf_counter() - clock)
    found = {
        "proxies": sum(line.requests > 0 for line in pool.statistics()),
        "pollers": sum("AsyncCurl" in getattr(coroutine, "__qualname__", "") for coroutine in tasks),
        "idle": idle,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    anyio.run(_measure, sys.argv[1], sys.argv[2], int(sys.argv[3]))
