"""Processes that send requests as fast as the budgets of their pool allow, and the exchange's counts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).parents[2]

CODE = """
import json, sys, time
import anyio
import marketfetch as mf
from marketfetch.proxies.board_urls import board_from
from marketfetch.proxies.registry import Registry
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Sharing

job = json.loads(sys.argv[1])
limit = mf.adapter.LimitPool(**job["limit"])
registry = Registry(sharing=Sharing((board_from(job["board"]),), required=True), term=job["term"])
pool = mf.RotatingProxies(job["proxies"], direct=not job["proxies"], registry=registry)
fetcher = CurlFetcher()
served = 0

async def work(until):
    global served
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

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.time() + job["seconds"]
    async with pool.session(registry.sharing), fetcher.session(), anyio.create_task_group() as group:
        for _ in range(job["concurrency"]):
            group.start_soon(work, until)
    print(served, flush=True)

anyio.run(main)
"""


class Worker:
    """A process that begins when `begin` is called."""

    def __init__(self, job: dict[str, object]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )

    def ready(self) -> None:
        """Wait until everything is imported."""
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def begin(self) -> None:
        """Start the requests."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def served(self) -> int:
        """Wait until the process has ended; return the number of its requests."""
        assert self.process.stdout
        said = self.process.stdout.read()
        assert self.process.wait(timeout=30) == 0
        return int(said)


@contextmanager
def workers(jobs: Sequence[dict[str, object]]) -> Iterator[list[Worker]]:
    """Start processes that wait for `begin`; kill those that still run when the block is left."""
    started = [Worker(job) for job in jobs]
    try:
        for worker in started:
            worker.ready()
        yield started
    finally:
        for worker in started:
            worker.process.kill()
            worker.process.communicate()
