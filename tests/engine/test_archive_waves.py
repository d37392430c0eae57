"""Files of an archive, then the API: what is stored is the truth, and the API is asked for the rest alone."""

from __future__ import annotations

from collections import Counter

import pytest

import marketfetch as mf
from marketfetch.adapters.binance import BinanceFiles
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.adapters.okx import Okx
from marketfetch.api.pipeline import Pipeline
from marketfetch.engine.archives import waves
from marketfetch.errors import ConfigurationError, RateLimitExceeded
from marketfetch.events import FileRejected
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.ratelimit import circuit_breaker
from marketfetch.ratelimit.circuit_breaker import CircuitBreaker
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import ArchiveFaultKind, ArchiveFaults, GeneratedMarket, LocalProxy
from marketfetch.values.datasets import Dataset
from marketfetch.values.http import Response
from marketfetch.values.series import Series
from tests.support.sites import CONCURRENCY, END, NOW, START, SYMBOLS, site
from tests.support.worlds import assert_holds, span_of

SEEN_BY_COMPARISON = [ArchiveFaultKind.OTHER_VALUES, ArchiveFaultKind.ZERO_VOLUME]
"""The digest is right and the rows are possible: only a comparison with another source shows them."""


@pytest.fixture
def files_are_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefer files however little is missing: on loopback the API is sooner."""
    monkeypatch.setattr(waves, "files_end_sooner", lambda *_: True)
    monkeypatch.setattr(waves, "_MIN_PAGES", 0)


@pytest.fixture
def short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an egress whose connections are cut rest for milliseconds, instead of a second and more."""
    monkeypatch.setattr(circuit_breaker, "_FIRST_PAUSE", 64)


def series(symbol: str = "BTCUSDT", dataset: str = "ohlcv", interval: str = "1h") -> Series:
    return Series.of("binance-usdm", dataset, symbol, interval)


def test_an_archive_alone_fills_a_store() -> None:
    store = MemorySink()
    with site() as place:
        report = place.fetch(store, datasets=["ohlcv", "premium_index", "mark_price"], sources="archive")
        for dataset in ("ohlcv", "premium_index", "mark_price"):
            for symbol in SYMBOLS:
                assert_holds(store, place.market, series(symbol, dataset), span_of(START, END))
                files = store.provenance(series(symbol, dataset))
                assert len({entry.key for entry in files}) == 3 + 14
                assert all(entry.verified for entry in files)
    assert report.complete
    assert report.archive.rows == report.rows_written
    assert place.pages() <= 6  # the first row of each series
    # Of each series three months are over, and the days of February until the end.
    assert report.archive.files == place.files() == 6 * (3 + 14)


def test_what_no_file_has_is_missing_from_an_archive_alone() -> None:
    store = MemorySink()
    with site(now="2026-02-20T00:30Z") as place:
        report = place.fetch(store, end="now", sources="archive")
    (line, _) = report.series
    assert not report.complete
    assert [gap.reason for gap in line.missing] == ["no file has it; with sources='auto' the API is asked"]
    # The daily file of yesterday is published in the morning.
    assert line.missing[0].spans.hull == span_of("2026-02-19", NOW)


def test_the_api_has_the_rest(files_are_sooner: None) -> None:
    store = MemorySink()
    with site(now="2026-02-20T07:30Z") as place:
        report = place.fetch(store, end="now")
        for symbol in SYMBOLS:
            assert_holds(store, place.market, series(symbol), span_of(START, "2026-02-20T07:00Z"))
    assert report.complete
    assert 0 < report.archive.rows < report.rows_written
    by_source = {name: source.rows for name, source in report.sources.items()}
    assert by_source == {"archive": report.archive.rows, "rest": report.rows_written - report.archive.rows}


def test_small_needs_ask_the_archive_nothing() -> None:
    store = MemorySink()
    with site() as place:
        place.fetch(store)
        assert not place.archive.request_log.latest
        place.fetch(store, end="2026-02-16")  # a daily run
        assert not place.archive.request_log.latest
    assert not place.files()


def test_rest_asks_no_file_though_files_were_sooner(files_are_sooner: None) -> None:
    with site() as place:
        report = place.fetch(MemorySink(), sources="rest")
        assert not place.archive.request_log.latest
    assert report.complete


def test_a_covered_moment_is_not_written_again(files_are_sooner: None) -> None:
    store = MemorySink()
    with site() as place:
        place.fetch(store, start="2025-12-10", end="2025-12-20", sources="rest")
        held = place.fetch(store)
        for symbol in SYMBOLS:
            assert_holds(store, place.market, series(symbol), span_of(START, END))
        assert held.rows_written == 2 * 24 * (87 - 10)
        again = place.fetch(store)
    assert again.rows_written == 0
    assert again.requests == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(ArchiveFaultKind) - {*SEEN_BY_COMPARISON}))
@pytest.mark.parametrize("heals", [False, True])
def test_whatever_is_wrong_with_an_archive_the_truth_is_stored(
    files_are_sooner: None, short_rests: None, kind: ArchiveFaultKind, heals: bool
) -> None:
    # Every file, digest or listing that can have the fault has it; some once, some for ever.
    store, start = MemorySink(), "2026-01-01"
    slow = {ArchiveFaultKind.SLOW_DOWN, ArchiveFaultKind.BOMB}  # each is a wait, or 100 MB of text
    rate = 0.1 if kind in slow else 1.0
    faults = ArchiveFaults(kinds=[kind], rate=rate, times=1 if heals else None)
    with site(faults, since="2025-12-01") as place:
        report = place.fetch(store, start=start)
        for symbol in SYMBOLS:
            assert_holds(store, place.market, series(symbol), span_of(start, END))
    assert report.complete, report


@pytest.mark.parametrize("kind", SEEN_BY_COMPARISON)
def test_files_that_differ_from_the_api_are_not_used(files_are_sooner: None, kind: ArchiveFaultKind) -> None:
    # The newest month has 744 rows, all of which fit on the page that it is compared with.
    store = MemorySink()
    with site(ArchiveFaults(kinds=[kind], rate=1.0)) as place:
        report = place.fetch(store)
        for symbol in SYMBOLS:
            assert_holds(store, place.market, series(symbol), span_of(START, END))
        days = [key for key in place.keys_read() if "/daily/" in key]
    assert report.complete
    assert not any("/monthly/" in key for key in place.keys_read())
    # Only months have other values than the API; a volume of zero is in the days, too.
    assert bool(days) == (kind is ArchiveFaultKind.OTHER_VALUES)
    assert report.archive.rejected >= len(SYMBOLS)


@pytest.mark.parametrize(
    "kind", [ArchiveFaultKind.ABSENT, ArchiveFaultKind.DAMAGED_BODY, ArchiveFaultKind.BLOCKED]
)
def test_if_the_newest_file_cannot_be_read_the_next_one_is_compared(
    files_are_sooner: None, kind: ArchiveFaultKind
) -> None:
    store = MemorySink()
    newest = ArchiveFaults(kinds=[kind], rate=1.0, keys="*-1h-2026-01.zip")
    with site(ArchiveFaults(kinds=[ArchiveFaultKind.OTHER_VALUES], rate=1.0), newest) as place:
        report = place.fetch(store)
        for symbol in SYMBOLS:
            assert_holds(store, place.market, series(symbol), span_of(START, END))
    assert report.complete
    assert not any("/monthly/" in key for key in place.keys_read())


def test_a_moment_that_a_file_denies_is_asked_for_once(files_are_sooner: None) -> None:
    gap = span_of("2025-12-10", "2025-12-12")
    asked = {}
    for sources in ("rest", "auto"):
        market = GeneratedMarket(SYMBOLS, gaps=[gap])
        with site(market=market) as place:
            store = MemorySink()
            report = place.fetch(store, start="2025-12-01", end="2026-01-01", sources=sources)
            assert_holds(store, market, series(), span_of("2025-12-01", "2026-01-01"))
            asked[sources] = place.pages()
        assert report.complete
        assert report.series[0].empty.hull == gap
    assert asked["auto"] <= 2 * (1 + 1 + 1)  # of each symbol: first row, comparison, and the gap


def test_a_blocked_file_host_stops_no_run(files_are_sooner: None) -> None:
    store = MemorySink()
    with site(ArchiveFaults(kinds=[ArchiveFaultKind.BLOCKED], rate=1.0)) as place:
        report = place.fetch(store)
        assert len(place.archive.request_log.latest) <= 2 * CONCURRENCY
    assert report.complete
    assert any(isinstance(event, FileRejected) for event in place.events)


def test_a_file_host_that_cuts_connections_delays_no_request_to_the_api(
    files_are_sooner: None, short_rests: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    delayed: Counter[str] = Counter()
    ready_at = CircuitBreaker.ready_at

    def counting(breaker: CircuitBreaker, host: str, now: int) -> int:
        moment = ready_at(breaker, host, now)
        delayed[host] += moment > now
        return moment

    monkeypatch.setattr(CircuitBreaker, "ready_at", counting)
    store = MemorySink()
    with LocalProxy() as proxy, site(ArchiveFaults(kinds=[ArchiveFaultKind.CUT_BODY], rate=1.0)) as place:
        report = place.fetch(store, proxies=RotatingProxies([proxy.url], direct=False))
        for symbol in SYMBOLS:
            assert_holds(store, place.market, series(symbol), span_of(START, END))
        hosts = place.archive.base_url, place.exchange.base_url
    assert report.complete
    assert not report.archive.files
    assert any("no egress left" in event.reason for event in place.events if isinstance(event, FileRejected))
    archive, api = (delayed[host] for host in hosts)
    assert archive
    assert not api
    (egress,) = report.egresses
    assert egress.state.endswith(f" for {hosts[0].removeprefix('http://')}")


def test_the_next_run_does_not_wait_for_the_end_of_a_ban(files_are_sooner: None) -> None:
    with site(ArchiveFaults(kinds=[ArchiveFaultKind.BLOCKED], rate=1.0)) as place:
        pool = RotatingProxies([])
        assert place.fetch(MemorySink(), pool).complete
        asked = len(place.archive.request_log.latest)
        report = place.fetch(MemorySink(), pool)  # within the two minutes of the ban
        assert report.complete
        assert report.archive.rejected
        assert len(place.archive.request_log.latest) == asked


def test_a_file_host_that_asks_to_wait_for_an_hour_is_not_waited_for(
    files_are_sooner: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_down(archive: object, response: Response) -> None:
        raise RateLimitExceeded("slow down", retry_after=3600.0)

    monkeypatch.setattr(BinanceFiles, "raise_for_error", slow_down)
    store = MemorySink()
    with site() as place:
        report = place.fetch(store)
        for symbol in SYMBOLS:
            assert_holds(store, place.market, series(symbol), span_of(START, END))
    assert report.complete
    assert not report.archive.files


def test_an_archive_alone_needs_one() -> None:
    query = mf.Query(symbols="BTC-USDT", start=START, end=END, sources="archive")
    elsewhere = "http://127.0.0.1:1"
    with pytest.raises(ConfigurationError, match=r"has no archive of ohlcv; .* or give an archive_url"):
        Pipeline(Okx(elsewhere), query, MemorySink())
    Pipeline(Okx(elsewhere, archive_url=elsewhere), query, MemorySink())
    funding = mf.Query(
        symbols="BTC-USDT-SWAP", datasets="funding_rate", start=START, end=END, sources="archive"
    )
    with pytest.raises(ConfigurationError, match=r"has no archive of funding_rate; write sources='auto'$"):
        Pipeline(Okx(elsewhere), funding, MemorySink())
    with pytest.raises(ConfigurationError, match="sources: 'files' is unknown"):
        mf.Query(symbols="BTCUSDT", start=START, sources="files")


def test_a_simulated_exchange_does_not_use_the_public_archive() -> None:
    dataset = Dataset.parse("ohlcv")
    assert BinanceUsdm("http://127.0.0.1:1").archive(dataset) is None
    assert BinanceUsdm().archive(dataset) is not None
