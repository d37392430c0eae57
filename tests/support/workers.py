"""Processes that send requests as fast as the budgets of their pool allow, and the exchange's counts.

They are forked from one that has imported what they need: the imports take longer than most of what they do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

import anyio

import marketfetch as mf
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Sharing
from marketfetch.proxies.board_urls import board_from
from marketfetch.proxies.registry import Registry

__all__ = ["Worker", "workers"]

Job = Mapping[str, Any]


@cache
def _forks() -> ForkServerContext:
    """Return what forks the processes; the first of them starts it, and it ends with this process."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, "anyio._backends._asyncio", "psycopg"])
    return context


class Worker:
    """A process that begins when `begin` is called."""

    def __init__(self, job: Job) -> None:
        self._pipe, theirs = _forks().Pipe()
        self._process = _forks().Process(target=_main, args=(job, dict(os.environ), theirs), daemon=True)
        self._process.start()
        theirs.close()

    def ready(self) -> None:
        """Wait until it could begin."""
        assert self._pipe.recv() == "ready"

    def begin(self) -> None:
        """Start the requests."""
        self._pipe.send("begin")

    def served(self) -> int:
        """Wait until the process has ended; return the number of its requests."""
        served = int(self._pipe.recv())
        self._process.join(timeout=30)
        assert self._process.exitcode == 0
        return served

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kill it if it still runs, and wait until it is gone."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


@contextmanager
def workers(jobs: Sequence[Job]) -> Iterator[list[Worker]]:
    """Start processes that wait for `begin`; kill those that still run when the block is left."""
    started = [Worker(job) for job in jobs]
    try:
        for worker in started:
            worker.ready()
        yield started
    finally:
        for worker in started:
            worker.kill()


def _main(job: Job, environment: Mapping[str, str], pipe: Connection) -> None:
    os.environ.clear()
    os.environ.update(environment)
    anyio.run(_serve, job, pipe)


async def _serve(job: Job, pipe: Connection) -> None:
    """Ask until the time of the job is over, and tell how often."""
    limit, served = mf.adapter.LimitPool(**job["limit"]), 0
    registry = Registry(sharing=Sharing((board_from(job["board"]),), required=True), term=job["term"])
    pool = mf.RotatingProxies(job["proxies"], direct=not job["proxies"], registry=registry)
    fetcher = CurlFetcher()

    async def work(until: float) -> None:
        nonlocal served
        while time.time() < until:
            cost = mf.adapter.Cost(limit, job["weight"])
            request = mf.protocols.Request(job["path"], job["params"], cost=cost, base_url=job["url"])
            with anyio.move_on_after(max(0.0, until - time.time())):
                async with pool.lease(request) as lease:
                    response = await fetcher.fetch(request, lease.egress)
                    lease.answered(response)
                    if response.status != 200:
                        lease.failed(mf.errors.RateLimitExceeded("refused", retry_after=1))
                    served += 1

    pipe.send("ready")
    pipe.recv()
    until = time.time() + job["seconds"]
    async with pool.session(registry.sharing), fetcher.session(), anyio.create_task_group() as group:
        for _ in range(job["concurrency"]):
            group.start_soon(work, until)
    pipe.send(served)
