"""Pools, pipelines, `fetch` calls, threads and loops of a process share the budget of an address."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import anyio
import attrs
import pytest
from anyio import to_thread

import marketfetch as mf
from marketfetch.adapters import okx
from marketfetch.adapters.binance_spot import BinanceSpot
from marketfetch.adapters.binance_usdm import BinanceUsdm, Ohlcv
from marketfetch.exchange import Exchange
from marketfetch.protocols import Sharing
from marketfetch.proxies.address_limits import address_of
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.proxies.registry import Registry, process_registry
from marketfetch.redaction import Secret
from marketfetch.testing import GeneratedMarket, LimitRules, LocalProxies, SimulatedExchange, SimulatorOptions

START = "2026-05-01"
HOST = "https://exchange.example"
SMALL = mf.adapter.LimitPool("binance-futures weight", 80, 1000, "clock", used_header="x-mbx-used-weight-1m")


class SmallOhlcv(Ohlcv):
    page_sizes = (496, 497, 498, 499)

    def cost(self, rows: int) -> mf.adapter.Cost:
        return mf.adapter.Cost(SMALL, super().cost(rows).weight)


class SmallUsdm(BinanceUsdm):
    """The shipped adapter, on an exchange whose minute lasts a second and whose budget is small."""

    name = "binance-usdm"
    weight = SMALL
    sources = (SmallOhlcv,)


@attrs.frozen
class Venue:
    """An exchange that enforces its limits, and a job of about so many requests."""

    exchange: Exchange
    symbol: str
    page: int
    simulated: SimulatedExchange

    def query(self, pages: int) -> mf.Query:
        return mf.Query(symbols=self.symbol, start=START, end=self._end(pages))

    def fetch(self, pages: int, proxies: mf.ProxyPool | None = None) -> mf.Table:
        return mf.fetch(
            self.exchange, "ohlcv", self.symbol, start=START, end=self._end(pages), proxies=proxies
        )

    def _end(self, pages: int) -> int:
        return 1_777_593_600_000 + pages * self.page * 60_000

    def assert_nobody_was_refused(self, at_least: int) -> None:
        assert set(self.simulated.request_log.statuses) == {200}
        assert self.simulated.request_log.total > at_least


@contextmanager
def _venue(name: str, patch: pytest.MonkeyPatch) -> Iterator[Venue]:
    """OKX with calls in half a second instead of two, or Binance with a minute of one second."""
    scale = 1 / 4 if name == "okx" else 1 / 60
    rules = LimitRules(futures_weight=SMALL.capacity, period_scale=scale)
    patch.setattr(okx, "_pool", lambda route, calls: mf.adapter.LimitPool(f"okx {route}", calls, 500))
    with SimulatedExchange(
        GeneratedMarket(["BTCUSDT"], seed=3), SimulatorOptions(limits=rules, latency=0.02)
    ) as simulated:
        if name == "okx":
            venue = Venue(okx.Okx(simulated.base_url), "BTC-USDT-SWAP", 100, simulated)
        else:
            venue = Venue(SmallUsdm(simulated.base_url), "BTCUSDT", 499, simulated)
        venue.fetch(pages=1)  # imports what is imported late: two loops would wait for each other's imports
        yield venue


@pytest.fixture(params=["okx", "binance"])
def venue(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Venue]:
    with _venue(request.param, monkeypatch) as venue:
        yield venue


def test_twenty_fetch_calls_one_after_another(venue: Venue) -> None:
    for _ in range(20):
        assert venue.fetch(pages=5).report.complete
    venue.assert_nobody_was_refused(at_least=100)


def test_three_pipelines_at_once_on_one_loop(venue: Venue) -> None:
    async def work() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                pipeline = mf.Pipeline(venue.exchange, venue.query(pages=30), mf.MemorySink())
                group.start_soon(pipeline.run)

    anyio.run(work)
    venue.assert_nobody_was_refused(at_least=90)


def test_two_threads_with_a_loop_each(venue: Venue) -> None:
    with ThreadPoolExecutor(2) as threads:
        tables = list(threads.map(venue.fetch, [40, 40]))
    assert all(table.report.complete for table in tables)
    venue.assert_nobody_was_refused(at_least=80)


def test_one_pool_on_two_loops_at_once(venue: Venue) -> None:
    pool = mf.RotatingProxies([])
    with ThreadPoolExecutor(2) as threads:
        tables = list(threads.map(partial(venue.fetch, proxies=pool), [40, 40]))
    assert all(table.report.complete for table in tables)
    venue.assert_nobody_was_refused(at_least=80)


def test_the_same_proxy_in_different_pools(venue: Venue) -> None:
    with LocalProxies(2) as proxies:
        one, two = proxies.urls
        pools = [
            mf.RotatingProxies([one], direct=False),
            mf.RotatingProxies([two, one], direct=False),
            mf.RotatingProxies([one.replace("http://", "")], direct=False),
        ]
        with ThreadPoolExecutor(3) as threads:
            tables = list(threads.map(lambda pool: venue.fetch(30, pool), pools))
        clients = {seen.client for seen in venue.simulated.request_log.latest}
        assert "127.0.0.2" in clients  # the other proxy is used where this one has no room left
        assert clients <= {"127.0.0.1", "127.0.0.2", "127.0.0.3"}
    assert all(table.report.complete for table in tables)
    venue.assert_nobody_was_refused(at_least=90)


CALLS = mf.adapter.LimitPool("calls", 3, 60_000)


def _request(weight: int = 1) -> mf.protocols.Request:
    return mf.protocols.Request("/x", cost=mf.adapter.Cost(CALLS, weight), base_url=HOST)


async def _spend(pool: mf.ProxyPool, weight: int = 1, *, seconds: float = 20.0) -> bool:
    """Whether a request is leased soon; a machine that is busy takes a while, and a window is a minute."""
    with anyio.move_on_after(seconds):
        async with pool.lease(_request(weight)) as lease:
            lease.answered(mf.protocols.Response(200, {}, b"", 0, 0))
            return True
    return False


async def _nothing_is_left(pool: mf.ProxyPool) -> bool:
    """Whether a request has to wait; one that need not would be leased at once."""
    return not await _spend(pool, seconds=0.5)


async def test_what_a_pool_spent_is_remembered_after_it_is_gone() -> None:
    assert await _spend(mf.RotatingProxies([]), 3)
    gc.collect()
    assert await _nothing_is_left(mf.RotatingProxies([]))


async def test_a_ban_is_known_to_every_pool() -> None:
    async with RotatingProxies([]).lease(_request()) as lease:
        lease.failed(mf.errors.Banned("418: banned", until=2_000_000_000_000))
    with pytest.raises(mf.errors.ProxyError, match="418: banned"):
        await _spend(mf.RotatingProxies([]))


async def test_failures_are_each_pool_s_own() -> None:
    process_registry().sharing = Sharing()  # a board on a slow disk would be waited for
    first = RotatingProxies([])
    async with first.lease(_request()) as lease:
        lease.failed(mf.errors.ProxyError("the network is down"))
    assert first.statistics()[0].state != "ready"
    assert RotatingProxies([]).statistics()[0].state == "ready"


async def test_an_answer_wakes_who_waits_on_another_loop() -> None:
    """With a header that tells what is used, the first question is asked alone: all others wait for it."""
    counted_pool = mf.adapter.LimitPool("told", 100, 60_000, used_header="x-used")
    question = mf.protocols.Request("/x", cost=mf.adapter.Cost(counted_pool), base_url=HOST)

    async def other_loop() -> None:
        async with RotatingProxies([]).lease(question) as lease:
            lease.answered(mf.protocols.Response(200, {"x-used": "2"}, b"", 0, 0))

    async with anyio.create_task_group() as group, RotatingProxies([]).lease(question) as lease:
        group.start_soon(to_thread.run_sync, partial(anyio.run, other_loop))
        while not process_registry().waiters:  # noqa: ASYNC110  # it waits on another loop
            await anyio.sleep(0.01)
        lease.answered(mf.protocols.Response(200, {"x-used": "1"}, b"", 0, 0))


async def test_a_registry_of_its_own_keeps_a_pool_apart() -> None:
    assert await _spend(mf.RotatingProxies([]), 3)
    assert await _spend(mf.RotatingProxies([], registry=Registry()), 3)


def _in_child(work: Callable[[], bool]) -> bool:
    """Fork while another thread might hold the lock, and return what the child finds."""
    with process_registry().lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if work() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_has_budgets_of_its_own() -> None:
    """It is not held up by what its parent holds: neither a lock nor a request in flight."""
    pool = mf.RotatingProxies([], registry=Registry())
    assert anyio.run(_spend, pool, 3)
    with pool._registry.lock:
        assert _in_child(lambda: anyio.run(_spend, pool, 3) and anyio.run(_nothing_is_left, pool))
    assert anyio.run(_nothing_is_left, pool)


def test_a_forked_child_neither_uses_nor_gives_back_what_its_parent_has_claimed() -> None:
    pool = RotatingProxies([])
    assert anyio.run(_spend, pool, 1)

    async def ended_session() -> bool:
        async with pool.session(pool._registry.sharing):
            return await _nothing_is_left(pool)

    assert _in_child(lambda: anyio.run(ended_session) and anyio.run(_nothing_is_left, RotatingProxies([])))
    assert anyio.run(_spend, pool, 2)


def test_what_is_over_is_forgotten() -> None:
    """A service that asks a thousand hosts, or uses a thousand proxies, does not remember them all."""
    clock = [0]
    registry = Registry(lambda: clock[0])
    for number in range(1000):
        with registry.lock:
            limits = registry.limits(CALLS, f"https://{number}.example")
            limits.budget("direct").charge(1, clock[0])
        clock[0] += 1_000
    assert len(registry._limits) <= 62


def test_an_address_is_the_same_however_it_is_written_and_shows_nothing() -> None:
    texts = ["http://ann:hunter2@10.0.0.1:1080", "socks5h://ann:other@10.0.0.1:1080"]
    one, two = (address_of(mf.protocols.Egress("", Secret(text))) for text in texts)
    assert one == two
    assert "ann" not in one
    assert address_of(mf.protocols.Egress("", Secret("http://bert@10.0.0.1:1080"))) != one


PROCESS = """
import sys
import marketfetch as mf
from benchmarks.harness.venue import scaled
exchange = scaled(minute=1, weight=80)(sys.argv[1])
table = mf.fetch(exchange, "ohlcv", "BTCUSDT", start="2026-05-01", end="2026-06-16")
assert table.report.complete, table.report
"""


def test_two_processes_that_know_nothing_of_each_other(request: pytest.FixtureRequest) -> None:
    """Whatever nobody says about boards: the default keeps them from being refused."""
    rules = LimitRules(futures_weight=80, period_scale=1 / 60)
    options = SimulatorOptions(limits=rules, latency=0.02)
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=3), options) as exchange:
        command = [sys.executable, "-c", PROCESS, exchange.base_url]
        running = [subprocess.Popen(command, cwd=request.config.rootpath) for _ in range(2)]
        try:
            assert [process.wait(timeout=250) for process in running] == [0, 0]
        finally:
            for process in running:
                process.kill()
                process.wait()
        assert set(exchange.request_log.statuses) == {200}
        assert exchange.request_log.weights.total() > 3 * 80


@pytest.mark.parametrize(
    "spellings",
    [
        ["[2001:db8::1]:1080", "socks5h://[2001:DB8:0:0::1]:01080", "[2001:0db8::0001]:1080"],
        ["ann:hunter2@proxy.example:3128", "http://Proxy.Example.:3128:ann:hunter2"],
    ],
)
def test_one_proxy_in_several_spellings_has_one_budget(spellings: list[str]) -> None:
    pools = [mf.RotatingProxies([text], direct=False) for text in spellings]
    assert len({pool._egresses[0].address for pool in pools}) == 1


def test_one_exchange_in_several_spellings_has_one_budget() -> None:
    urls = ["https://api.binance.com", " https://API.Binance.com:443/ ", "HTTPS://api.binance.com."]
    assert {BinanceSpot(url).base_url for url in urls} == {"https://api.binance.com"}
    assert BinanceSpot("http://[0:0::1]:8080/api/").base_url == "http://[::1]:8080/api"


@pytest.mark.parametrize(
    "url", ["https://ann:hunter2@e.org", "ftp://ann:hunter2@e.org", "https://ann:hunter2@[::", "https://e:x"]
)
def test_what_is_no_base_url_is_refused_without_a_credential(url: str) -> None:
    with pytest.raises(mf.errors.ConfigurationError, match="base_url: ") as caught:
        BinanceSpot(url)
    assert "hunter2" not in str(caught.value)
