"""An archive with every fault, runs from files that are killed, and proxies that fail while files are read.

What a store holds in the end is the truth, and provenance names only files whose rows it has.
"""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Literal
from unittest.mock import patch

import attrs
import numpy as np

from chaos.harness.command import FILES_FIRST, backfill
from chaos.harness.files_first import files_first
from chaos.harness.store_contents import Contents, Oracle, check_contents, fingerprint, provenance
from chaos.harness.store_fixtures import KINDS, StoreFixture, store_fixture
from chaos.harness.trials import Effort, Result, Trial
from chaos.trials.hostile_network import flapping
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline
from marketfetch.archives.periods import CalendarPeriod
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Sink
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.ratelimit import circuit_breaker
from marketfetch.reports import Report
from marketfetch.sinks import sink_from
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import (
    ArchiveFaultKind,
    ArchiveFaults,
    ArchiveOptions,
    GeneratedMarket,
    LocalProxies,
    SimulatedArchive,
    SimulatedExchange,
    SimulatorOptions,
    simulate_binance,
)
from marketfetch.values.query import Query
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.spans import SpanSet
from tests.support.worlds import assert_holds, at, run, span_of

__all__ = ["archives", "faulty_archive", "faulty_network", "killed_runs"]

_SPAN = span_of("2024-01-25", "2024-03-11")
_NOW = "2024-03-13"
"""March has no monthly file yet."""
_SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
_CONCURRENCY = 4
_REST = 64
"""Milliseconds of the first rest of an egress. Usually it is a second, and rests are most of these runs."""
_KIND = ArchiveFaultKind
_DIFFERING = {"SOLUSDT": _KIND.OTHER_VALUES, "XRPUSDT": _KIND.ZERO_VOLUME}
"""Faults that only a comparison with the API shows. It looks at one file: all files of a symbol have them."""
_REFUSING = frozenset({_KIND.BLOCKED, _KIND.SLOW_DOWN})
"""After one of them a run requests no more files, so that every second run is without them."""
_OF_REPLIES = frozenset(
    {
        *(_KIND.ABSENT, _KIND.WRONG_DIGEST, _KIND.TRUNCATED_BODY, _KIND.DAMAGED_BODY, _KIND.PAGE_BODY),
        *(_KIND.CUT_BODY, _KIND.CUT_LISTING, _KIND.SHORT_LISTING, _KIND.ENDLESS_LISTING, _KIND.PAGE_LISTING),
    }
)
_OF_FILES = frozenset(_KIND) - _OF_REPLIES - _REFUSING - frozenset(_DIFFERING.values())
_INCOMPLETE = (_KIND.MISSING_DAYS, _KIND.FIRST_WEEK, _KIND.ENDS_EARLY, _KIND.NO_CHECKSUM)


def archives(effort: Effort) -> Iterator[Result]:
    """Try everything for every kind of store."""
    for kind in KINDS:
        with store_fixture(kind) as fixture:
            yield faulty_archive(fixture, effort)
            yield killed_runs(fixture, effort)
    yield faulty_network(effort)


@attrs.frozen(eq=False)
class _Site:
    """An exchange and its archive, and what is asked of them."""

    exchange: SimulatedExchange
    archive: SimulatedArchive
    interval: str = "1h"

    @property
    def series(self) -> list[Series]:
        """The series of all runs."""
        return [Series.of("binance-usdm", "ohlcv", symbol, self.interval) for symbol in _SYMBOLS]

    @property
    def oracle(self) -> Oracle:
        """The true rows."""
        return Oracle(self.exchange.market, _SPAN)

    def words(self, sources: Literal["auto", "archive"] = "auto") -> list[str]:
        """Return the arguments of the command line."""
        symbols = [word for symbol in _SYMBOLS for word in ("--symbol", symbol)]
        span = ["--start", str(_SPAN.start), "--end", str(_SPAN.end), "--interval", self.interval]
        archive = ["--archive-url", self.archive.base_url, "--sources", sources]
        return [*symbols, *span, *archive, "--concurrency", str(_CONCURRENCY)]

    def fetch(
        self,
        sink: Sink,
        settings: Settings,
        *,
        proxies: Sequence[str] = (),
        sources: Literal["auto", "archive"] = "auto",
    ) -> Report:
        """Run in this process, with files preferred; an egress whose connections are cut rests for little."""
        pipeline = Pipeline(
            BinanceUsdm(self.exchange.base_url, archive_url=self.archive.base_url),
            Query(
                symbols=_SYMBOLS, interval=self.interval, start=_SPAN.start, end=_SPAN.end, sources=sources
            ),
            sink,
            proxies=RotatingProxies(proxies, direct=not proxies),
            fetcher=CurlFetcher(),
            settings=settings,
        )
        with files_first(), patch.object(circuit_breaker, "_FIRST_REST", _REST):
            return run(pipeline)

    def assert_complete(self, found: Contents) -> None:
        """Fail if a moment of any series is not covered."""
        for series in self.series:
            missing = found[series].coverage.missing(_SPAN)
            assert not missing, f"{series}: missing {missing}"

    def files_requested(self) -> set[str]:
        """Return the keys of the files that were asked for, without those of their digests."""
        paths = {seen.path.removeprefix("/") for seen in self.archive.record.latest}
        return {path for path in paths if path.endswith(".zip")}


@contextmanager
def _site(interval: str = "1h", *, latency: float = 0.0) -> Iterator[_Site]:
    market = GeneratedMarket(_SYMBOLS, seed=17)
    exchange = SimulatorOptions(limits=None, latency=latency, log_size=10**5)
    options = ArchiveOptions(since=at("2024-01-01")(), latency=latency, log_size=10**5)
    with simulate_binance(market, exchange, options, now=at(_NOW)) as (api, archive):
        yield _Site(api, archive, interval)


def faulty_archive(fixture: StoreFixture, effort: Effort) -> Result:
    """Let each file, digest and listing have a fault with a probability of a third; then complete the store.

    Some faults of replies last for ever, some heal. The first run prefers files. The last one is the command
    as it is, while the archive is as bad as before.
    """
    trial = Trial(f"an archive with faults of all kinds, {fixture.kind}: the truth is stored", "runs")
    retries = RetryPolicy(attempts=3, initial=0.001, cap=0.002)
    settings = Settings(concurrency=_CONCURRENCY, retries=retries, clock=at(_NOW))
    files = 0
    for number in range(effort.choose(3, 4, 200)):
        sources: Literal["auto", "archive"] = "archive" if number % 3 == 2 else "auto"
        seed = effort.rng(f"archive {fixture.kind} {number}").randrange(10**9)
        # A new site for each run: a ban outlasts the run in this process.
        with trial.attempt(f"seed {effort.seed}, run {number} ({sources})"), _site() as site:
            site.archive.faults = _faults(seed, refusing=bool(number % 2), alone=sources == "archive")
            url = fixture.fresh()
            report = site.fetch(sink_from(url), settings, sources=sources)
            files += report.archive.files
            first = check_contents(url, site.oracle)
            assert report.complete or sources == "archive", report.as_dict()
            if report.complete:
                site.assert_complete(first)
            with backfill(site.exchange, url, site.words()) as command:
                command.finish()
            site.assert_complete(check_contents(url, site.oracle))
    with trial.attempt("some files are good"):
        assert files, "no file was read"
    return trial.result()


def _faults(seed: int, *, refusing: bool, alone: bool) -> list[ArchiveFaults]:
    """Return the faults of an archive; one that is read alone has none that only a comparison shows."""
    replies = _OF_REPLIES | (_REFUSING if refusing else frozenset())
    same = [f"*/{symbol}*" for symbol in _SYMBOLS if alone or symbol not in _DIFFERING]
    faults = [
        ArchiveFaults(kinds=sorted(_OF_FILES), rate=0.3, seed=seed, keys=same),
        ArchiveFaults(kinds=sorted(replies), rate=0.15, seed=seed + 1),
        ArchiveFaults(kinds=sorted(replies), rate=0.15, seed=seed + 2, times=1),
    ]
    if not alone:
        faults += [
            ArchiveFaults(kinds=[kind], rate=1, keys=f"*/{name}*") for name, kind in _DIFFERING.items()
        ]
    return faults


def killed_runs(fixture: StoreFixture, effort: Effort) -> Result:
    """Kill runs from files at random moments; the last run of each store is not killed."""
    wanted, kills, number = effort.choose(2, 6, 100), 0, 0
    rng = effort.rng(f"killed archive {fixture.kind}")
    trial = Trial(f"killed while files are read, {fixture.kind}: the same final store", "stores")
    with _site("15m", latency=0.01) as site:
        site.archive.faults = ArchiveFaults(kinds=_INCOMPLETE, rate=0.3, seed=rng.randrange(10**9))
        undisturbed = fixture.fresh()
        with backfill(site.exchange, undisturbed, site.words(), FILES_FIRST) as command:
            command.finish()
        requests, expected = site.archive.record.total, fingerprint(undisturbed)
        while kills < wanted and number < 2 * wanted:  # some runs end before they are killed
            store = _KilledStore(site, fixture.fresh(), rng, requests)
            with trial.attempt(f"{fixture.kind}, seed {effort.seed}, store {number}"):
                try:
                    store.fill(kills=min(wanted - kills, rng.randint(2, 5)))
                    assert fingerprint(store.url) == expected, "not what an undisturbed run has stored"
                finally:
                    kills, number = kills + store.kills, number + 1
    trial.unit += f", {kills} kills"
    with trial.attempt("kills"):
        assert kills >= wanted, f"{kills} of {wanted} kills met a run"
    return trial.result()


@attrs.define(eq=False)
class _KilledStore:
    """A store that is filled from files by runs that are killed."""

    site: _Site
    url: str
    rng: random.Random
    requests: int
    """How many requests an undisturbed run sends to the archive."""
    kills: int = 0
    _durable: Contents = attrs.field(factory=dict)

    def fill(self, *, kills: int) -> None:
        """Start and kill some runs, then let one more complete the store."""
        for _ in range(kills):
            if not self._run(self._trigger()):
                break  # it was complete before the kill
        self._run(lambda _: False)
        self.site.assert_complete(self._durable)

    def _run(self, trigger: Callable[[float], bool]) -> bool:
        site, before = self.site, self._durable
        site.archive.record.clear()
        with backfill(site.exchange, self.url, site.words(), FILES_FIRST) as command:
            killed = command.kill_when(trigger)
        self.kills += killed
        self._durable = check_contents(self.url, site.oracle)
        for series in site.series:
            self._check_provenance(series)
            if series in before:
                for key, span in _spans(series, site.files_requested()):
                    left = before[series].coverage.missing(_SPAN) & span
                    assert left, f"{key} was asked for, though all rows of it were stored"
        return killed

    def _check_provenance(self, series: Series) -> None:
        """Fail if provenance names a file that was never published so, or whose rows are not stored."""
        there = self._durable[series].rows.times if series in self._durable else np.empty(0, np.int64)
        for entry in provenance(self.url, series):
            body = self.site.archive.read(entry.key)
            assert entry.digest == sha256(body).hexdigest(), f"{entry.key} has another digest"
            lacking = [time for time in _times(body) if time in _SPAN and time not in there]
            assert not lacking, f"{entry.key} is said to be read, and {len(lacking)} of its rows lack"

    def _trigger(self) -> Callable[[float], bool]:
        """Kill after a random number of requests to the archive, and a moment more."""
        requests, pause = self.rng.randint(0, self.requests), self.rng.uniform(0, 0.2)
        reached: list[float] = []

        def trigger(elapsed: float) -> bool:
            if not reached and self.site.archive.record.total >= requests:
                reached.append(elapsed)
            return bool(reached) and elapsed >= reached[0] + pause

        return trigger


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


def faulty_network(effort: Effort) -> Result:
    """Read files through proxies that change between working and failing at random."""
    trial = Trial("proxies that fail while files are read: no row is lost", "runs")
    settings = Settings(
        concurrency=8,
        deadline=1.0,
        retries=RetryPolicy(attempts=20, initial=0.02, cap=0.2),
        clock=at(_NOW),
    )
    files = 0
    for number in range(effort.choose(1, 6, 200)):
        name = f"flapping archive {number}"
        with (
            trial.attempt(f"seed {effort.seed}, {name}"),
            _site(latency=0.02) as site,
            LocalProxies(4, credentials=("anna", "hunter2")) as proxies,
        ):
            store = MemorySink()
            with flapping(proxies, effort.rng(name)):
                report = site.fetch(store, settings, proxies=proxies.urls)
            assert report.complete, report.as_dict()
            files += report.archive.files
            for series in site.series:
                assert_holds(store, site.exchange.market, series, _SPAN)
    with trial.attempt("some files arrive"):
        assert files, "no file was read"
    return trial.result()
