"""Network faults: proxies that fail in every way, recover or are banned; refusals for the location."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import attrs

from chaos.harness.trials import Effort, Result, Trial
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline
from marketfetch.errors import MarketfetchError, ProxyError, RestrictedLocation
from marketfetch.events import BatchWritten, Event, Listener
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.listeners.background import BackgroundQueue
from marketfetch.protocols import Fetcher
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.reports import Report
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import (
    FaultKind,
    Faults,
    GeneratedMarket,
    LocalProxies,
    ProxyMode,
    SimulatedExchange,
    SimulatorOptions,
)
from marketfetch.values.http import Egress, Request, Response
from marketfetch.values.query import Query
from marketfetch.values.settings import RetryPolicy, Settings
from tests.support.worlds import assert_holds, run

__all__ = [
    "bans",
    "dead_network",
    "flapping_proxies",
    "hostile_network",
    "legal_refusals",
    "one_proxy_fails",
    "run_while_flapping",
]

_SYMBOLS = ["BTCUSDT", "ETHUSDT"]
_KLINES = "/fapi/v1/klines"
_FAULTY = [mode for mode in ProxyMode if mode is not ProxyMode.FORWARD]
_DEAD = [mode for mode in _FAULTY if mode is not ProxyMode.SLOW]  # a slow proxy is only slow
_SETTINGS = Settings(
    concurrency=8, batch_rows=2000, deadline=1.0, retries=RetryPolicy(attempts=20, initial=0.02, cap=0.2)
)
_BOUND = 120.0
"""Seconds after which a run without a working proxy counts as hanging; its request deadline is one second."""


def hostile_network(effort: Effort) -> Iterator[Result]:
    """Try every network fault."""
    yield one_proxy_fails(effort)
    yield flapping_proxies(effort)
    yield dead_network(effort)
    yield bans(effort)
    yield legal_refusals(effort)


@attrs.define(kw_only=True)
class _Job:
    """A run for some months of two symbols, through proxies, into memory."""

    exchange: SimulatedExchange
    market: GeneratedMarket
    proxies: Sequence[str]
    store: MemorySink = attrs.field(factory=MemorySink)
    start: str = "2026-03-01"
    end: str = "2026-06-01"

    def run(self, *listeners: Listener, fetcher: Fetcher | None = None) -> Report:
        """Run with these listeners."""
        pipeline = Pipeline(
            BinanceUsdm(self.exchange.base_url),
            Query(symbols=_SYMBOLS, interval="1m", start=self.start, end=self.end),
            self.store,
            proxies=RotatingProxies(self.proxies, direct=False),
            fetcher=fetcher or CurlFetcher(),
            settings=_SETTINGS,
            listeners=listeners,
        )
        return run(pipeline)

    def check_complete(self, report: Report) -> None:
        """Fail unless the run is complete and the store has the true rows."""
        assert report.complete, report.as_dict()
        for line in report.series:
            assert_holds(self.store, self.market, line.series, line.wanted)

    def check_partial(self, report: Report) -> None:
        """Fail unless covered spans have the true rows, and the report names all other spans as missing."""
        assert not report.complete
        for line in report.series:
            covered = self.store.coverage([line.series])[line.series].covered
            for span in covered:
                assert_holds(self.store, self.market, line.series, span)
            missing = self.store.coverage([line.series])[line.series].missing(line.wanted)
            named = sum(span.length for gap in line.missing for span in gap.spans)
            assert named == sum(span.length for span in missing), line


@contextmanager
def _jobs(count: int, **options: Any) -> Iterator[tuple[_Job, LocalProxies]]:
    market = GeneratedMarket(_SYMBOLS, seed=5)
    with (
        SimulatedExchange(market, SimulatorOptions(limits=None, latency=0.02)) as exchange,
        LocalProxies(count, credentials=("anna", "hunter2")) as proxies,
    ):
        yield _Job(exchange=exchange, market=market, proxies=proxies.urls, **options), proxies


def one_proxy_fails(effort: Effort) -> Result:
    """One of three proxies fails throughout the run, in each way."""
    trial = Trial("a proxy that fails in any way: no row is lost", "ways")
    months = ("2026-03-01", "2026-05-25")[effort.name == "quick"]
    for mode in _FAULTY:
        with trial.attempt(mode), _jobs(3, start=months) as (job, proxies):
            proxies[1].mode = mode
            job.check_complete(job.run())
    return trial.result()


def flapping_proxies(effort: Effort) -> Result:
    """All proxies change between working and failing at random; sometimes none works."""
    trial = Trial("proxies that fail and recover at random: no row is lost", "runs")
    attempts, given_up = effort.choose(1, 6, 200), list[str]()
    for number in range(attempts):
        name = f"flapping {number}"
        with trial.attempt(f"seed {effort.seed}, {name}"), _jobs(4) as (job, proxies):
            job.check_complete(run_while_flapping(proxies, effort.rng(name), job.run, given_up))
    with trial.attempt("runs outlast failures"):
        assert len(given_up) <= 1 + attempts // 10, given_up
    return trial.result()


def run_while_flapping(
    proxies: LocalProxies, rng: random.Random, fetch: Callable[[], Report], given_up: list[str]
) -> Report:
    """Run while proxies fail and recover at random, and again if for a second none of them worked.

    The error of a run that was given up for this is added to `given_up`.
    """
    try:
        with _flapping(proxies, rng):
            return fetch()
    except ProxyError as error:
        given_up.append(str(error))
        return fetch()  # now all of them work


@contextmanager
def _flapping(proxies: LocalProxies, rng: random.Random) -> Iterator[None]:
    """Change the mode of a random proxy every 50 ms, 40 times; then let all proxies work."""
    over = threading.Event()

    def change() -> None:
        for _ in range(40):
            if over.wait(0.05):
                break
            rng.choice(proxies).mode = rng.choice([*ProxyMode])
        for proxy in proxies:
            proxy.mode = ProxyMode.FORWARD

    thread = threading.Thread(target=change, name="flapping proxies")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def dead_network(effort: Effort) -> Result:
    """Every proxy fails in mid-run: one clear error, and committed rows stay."""
    trial = Trial("all proxies dead: one clear error in bounded time, nothing lost", "ways")
    modes = _DEAD if effort.name != "quick" else [ProxyMode.REFUSE]
    with ThreadPoolExecutor(len(modes)) as pool:  # they wait for deadlines
        for mode, tried in zip(modes, [pool.submit(_die, mode) for mode in modes], strict=True):
            with trial.attempt(mode):
                tried.result()
    return trial.result()


def _die(mode: ProxyMode) -> None:
    with _jobs(2) as (job, proxies):
        died = threading.Event()

        def kill(_event: object) -> None:
            for proxy in proxies:
                proxy.mode = mode
            died.set()

        with BackgroundQueue[object](kill, limit=1) as killer:

            def listen(event: Event) -> None:
                if isinstance(event, BatchWritten) and not died.is_set():
                    killer.submit(event)

            began = time.monotonic()
            error = _failure(lambda: job.run(listen))
            took = time.monotonic() - began
        assert isinstance(error, ProxyError), repr(error)
        assert "no egress left" in str(error)
        assert "hunter2" not in str(error)
        assert took < _BOUND, f"{took:.1f} s"
        assert isinstance(error.report, Report)
        assert error.report.rows_written
        job.check_partial(error.report)
        asked = job.exchange.request_log.total
        for proxy in proxies:
            proxy.mode = ProxyMode.FORWARD
        job.check_complete(job.run())
        assert job.exchange.request_log.total > asked


def _failure(work: Callable[[], object]) -> MarketfetchError | None:
    try:
        work()
    except MarketfetchError as error:
        return error
    return None


def bans(effort: Effort) -> Result:
    """One egress is banned before the run: it is not used, and all workers use the others."""
    trial = Trial("a ban on one egress: it is not used, the others serve as much", "runs")
    for _ in range(effort.choose(1, 3, 20)):
        with trial.attempt("two egresses and a banned one"):
            in_flight = _one_is_banned()
            assert in_flight == _SETTINGS.concurrency, f"{in_flight} in flight: a worker waits for a ban"
    return trial.result()


@attrs.define
class _CountingFetcher:
    """Counts the requests in flight at the start of each request."""

    inner: CurlFetcher = attrs.field(factory=CurlFetcher)
    in_flight: int = 0
    counts: list[int] = attrs.field(factory=list)

    def session(self) -> AbstractAsyncContextManager[object]:
        return self.inner.session()

    async def fetch(self, request: Request, egress: Egress) -> Response:
        self.in_flight += 1
        self.counts.append(self.in_flight)
        try:
            return await self.inner.fetch(request, egress)
        finally:
            self.in_flight -= 1


def _one_is_banned() -> int:
    """Run through two good proxies and a banned one; return the most requests in flight later on."""
    market = GeneratedMarket(_SYMBOLS, seed=5)
    with SimulatedExchange(market) as exchange, LocalProxies(3) as proxies:
        banned = proxies[2].source
        _get_banned(exchange, banned)
        exchange.latency = 0.02
        before = exchange.request_log.requests
        job, fetcher = _Job(exchange=exchange, market=market, proxies=proxies.urls), _CountingFetcher()
        job.check_complete(job.run(fetcher=fetcher))
        asked = exchange.request_log.requests - before
    # Only requests in flight before the first 418 may leave from a banned address.
    assert asked[banned] <= _SETTINGS.concurrency, asked
    assert all(asked[proxy.source] > 10 for proxy in proxies[:2]), asked
    return max(fetcher.counts[len(fetcher.counts) // 2 :])


def _get_banned(exchange: SimulatedExchange, source: str) -> None:
    """Send requests from an address, ignoring every 429, until it is banned."""
    address = urlsplit(exchange.base_url)
    for _ in range(2000):
        asking = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=10, source_address=(source, 0)
        )
        try:
            asking.request("GET", f"{_KLINES}?symbol=BTCUSDT&interval=1m&limit=1500")
            if asking.getresponse().status == 418:
                return
        finally:
            asking.close()
    raise AssertionError("it was never banned")


def legal_refusals(effort: Effort) -> Result:
    """The exchange refuses the location at a random request."""
    trial = Trial("a refusal for the location ends the run without a retry", "runs")
    for number in range(effort.choose(2, 12, 200)):
        with trial.attempt(f"seed {effort.seed + number}"), _jobs(3) as (job, _):
            job.exchange.faults = Faults(
                rate=0.03, kinds=[FaultKind.STATUS_451], seed=effort.seed + number, paths=[_KLINES], times=9
            )
            error = _failure(job.run)
            assert isinstance(error, RestrictedLocation), repr(error)
            assert isinstance(error.report, Report)
            job.check_partial(error.report)
            refused = [seen.status for seen in job.exchange.request_log.latest].index(451)
            assert job.exchange.request_log.total - refused <= _SETTINGS.concurrency
    return trial.result()
