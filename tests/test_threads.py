"""Threads that share what belongs to the process count exactly, whoever holds the interpreter, or nobody.

The interpreter switches threads at almost every step here, which finds what relies on its lock. On a
free-threaded build, which has none, the same tests run in parallel.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import anyio
import numpy as np
import pytest

import marketfetch as mf
from marketfetch.decoding.native import read_rows
from marketfetch.listeners.background import BackgroundQueue
from marketfetch.proxies.registry import Registry, process_registry
from marketfetch.sinks.urls import sink_from
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.http import Cost, LimitPool, Request, Response
from tests.support.batches import EVER, batch, candles

THREADS = 6
HOST = "https://exchange.example"
CALLS = LimitPool("calls", 1_000_000, 60_000)


@pytest.fixture(autouse=True)
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def on_threads(work: Callable[[int], object]) -> None:
    """Call `work` with each number on a thread of its own; all of them begin at the same moment."""
    start = Barrier(THREADS)

    def begin(number: int) -> None:
        start.wait()
        work(number)

    with ThreadPoolExecutor(THREADS) as threads:
        for future in [threads.submit(begin, number) for number in range(THREADS)]:
            future.result()


def spend(pool: mf.RotatingProxies, requests: int) -> None:
    """Send requests of weight 2 through a pool, on an event loop of this thread."""

    async def run() -> None:
        for _ in range(requests):
            async with pool.lease(Request("/x", cost=Cost(CALLS, 2), base_url=HOST)) as lease:
                lease.answered(Response(200, {}, b"", 0, 0))

    anyio.run(run)


def test_pools_on_many_threads_count_every_request() -> None:
    registry = Registry(lambda: 1_780_272_000_000)
    pools = [mf.RotatingProxies(["10.0.0.1:3128"], registry=registry) for _ in range(2)]
    on_threads(lambda number: spend(pools[number % 2], 150))
    counted = Counter[str]()
    for pool in pools:
        for egress in pool.statistics():
            counted.update({"requests": egress.requests, "weight": egress.weight})
        budgets = pool.budgets(CALLS, HOST).values()
        assert sum(budget.counted for budget in budgets) == 2 * 150 * THREADS
        assert not any(budget.weight_in_flight for budget in budgets)
    assert counted == {"requests": 150 * THREADS, "weight": 2 * 150 * THREADS}


def test_threads_that_meet_a_new_registry_at_once_share_it(unspent_budgets: None) -> None:
    pool = mf.RotatingProxies([])
    with mf.testing.separate_registry() as registry:  # as in a forked child
        registry.sharing = mf.protocols.Sharing()
        on_threads(lambda _: spend(pool, 50))
        (budget,) = pool.budgets(CALLS, HOST).values()
        assert budget.counted == 2 * 50 * THREADS
        assert process_registry() is registry


@pytest.mark.parametrize("store", ["memory:", "sqlite:{}/market.db", "parquet:{}"])
def test_fetches_on_many_threads_share_a_budget_and_a_store(
    store: str, unspent_budgets: None, tmp_path: Path
) -> None:
    symbols = [f"C{number}USDT" for number in range(THREADS)]
    sink = mf.MemorySink() if store == "memory:" else sink_from(store.format(tmp_path))
    reports: list[mf.Report] = []
    with SimulatedExchange(GeneratedMarket(symbols, seed=3)) as exchange:

        def fetch(number: int) -> None:
            table = mf.fetch(
                "binance-usdm",
                "ohlcv",
                symbols[number],
                interval="1m",
                start="2026-06-01",
                end="2026-06-03",
                to=sink,
                base_url=exchange.base_url,
            )
            reports.append(table.report)

        on_threads(fetch)
        assert set(exchange.request_log.statuses) == {200}
        assert sum(report.requests for report in reports) == exchange.request_log.total
    assert sum(report.rows_written for report in reports) == THREADS * 2 * 1440
    with mf.open(sink) as reader:
        assert {len(reader.table("ohlcv", symbol)) for symbol in symbols} == {2 * 1440}


def test_a_queue_hands_over_or_counts_every_item() -> None:
    free, seen = Event(), Counter[int]()

    def handle(number: int) -> None:
        free.wait()
        seen[number] += 1

    def submit(number: int) -> None:
        for _ in range(1_000):
            queue.submit(number)

    with BackgroundQueue(handle, limit=500, flush_timeout=30) as queue:
        on_threads(submit)
        free.set()
    assert queue.dropped
    assert seen.total() + queue.dropped == 1_000 * THREADS


def test_decoding_in_parallel_gives_the_same_numbers() -> None:
    page = b"[" + b",".join(b'[%d,"%d.5",7]' % (60_000 * n, n) for n in range(1_000)) + b"]"

    def decode(_: int) -> None:
        for _ in range(20):
            rows = read_rows(page, width=3, time=0, fields=[1, 2])
            if rows is not None:  # nothing is compiled here
                np.testing.assert_array_equal(rows.times, np.arange(1_000) * 60_000)
                np.testing.assert_array_equal(rows.values, [np.arange(1_000) + 0.5, np.full(1_000, 7)])

    on_threads(decode)


def test_a_memory_store_keeps_the_rows_of_all_threads() -> None:
    store = mf.MemorySink()

    def write(number: int) -> None:
        with store.writer() as put:
            for minute in range(60):
                put(batch(candles(f"C{number}"), [minute]))

    on_threads(write)
    for number in range(THREADS):
        assert len(store.read(candles(f"C{number}"), EVER)) == 60
