"""An exchange with an archive, and a store that is filled from it and checked after each run."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Literal
from unittest.mock import patch

import attrs
import numpy as np

from chaos.harness.files_first import files_first
from chaos.harness.store_contents import Contents, Oracle, check_contents, provenance
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline
from marketfetch.archives.periods import CalendarPeriod
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Sink
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.ratelimit import circuit_breaker
from marketfetch.reports import Report
from marketfetch.testing import (
    ArchiveOptions,
    GeneratedMarket,
    SimulatedArchive,
    SimulatedExchange,
    SimulatorOptions,
    simulate_binance,
)
from marketfetch.values.query import Query
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span, SpanSet
from tests.support.worlds import at, run

__all__ = ["CONCURRENCY", "NOW", "ArchiveSite", "CheckedStore", "archive_site"]

NOW = "2024-03-13"
"""March has no monthly file yet."""
CONCURRENCY = 4
_FIRST_PAUSE = 64
"""Milliseconds of the first pause of an egress. Usually it is a second, and pauses are most of these runs."""


@attrs.frozen(eq=False)
class ArchiveSite:
    """An exchange and its archive, and what is asked of them."""

    exchange: SimulatedExchange
    archive: SimulatedArchive
    symbols: Sequence[str]
    span: Span
    interval: str

    @property
    def series(self) -> list[Series]:
        """The series of all runs."""
        return [Series.of("binance-usdm", "ohlcv", symbol, self.interval) for symbol in self.symbols]

    @property
    def oracle(self) -> Oracle:
        """The true rows."""
        return Oracle(self.exchange.market, self.span)

    def words(self, sources: Literal["auto", "archive"] = "auto") -> list[str]:
        """Return the arguments of the command line."""
        symbols = [word for symbol in self.symbols for word in ("--symbol", symbol)]
        span = ["--start", str(self.span.start), "--end", str(self.span.end), "--interval", self.interval]
        archive = ["--archive-url", self.archive.base_url, "--sources", sources]
        return [*symbols, *span, *archive, "--concurrency", str(CONCURRENCY)]

    def fetch(
        self,
        sink: Sink,
        settings: Settings,
        *,
        proxies: Sequence[str] = (),
        sources: Literal["auto", "archive"] = "auto",
    ) -> Report:
        """Run in this process, with files preferred; an egress with cut connections is paused briefly."""
        query = Query(
            symbols=self.symbols,
            interval=self.interval,
            start=self.span.start,
            end=self.span.end,
            sources=sources,
        )
        pipeline = Pipeline(
            BinanceUsdm(self.exchange.base_url, archive_url=self.archive.base_url),
            query,
            sink,
            proxies=RotatingProxies(proxies, direct=not proxies),
            fetcher=CurlFetcher(),
            settings=settings,
        )
        with files_first(), patch.object(circuit_breaker, "_FIRST_PAUSE", _FIRST_PAUSE):
            return run(pipeline)

    def assert_complete(self, found: Contents) -> None:
        """Fail if a moment of any series is not covered."""
        for series in self.series:
            missing = found[series].coverage.missing(self.span)
            assert not missing, f"{series}: missing {missing}"

    def files_requested(self) -> set[str]:
        """Return the keys of the files that were asked for, without those of their digests."""
        paths = {seen.path.removeprefix("/") for seen in self.archive.request_log.latest}
        return {path for path in paths if path.endswith(".zip")}


@contextmanager
def archive_site(
    symbols: Sequence[str], span: Span, interval: str, *, latency: float = 0.0
) -> Iterator[ArchiveSite]:
    """Serve an exchange and its archive on loopback until the block is left."""
    market = GeneratedMarket(symbols, seed=17)
    exchange = SimulatorOptions(limits=None, latency=latency, log_size=10**5)
    options = ArchiveOptions(since=at("2024-01-01")(), latency=latency, log_size=10**5)
    with simulate_binance(market, exchange, options, now=at(NOW)) as (api, archive):
        yield ArchiveSite(api, archive, symbols, span, interval)


@attrs.define(eq=False)
class CheckedStore:
    """A store that runs fill from files; some of them are killed, and the store is checked after each."""

    site: ArchiveSite
    url: str
    kills: int = attrs.field(default=0, init=False)
    durable: Contents = attrs.field(factory=dict, init=False)
    """What was stored after the last run."""

    def run(self, start: Callable[[], bool]) -> bool:
        """Call `start`, which runs and returns whether the run was killed, and check what is stored then."""
        site, before = self.site, self.durable
        site.archive.request_log.clear()
        killed = start()
        self.kills += killed
        self.durable = check_contents(self.url, site.oracle)
        for series in site.series:
            self._check_provenance(series)
            if series in before:
                for key, span in _spans(series, site.files_requested()):
                    left = before[series].coverage.missing(site.span) & span
                    assert left, f"{key} was asked for, though all rows of it were stored"
        return killed

    def assert_complete(self) -> None:
        """Fail if a moment of any series is not covered after the last run."""
        self.site.assert_complete(self.durable)

    def _check_provenance(self, series: Series) -> None:
        """Fail if provenance names a file that was never published so, or whose rows are not stored."""
        there = self.durable[series].rows.times if series in self.durable else np.empty(0, np.int64)
        for entry in provenance(self.url, series):
            body = self.site.archive.read(entry.key)
            assert entry.digest == sha256(body).hexdigest(), f"{entry.key} has another digest"
            lacking = [time for time in _times(body) if time in self.site.span and time not in there]
            assert not lacking, f"{entry.key} is said to be read, and {len(lacking)} of its rows lack"


def _spans(series: Series, keys: Iterable[str]) -> Iterator[tuple[str, SpanSet]]:
    """Yield the files of a series, and the span of each."""
    for key in keys:
        symbol, _, label = key.rpartition("/")[2].removesuffix(".zip").split("-", 2)
        if symbol == series.symbol:
            yield key, SpanSet.of(CalendarPeriod.parse(label).span)


def _times(body: bytes) -> list[int]:
    """Return the open times of a file, read without the code under test."""
    with zipfile.ZipFile(io.BytesIO(body)) as file:
        lines = file.read(file.namelist()[0]).splitlines()
    return [int(line.partition(b",")[0]) for line in lines if line[:1].isdigit()]
