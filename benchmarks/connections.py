"""Many proxies: connections are kept for the requests that follow, and those that idle cost nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import anyio
import attrs
from curl_cffi import CurlInfo

from benchmarks.contest import child
from benchmarks.exchange import Options, exchange, symbols
from benchmarks.figures import Figure, at_most, known
from benchmarks.venue import scaled, unlimited
from marketfetch.api.pipeline import Pipeline
from marketfetch.errors import FetchError
from marketfetch.exchanges.binance_usdm import BinanceUsdm
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
    """Counts the connections that it opens to proxies, by libcurl's own account."""

    connections: int = attrs.field(default=0, init=False)

    async def _perform(self, session: _Session, handle: EasyHandle, egress: Egress) -> FetchError | None:
        error = await super()._perform(session, handle, egress)
        if error is None:
            opened = handle.curl.getinfo(CurlInfo.NUM_CONNECTS)
            assert isinstance(opened, int)
            self.connections += opened
        return error


def connections() -> Iterator[Figure]:
    """Count what is opened to many proxies, and what it costs to have even more of them and do nothing."""
    yield from _sticky_proxies()
    yield from _idle_proxies()


def _sticky_proxies() -> Iterator[Figure]:
    """Ask for thousands of pages through proxies that keep their address, without limits and within them."""
    # Without limits nothing ever bids to leave a proxy whose connection is open; the published ones do.
    for name, venue in {"no limits": unlimited(), "published limits": scaled(60)}.items():
        requests, used, opened, accepted = _fetch(venue)
        what = f"{_PROXIES} proxies, {name}: new connections for each request"
        yield at_most(f"{what}, at the exchange", accepted / requests, 0.1)
        yield at_most("… at the proxies", opened / requests, 0.1)
        yield known("… of requests", requests)
        yield known("… through proxies", used)


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
        raise AssertionError(f"not the run that was meant: {report}")
    used = [line.requests for line in pool.statistics() if line.requests]
    return sum(used), len(used), fetcher.connections, running.counted["connections"]


def _idle_proxies() -> Iterator[Figure]:
    """Use each of thousands of proxies once, then leave the session open and do nothing."""
    with exchange(Options(symbols=symbols(1), proxies=1)) as running:
        module = "benchmarks.contestants.idling"
        command = [sys.executable, "-m", module, running.base_url, running.proxies[0], str(_IDLE_PROXIES)]
        found = child(command, core=None)
    if found["proxies"] != _IDLE_PROXIES or not found["pollers"]:
        raise AssertionError(f"not all proxies were used, or a poller is not known for one: {found}")
    yield at_most(f"pollers of a session with {_IDLE_PROXIES:,} proxies", found["pollers"], 1)
    yield at_most(f"{_IDLE_PROXIES:,} idle proxies: share of a processor", found["idle"] * 100, 2, " %")
