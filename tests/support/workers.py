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
import asyncio, json, os, sys, threading
import anyio
import marketfetch as mf
from marketfetch.proxies.board_urls import board_from
from marketfetch.proxies.registry import Registry
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Sharing

job = json.loads(sys.argv[1])
limit = mf.adapter.LimitPool(**{**job["limit"], "hosts": tuple(job["limit"]["hosts"])})
registry = Registry(sharing=Sharing((board_from(job["board"]),), required=True), term=job["term"])
pool = mf.RotatingProxies(job["proxies"], direct=not job["proxies"], registry=registry)
fetcher = CurlFetcher()
served = 0

async def work():
    global served
    while True:
        cost = mf.adapter.Cost(limit, job["weight"])
        request = mf.protocols.Request(job["path"], job["params"], cost=cost, base_url=job["url"])
        async with pool.lease(request) as lease:
            response = await fetcher.fetch(request, lease.egress)
            lease.answered(response)
            if response.status != 200:
                lease.failed(mf.errors.RateLimitExceeded("refused", retry_after=1))
            served += 1
            if served == job["goal"]:
                print("goal", flush=True)

def call_when_told(loop, stop):
    os.read(0, 1)
    loop.call_soon_threadsafe(stop)

async def main():
    print("ready", flush=True)
    os.read(0, 1)
    async with pool.session(registry.sharing), fetcher.session(), anyio.create_task_group() as group:
        stop = [asyncio.get_running_loop(), group.cancel_scope.cancel]
        threading.Thread(target=call_when_told, args=stop, daemon=True).start()
        for _ in range(job["concurrency"]):
            group.start_soon(work)
    print(served, flush=True)

anyio.run(main)
"""


class Worker:
    """A process that sends requests from the call of `begin` to that of `served`."""

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

    def reach_goal(self) -> None:
        """Wait until the number of its requests is the goal of its job, however long it takes."""
        assert self.process.stdout
        assert self.process.stdout.readline() == "goal\n"

    def served(self) -> int:
        """Tell the process to end; return the number of its requests."""
        assert self.process.stdout
        self.begin()
        output = self.process.stdout.read()
        assert self.process.wait() == 0
        return int(output.split()[-1])


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
