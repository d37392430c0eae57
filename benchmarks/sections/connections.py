"""Many proxies: connections are reused, and idle ones cost almost no processor time."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import anyio
import attrs
from curl_cffi import CurlInfo

from benchmarks.harness.comparison import child
from benchmarks.harness.exchange import Options, exchange, symbols
from benchmarks.harness.results import Result, at_most, without_bar
from benchmarks.harness.venue import scaled, unlimited
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline
from marketfetch.errors import FetchError
from marketfetch.fetchers.curl import CurlFetcher, _Session
from marketfetch.fetchers.easy_handle import EasyHandle
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.values.http import Egress
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings

__all__ = ["connections"]

_PROXIES, _IDLE_PROXIES = 200, 2000
_SYMBOLS, _PAGES, _PAGE = 20, 5000, 1500
_START, _MINUTE = 1_735_689_600_000, 60_000  # 2025-01-01


@attrs.define(kw_only=True, eq=False)
class _Counting(CurlFetcher):
    """Counts the connections that libcurl opens to proxies."""

    connections: int = attrs.field(default=0, init=False)

    async def _perform(self, session: _Session, handle: EasyHandle, egress: Egress) -> FetchError | None:
        error = await super()._perform(session, handle, egress)
        if error is None:
            opened = handle.curl.getinfo(CurlInfo.NUM_CONNECTS)
            assert isinstance(opened, int)
            self.connections += opened
        return error


def connections() -> Iterator[Result]:
    """Count the connections opened through 200 proxies, and measure an idle session with 2,000 proxies."""
    yield from _sticky_proxies()
    yield from _idle_proxies()


def _sticky_proxies() -> Iterator[Result]:
    """Fetch thousands of pages through proxies with fixed addresses, without rate limits and with them."""
    # Rate limits force a run to leave a proxy whose connection is open; without limits it never must.
    for name, venue in {"no limits": unlimited(), "published limits": scaled(60)}.items():
        requests, used, opened, accepted = _fetch(venue)
        what = f"{_PROXIES} proxies, {name}: new connections for each request"
        yield at_most(f"{what}, at the exchange", accepted / requests, 0.1)
        yield at_most("… at the proxies", opened / requests, 0.1)
        yield without_bar("… of requests", requests)
        yield without_bar("… through proxies", used)


def _fetch(venue: type[BinanceUsdm]) -> tuple[int, int, int, int]:
    """Return the requests made, proxies used, connections to proxies, and connections to the exchange."""
    options = Options(symbols=symbols(_SYMBOLS), proxies=_PROXIES, cache_bytes=2**31)
    query = Query(symbols=options.symbols, start=_START, end=_START + _PAGES * _PAGE // _SYMBOLS * _MINUTE)
    fetcher = _Counting()
    with exchange(options) as running:
        pool = RotatingProxies(running.proxies, direct=False)
        pipeline = Pipeline(
            venue(running.base_url), query, proxies=pool, fetcher=fetcher, settings=Settings(heartbeat=60)
        )
        report = anyio.run(pipeline.run)
    if not report.complete or fetcher.connections == 0:
        raise AssertionError(f"the run is not complete, or its connections were not counted: {report}")
    used = [line.requests for line in pool.statistics() if line.requests]
    return sum(used), len(used), fetcher.connections, running.counted["connections"]


def _idle_proxies() -> Iterator[Result]:
    """Use each of 2,000 proxies once, then leave the session open without requests."""
    with exchange(Options(symbols=symbols(1), proxies=1)) as running:
        module = "benchmarks.competitors.idle_session"
        command = [sys.executable, "-m", module, running.base_url, running.proxies[0], str(_IDLE_PROXIES)]
        found = child(command, core=None)
    if found["proxies"] != _IDLE_PROXIES or not found["pollers"]:
        raise AssertionError(f"not all proxies were used, or a poller is not known for one: {found}")
    yield at_most(f"pollers of a session with {_IDLE_PROXIES:,} proxies", found["pollers"], 1)
    yield at_most(f"{_IDLE_PROXIES:,} idle proxies: share of a processor", found["idle"] * 100, 2, " %")
