"""An archive with every fault, runs from files that are killed, and proxies that fail while files are read.

What a store holds in the end is the truth, and provenance names only files whose rows it has.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

from chaos.harness.archive_site import CONCURRENCY, NOW, ArchiveSite, CheckedStore, archive_site
from chaos.harness.command import FILES_FIRST, backfill
from chaos.harness.store_contents import check_contents, fingerprint
from chaos.harness.store_fixtures import KINDS, StoreFixture, store_fixture
from chaos.harness.trials import Effort, Result, Trial
from chaos.trials.archive_steps import killed_at_steps
from chaos.trials.hostile_network import run_while_flapping
from marketfetch.sinks import sink_from
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import ArchiveFaultKind, ArchiveFaults, LocalProxies
from marketfetch.values.settings import RetryPolicy, Settings
from tests.support.worlds import assert_holds, at, span_of

__all__ = ["archives", "faulty_archive", "faulty_network", "killed_runs"]

_SPAN = span_of("2024-01-25", "2024-03-11")
_SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
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
            yield killed_at_steps(fixture, effort)
    yield faulty_network(effort)


@contextmanager
def _site(interval: str = "1h", *, latency: float = 0.0) -> Iterator[ArchiveSite]:
    with archive_site(_SYMBOLS, _SPAN, interval, latency=latency) as site:
        yield site


def faulty_archive(fixture: StoreFixture, effort: Effort) -> Result:
    """Let each file, digest and listing have a fault with a probability of a third; then complete the store.

    Some faults of replies last for ever, some heal. The first run prefers files. The last one is the command
    as it is, while the archive is as bad as before.
    """
    trial = Trial(f"an archive with faults of all kinds, {fixture.kind}: the truth is stored", "runs")
    retries = RetryPolicy(attempts=3, initial=0.001, cap=0.002)
    settings = Settings(concurrency=CONCURRENCY, retries=retries, clock=at(NOW))
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
    wanted, kills, number = effort.choose(1, 6, 100), 0, 0
    rng = effort.rng(f"killed archive {fixture.kind}")
    trial = Trial(f"killed while files are read, {fixture.kind}: the same final store", "stores")
    with _site("15m", latency=0.01) as site:
        site.archive.faults = ArchiveFaults(kinds=_INCOMPLETE, rate=0.3, seed=rng.randrange(10**9))
        undisturbed = fixture.fresh()
        with backfill(site.exchange, undisturbed, site.words(), FILES_FIRST) as command:
            command.finish()
        requests, expected = site.archive.request_log.total, fingerprint(undisturbed)
        while kills < wanted and number < 2 * wanted:  # some runs end before they are killed
            store = CheckedStore(site, fixture.fresh())
            with trial.attempt(f"{fixture.kind}, seed {effort.seed}, store {number}"):
                try:
                    _fill(store, kills=min(wanted - kills, rng.randint(2, 5)), rng=rng, requests=requests)
                    assert fingerprint(store.url) == expected, "not what an undisturbed run has stored"
                finally:
                    kills, number = kills + store.kills, number + 1
    trial.unit += f", {kills} kills"
    with trial.attempt("kills"):
        assert kills >= wanted, f"{kills} of {wanted} kills met a run"
    return trial.result()


def _fill(store: CheckedStore, *, kills: int, rng: random.Random, requests: int) -> None:
    """Start and kill some runs, then let one more complete the store.

    `requests` is how many an undisturbed run sends to the archive.
    """
    site = store.site

    def start(trigger: Callable[[float], bool]) -> bool:
        with backfill(site.exchange, store.url, site.words(), FILES_FIRST) as command:
            return command.kill_when(trigger)

    for _ in range(kills):
        if not store.run(lambda: start(_trigger(site, rng, requests))):
            break  # it was complete before the kill
    store.run(lambda: start(lambda _: False))
    store.assert_complete()


def _trigger(site: ArchiveSite, rng: random.Random, most: int) -> Callable[[float], bool]:
    """Kill after a random number of requests to the archive, and a moment more."""
    requests, pause = rng.randint(0, most), rng.uniform(0, 0.2)
    reached: list[float] = []

    def trigger(elapsed: float) -> bool:
        if not reached and site.archive.request_log.total >= requests:
            reached.append(elapsed)
        return bool(reached) and elapsed >= reached[0] + pause

    return trigger


def faulty_network(effort: Effort) -> Result:
    """Read files through proxies that change between working and failing at random."""
    trial = Trial("proxies that fail while files are read: no row is lost", "runs")
    settings = Settings(
        concurrency=8,
        deadline=1.0,
        retries=RetryPolicy(attempts=20, initial=0.02, cap=0.2),
        clock=at(NOW),
    )
    attempts, files, given_up = effort.choose(1, 6, 200), 0, list[str]()
    for number in range(attempts):
        name = f"flapping archive {number}"
        with (
            trial.attempt(f"seed {effort.seed}, {name}"),
            _site(latency=0.02) as site,
            LocalProxies(4, credentials=("anna", "hunter2")) as proxies,
        ):
            store = MemorySink()
            fetch = partial(site.fetch, store, settings, proxies=proxies.urls)
            report = run_while_flapping(proxies, effort.rng(name), fetch, given_up)
            assert report.complete, report.as_dict()
            files += report.archive.files
            for series in site.series:
                assert_holds(store, site.exchange.market, series, _SPAN)
    with trial.attempt("some files arrive, and runs outlast failures"):
        assert files, "no file was read"
        assert len(given_up) <= 1 + attempts // 10, given_up
    return trial.result()
