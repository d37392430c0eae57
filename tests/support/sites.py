"""An exchange and its archive on one market, and the runs against them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs

import marketfetch as mf
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline
from marketfetch.events import Event, FileFetched, FileRejected
from marketfetch.exchange import Exchange
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.reports import Report
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import (
    ArchiveFaults,
    ArchiveOptions,
    GeneratedMarket,
    SimulatedArchive,
    SimulatedExchange,
    simulate_binance,
)
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.times import parse_time
from tests.support.worlds import run

START, END, NOW = "2025-11-20", "2026-02-15", "2026-02-20"
SYMBOLS = ("BTCUSDT", "ETHUSDT")
CONCURRENCY = 4
_RETRIES = RetryPolicy(attempts=3, initial=0.001, cap=0.002)


def moment(text: str) -> int:
    """Return a time in UTC milliseconds."""
    return parse_time("moment", text, 0)


@attrs.define
class Site:
    """An exchange and its archive on one market, and the events of the runs against them."""

    exchange: SimulatedExchange
    archive: SimulatedArchive
    market: GeneratedMarket
    clock: int
    """What time it is for the exchange, its archive and the runs (UTC ms)."""
    events: list[Event] = attrs.field(factory=list)
    venue: type[Exchange] = BinanceUsdm

    def pipeline(
        self, store: MemorySink, proxies: RotatingProxies | None = None, **query: object
    ) -> Pipeline:
        """Return a pipeline from this site; by default it fetches three months of candles of 1h."""
        asked = {"symbols": SYMBOLS, "interval": "1h", "start": START, "end": END} | query
        return Pipeline(
            self.venue(self.exchange.base_url, archive_url=self.archive.base_url),
            mf.Query(**asked),  # type: ignore[arg-type]  # its converters check every argument
            store,
            proxies=proxies,
            fetcher=CurlFetcher(),
            settings=Settings(concurrency=CONCURRENCY, retries=_RETRIES, clock=lambda: self.clock),
            listeners=[self.events.append],
        )

    def fetch(self, store: MemorySink, proxies: RotatingProxies | None = None, **query: object) -> Report:
        """Run such a pipeline."""
        return run(self.pipeline(store, proxies, **query))

    def pages(self) -> int:
        """Return how many pages the API was asked for."""
        return sum(
            seen.path.endswith(("klines", "Klines", "history-candles"))
            for seen in self.exchange.request_log.latest
        )

    def files(self) -> int:
        """Return how many files the runs have read."""
        return len(self.keys_read())

    def keys_read(self) -> list[str]:
        """Return the keys of the files that the runs have read."""
        return [event.key for event in self.events if isinstance(event, FileFetched)]

    def rejected(self) -> list[FileRejected]:
        """Return the files that the runs have rejected."""
        return [event for event in self.events if isinstance(event, FileRejected)]


@contextmanager
def site(
    *faults: ArchiveFaults,
    now: str = NOW,
    market: GeneratedMarket | None = None,
    former: GeneratedMarket | None = None,
    ranges: bool = True,
    since: str = "2025-10-01",
) -> Iterator[Site]:
    """Start an exchange and its archive; `former` are contracts that only the archive knows.

    The archive begins `since`: it renders a file that is listed, whether or not somebody reads it.
    """
    market = market or GeneratedMarket(SYMBOLS)
    options = ArchiveOptions(since=moment(since), faults=faults, former=former, ranges=ranges)
    with simulate_binance(market, archive=options, now=lambda: place.clock) as (exchange, archive):
        place = Site(exchange, archive, market, moment(now))
        yield place
