"""Cancel runs inside a service's event loop, at any moment and in every way, and look for leaks."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any

import anyio
import attrs

import marketfetch
from chaos.faults.lock_holders import writing_blocked
from chaos.harness.store_contents import Oracle, check_contents
from chaos.harness.store_fixtures import KINDS, StoreFixture, store_fixture
from chaos.harness.trials import Effort, Result, Trial
from chaos.harness.watch import Watch
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.proxies.registry import Registry
from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.values.instruments import Composite
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings
from tests.support import postgres
from tests.support.worlds import span_of

__all__ = ["cancelled_in_a_host"]

_SYMBOLS = ("BTCUSDT", "ETHUSDT")
_MT = Composite("MT", _SYMBOLS)
_START, _END = "2026-06-01", "2026-06-05"
_BAR = 5.0
_TIMEOUT = 20.0
"""Seconds after which a cancelled run counts as hanging."""
_LIBRARY = str(Path(marketfetch.__file__).parent)
_ANYIO = "AnyIO worker thread"
_WORKERS = 12
"""The most idle worker threads that anyio may keep for later calls; it ends them with the loop.

Four stores are used at once: for each, at most two writers, and one thread that reads.
"""


def cancelled_in_a_host(effort: Effort, server: postgres.Server | None = None) -> Result:
    """Cancel runs on one event loop again and again, and look for leaks after each."""
    trial = Trial("cancelled inside a service's loop: no leaks", "cancellations", "all, 5 s")
    market = GeneratedMarket(_SYMBOLS)
    with (
        SimulatedExchange(market, SimulatorOptions(limits=None, latency=0.005)) as exchange,
        ExitStack() as stack,
    ):
        fixtures = [stack.enter_context(store_fixture(kind, server)) for kind in KINDS]
        oracle = Oracle(market, span_of(_START, _END), [_MT])
        host = _Host(exchange, fixtures, oracle, effort.rng("host"))
        asyncio.run(host.serve(trial, effort))
    return trial.result()


@attrs.define
class _Host:
    """The service: an event loop with a ticking task beside the runs."""

    exchange: SimulatedExchange
    fixtures: list[StoreFixture]
    oracle: Oracle
    rng: random.Random
    ticks: int = 0
    complaints: list[dict[str, Any]] = attrs.field(factory=list)

    async def serve(self, trial: Trial, effort: Effort) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.complaints.append(context))
        ticker = asyncio.create_task(self._tick())
        urls = [fixture.fresh() for fixture in self.fixtures]
        for url in urls:  # load modules and open caches before the first snapshot
            await self._pipeline(url, "2026-06-01T01:00Z").run()
        clean = _LeakSnapshot.now()
        for number in range(effort.choose(8, 100, 3000)):
            at = number % len(urls)
            if self.rng.random() < 0.2:
                urls[at] = self.fixtures[at].fresh()
            way = self.rng.choice(_WAYS)
            name = f"{self.fixtures[at].kind}, {way.__name__}, number {number}, seed {effort.seed}"
            with trial.attempt(name):
                await self._cancel(urls[at], way, clean)
            if asyncio.all_tasks() != clean.tasks:
                return  # a leaked task would fail every later attempt as well
        for number in range(effort.choose(1, 5, 100)):
            with trial.attempt(f"every store is locked, number {number}, seed {effort.seed}"):
                await self._cancel_while_locked(urls, clean)
        for url in urls:
            with trial.attempt(f"{url.partition(':')[0]}, the run after all of them, seed {effort.seed}"):
                assert (await self._pipeline(url).run()).complete
                held = await asyncio.to_thread(check_contents, url, self.oracle)
                assert {series.symbol for series in held} == {*_SYMBOLS, "MT"}
                assert not any(each.coverage.missing(self.oracle.span) for each in held.values())
        ticker.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            self.ticks += 1

    def _pipeline(self, url: str, end: str = _END) -> Pipeline:
        query = Query(symbols=_SYMBOLS, interval="1m", start=_START, end=end, composites=[_MT])
        return Pipeline(
            BinanceUsdm(self.exchange.base_url),
            query,
            url,
            # Budgets of its own: a hundred runs of one process would wait for the next minute of the limits.
            proxies=RotatingProxies((), registry=Registry()),
            fetcher=CurlFetcher(certificate=self.exchange.certificate),
            settings=Settings(concurrency=6, batch_rows=500),
        )

    async def _cancel(self, url: str, way: Way, clean: _LeakSnapshot) -> None:
        ticks, watch = self.ticks, Watch()
        cancelled = asyncio.create_task(way(self._pipeline(url), self.rng.uniform(0.0, 0.25)))
        await asyncio.wait([cancelled], timeout=_TIMEOUT)
        assert cancelled.done(), f"not at its end after {_TIMEOUT:.0f} s"
        cancelled.result()
        seconds = watch.seconds()
        assert seconds < _BAR, f"it took {seconds:.1f} s to end"
        assert self.ticks > ticks, "the loop stood still"
        left = _LeakSnapshot.now()
        assert left.tasks == clean.tasks, f"tasks left: {left.tasks - clean.tasks}"
        await self._settle(clean)
        assert not self.complaints, self.complaints
        if self.rng.random() < 0.25:
            await asyncio.to_thread(check_contents, url, self.oracle)

    async def _cancel_while_locked(self, urls: list[str], clean: _LeakSnapshot) -> None:
        """Cancel a run for each store while another connection holds the lock that its writes need."""
        fresh = [fixture.fresh() for fixture in self.fixtures]
        for url in fresh:
            await self._pipeline(url, "2026-06-01T01:00Z").run()
        with ExitStack() as stack:
            holds = [stack.enter_context(writing_blocked(url, [*_SYMBOLS, "MT"])) for url in fresh]
            tasks = [asyncio.create_task(self._pipeline(url).run()) for url in fresh]
            give_up = time.monotonic() + 30
            while not all(waiting() for waiting in holds if waiting is not None):
                assert time.monotonic() < give_up, "no write waits for the lock"
                await asyncio.sleep(0.01)
            await asyncio.sleep(self.rng.uniform(0.0, 0.5))
            watch = Watch()
            for task in tasks:
                assert not task.done(), "the lock blocked nothing"
                task.cancel()
            await asyncio.wait(tasks, timeout=_TIMEOUT)
            seconds = watch.seconds()
            assert all(task.cancelled() for task in tasks), f"not cancelled after {seconds:.1f} s: {tasks}"
            assert seconds < _BAR, f"it took {seconds:.1f} s to end"
            # The locks are still held: also a thread that waits for one ends soon after its run.
            give_up = time.monotonic() + 5
            while working := _LeakSnapshot.now().working:
                assert time.monotonic() < give_up, f"still at work while the stores are locked: {working}"
                await asyncio.sleep(0.01)
        await self._settle(clean)
        for at, url in enumerate(fresh):
            await asyncio.to_thread(check_contents, url, self.oracle)
            urls[at] = url

    async def _settle(self, clean: _LeakSnapshot) -> None:
        """Wait until the exchange, which is in this process too, has closed its side of the connections."""
        give_up = time.monotonic() + 5
        while True:
            left = _LeakSnapshot.now()
            open_connections = len(self.exchange._server._connections)
            if (
                left.threads <= clean.threads
                and left.descriptors <= clean.descriptors
                and not left.working
                and not open_connections
            ):
                break
            assert time.monotonic() < give_up, (
                f"{open_connections} connections, {left.shown()} instead of {clean.shown()}"
            )
            await asyncio.sleep(0.01)
        assert left.workers <= _WORKERS, f"{left.workers} idle threads of anyio"


@attrs.frozen
class _LeakSnapshot:
    """What a run could leave in the process it ran in; the threads of `to_thread` are the host's own."""

    tasks: frozenset[asyncio.Task[Any]]
    threads: frozenset[str]
    workers: int
    working: frozenset[str]
    """The stacks of other threads that run library code."""
    descriptors: int

    def shown(self) -> str:
        working = f", at work {sorted(self.working)}" if self.working else ""
        return f"{sorted(self.threads)}{working} and {self.descriptors} descriptors"

    @classmethod
    def now(cls) -> _LeakSnapshot:
        names = [thread.name for thread in threading.enumerate()]
        return cls(
            tasks=frozenset(asyncio.all_tasks()),
            threads=frozenset(name for name in names if name != _ANYIO and not name.startswith("asyncio_")),
            workers=names.count(_ANYIO),
            working=frozenset(_working()),
            descriptors=sum(1 for _ in Path("/proc/self/fd").iterdir()),
        )


def _working() -> Iterator[str]:
    """Yield the stack of each other thread that runs library code; the simulated exchange is left out."""
    for number, frame in sys._current_frames().items():
        files = [each.f_code.co_filename for each, _ in traceback.walk_stack(frame)]
        ours = [file.removeprefix(_LIBRARY) for file in files if file.startswith(_LIBRARY)]
        if ours and number != threading.get_ident() and not any(map(_of_the_exchange, ours)):
            yield " < ".join(ours)


def _of_the_exchange(file: str) -> bool:
    return file.startswith("/testing/")


Way = Callable[[Pipeline, float], Any]


async def a_task(pipeline: Pipeline, seconds: float) -> None:
    """`task.cancel()`."""
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or task.result().complete


async def a_task_twice(pipeline: Pipeline, seconds: float) -> None:
    """`task.cancel()` repeated every 2 ms until the task is done."""
    task = asyncio.create_task(pipeline.run())
    await asyncio.sleep(seconds)
    while not task.done():
        task.cancel()
        await asyncio.sleep(0.002)
    assert task.cancelled() or task.result().complete


async def a_scope(pipeline: Pipeline, seconds: float) -> None:
    """`anyio.move_on_after`."""
    with anyio.move_on_after(seconds):
        await pipeline


async def a_timeout(pipeline: Pipeline, seconds: float) -> None:
    """`asyncio.timeout`."""
    try:
        async with asyncio.timeout(seconds):
            await pipeline
    except TimeoutError:
        pass


async def a_reader(pipeline: Pipeline, seconds: float) -> None:
    """`task.cancel()` of a task that iterates over batches."""

    async def read() -> None:
        async with aclosing(aiter(pipeline)) as batches:
            async for _ in batches:
                await asyncio.sleep(0)

    task = asyncio.create_task(read())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or task.exception() is None


async def a_break(pipeline: Pipeline, seconds: float) -> None:
    """`break` out of the iteration over batches."""
    async with aclosing(aiter(pipeline)) as batches:
        async for _ in batches:
            break


_WAYS: tuple[Way, ...] = (a_task, a_task_twice, a_scope, a_timeout, a_reader, a_break)
