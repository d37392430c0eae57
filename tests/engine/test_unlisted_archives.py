"""An archive without a listing and without checksums, such as OKX's: what is there is learnt by asking."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import numpy as np
import pytest

from marketfetch.adapter import Cost, LimitPool
from marketfetch.adapters import okx
from marketfetch.api.source_maintenance import verify_sources
from marketfetch.archives import downloads
from marketfetch.engine.archives import files, waves
from marketfetch.events import FileFetched, FileRejected, RequestEvent, RequestFailed
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import (
    ArchiveFaultKind,
    ArchiveFaults,
    ArchiveOptions,
    GeneratedMarket,
    MarketInstrument,
    SimulatorOptions,
    simulate_binance,
)
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings
from marketfetch.values.spans import HOUR, Span
from tests.support.sites import CONCURRENCY, Site, moment
from tests.support.worlds import assert_same, span_of, truth

SPOT, SWAP = "BTC-USDT", "BTC-USDT-SWAP"
TREE = "cdn/okex/traderecords/candlesticks"
JANUARY = f"{TREE}/monthly/202601/{SPOT}-candlesticks-2026-01.zip"
START, END, NOW = "2026-01-30", "2026-02-02", "2026-02-20"
UNSEEN = {ArchiveFaultKind.OTHER_VALUES, ArchiveFaultKind.ZERO_VOLUME}
"""Only a comparison with the API shows them, and a page is compared, not a month."""
SLOW = {ArchiveFaultKind.BOMB, ArchiveFaultKind.SLOW_DOWN, ArchiveFaultKind.CUT_BODY}
"""Each is 100 MB of text, or a wait."""


@pytest.fixture(autouse=True)
def files_are_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefer files however little is missing, and let the API serve a test as fast as it can."""
    monkeypatch.setattr(waves, "files_end_sooner", lambda *_: True)
    monkeypatch.setattr(waves, "_MIN_PAGES", 0)
    pool = LimitPool("okx history-candles", 100_000, 2_000)
    monkeypatch.setattr(okx.Ohlcv, "cost", lambda endpoint, rows: Cost(pool))


@contextmanager
def site(
    *faults: ArchiveFaults,
    market: GeneratedMarket | None = None,
    since: str = "2025-10-01",
    now: str = NOW,
    ranges: bool = True,
) -> Iterator[Site]:
    market = market or GeneratedMarket(["BTCUSDT"])
    files = ArchiveOptions(since=moment(since), faults=faults, ranges=ranges)
    api = SimulatorOptions(limits=None, okx_history_limit=300)
    with simulate_binance(market, api, files, now=lambda: place.clock) as (exchange, archive):
        place = Site(exchange, archive, market, moment(now), venue=okx.Okx)
        yield place


def series(symbol: str = SPOT) -> Series:
    return Series.of("okx", "ohlcv", symbol, "1m")


def assert_true(store: MemorySink, place: Site, symbol: str, span: Span) -> None:
    """Assert that a store has the true candles of a symbol, as far as it covers them."""
    one = series(symbol)
    expected = truth(place.market, one, span, "BTCUSDT")
    unknown = [one.dataset.index(name) for name in ("trades", "taker_buy_volume", "taker_buy_quote_volume")]
    expected.values[unknown] = np.nan
    assert_same(store.read(one, span), expected.within(store.coverage([one])[one].covered))


def asked(place: Site) -> Counter[int]:
    """Return how many requests the archive has answered, by status."""
    return Counter(seen.status for seen in place.archive.request_log.latest)


def test_an_archive_alone_fills_a_store() -> None:
    store, symbols = MemorySink(), (SPOT, SWAP)
    with site() as place:
        report = place.fetch(
            store, symbols=symbols, interval="1m", start="2025-12-10", end="2026-02-04", sources="archive"
        )
        for symbol in symbols:
            assert_true(store, place, symbol, span_of("2025-12-10", "2026-02-04"))
            assert not any(entry.verified for entry in store.provenance(series(symbol)))
        kinds = {seen.kind for seen in place.archive.request_log.latest}
    assert report.complete
    # December, January, and four days of February: the last one begins on the 3rd at 16:00 UTC.
    assert report.archive.files == report.archive.unverified == 2 * (2 + 4)
    assert report.archive.rows == report.rows_written == 2 * 56 * 1440
    assert kinds == {"file"}  # neither a listing nor a checksum is requested
    assert not any(event.verified for event in place.events if isinstance(event, FileFetched))


@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_files_may_be_gzip_or_plain_text(
    compress: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(okx.CandleFiles, "suffix", ".csv.gz")
    store = MemorySink()
    with site() as place:
        with zipfile.ZipFile(io.BytesIO(place.archive.read(JANUARY))) as zipped:
            (text,) = map(zipped.read, zipped.namelist())
        key = f"{JANUARY.removesuffix('.zip')}.csv.gz"
        place.archive.put(key, compress(text))
        report = place.fetch(store, symbols=SPOT, interval="1m", start="2026-01-02", end="2026-01-30")
        assert_true(store, place, SPOT, span_of("2026-01-02", "2026-01-30"))
    assert report.complete
    assert (report.archive.files, report.archive.rows) == (1, 28 * 1440)
    assert [entry.key for entry in store.provenance(series())] == [key]


def test_a_zip_by_name_has_to_be_one() -> None:
    store = MemorySink()
    with site() as place:
        place.archive.put(JANUARY, gzip.compress(b"no zip"))
        place.fetch(
            store, symbols=SPOT, interval="1m", start="2026-01-02", end="2026-01-30", sources="archive"
        )
    assert "expected a zip file with" in next(
        event.reason for event in place.events if isinstance(event, FileRejected)
    )


def test_days_are_those_of_hong_kong() -> None:
    store = MemorySink()
    with site() as place:
        place.fetch(store, symbols=SPOT, interval="1m", start="2026-02-10", end="2026-02-11")
        assert_true(store, place, SPOT, span_of("2026-02-10", "2026-02-11"))
        assert sorted(key[-14:-4] for key in place.keys_read()) == ["2026-02-10", "2026-02-11"]
    (first, second) = sorted(store.provenance(series()), key=lambda entry: entry.span)
    assert first.span == Span(moment("2026-02-10") - 8 * HOUR, moment("2026-02-10") + 16 * HOUR)
    assert second.span.start == first.span.end


@pytest.mark.parametrize("kind", sorted({*ArchiveFaultKind} - UNSEEN - SLOW))
def test_whatever_is_wrong_with_files_the_truth_is_stored(kind: ArchiveFaultKind) -> None:
    store = MemorySink()
    with site(ArchiveFaults(kinds=[kind], rate=1.0)) as place:
        report = place.fetch(store, symbols=SWAP, interval="1m", start=START, end=END)
        assert_true(store, place, SWAP, span_of(START, END))
    assert report.complete, report


@pytest.mark.parametrize("seed", range(4))
def test_faults_everywhere_end_in_the_truth(seed: int) -> None:
    kinds = sorted({*ArchiveFaultKind} - UNSEEN - SLOW - {ArchiveFaultKind.BLOCKED})
    store, symbols = MemorySink(), (SPOT, SWAP)
    with site(*(ArchiveFaults(kinds=kinds, rate=0.5, seed=2 * seed + n, times=1) for n in (0, 1))) as place:
        report = place.fetch(store, symbols=symbols, interval="1m", start="2026-01-20", end="2026-02-10")
        for symbol in symbols:
            assert_true(store, place, symbol, span_of("2026-01-20", "2026-02-10"))
    assert report.complete, report
    assert report.archive.rows


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(ArchiveFaultKind.REPEATED_ROWS, "duplicate"), (ArchiveFaultKind.CONFLICTING_ROWS, "conflicting")],
)
def test_rows_that_come_twice_are_dropped_and_counted(kind: ArchiveFaultKind, reason: str) -> None:
    store = MemorySink()
    with site(ArchiveFaults(kinds=[kind], rate=1.0)) as place:
        report = place.fetch(
            store, symbols=SPOT, interval="1m", start="2026-02-03", end="2026-02-05", sources="archive"
        )
        assert_true(store, place, SPOT, span_of("2026-02-03", "2026-02-05"))
        missing = store.coverage([series()])[series()].missing(span_of("2026-02-03", "2026-02-05"))
    assert report.series[0].rejected[reason]
    # Of two different candles of a minute none is taken: the minute stays missing.
    assert bool(missing) == (reason == "conflicting")
    assert report.complete == (reason == "duplicate")


def test_files_that_do_not_exist_cost_a_few_requests() -> None:
    store = MemorySink()
    old = GeneratedMarket([MarketInstrument.parse("BTCUSDT", moment("2018-01-01"))])
    with site(since="2026-01-01", market=old) as place:  # the archive begins eight years later
        report = place.fetch(
            store, symbols=SPOT, interval="1m", start="2018-01-01", end=NOW, sources="archive"
        )
        found = asked(place)
    assert not report.complete
    (gap,) = report.series[0].missing
    assert gap.reason == "no file has it; with sources='auto' the API is asked"
    assert found[206] == report.archive.files
    # Of 74 months and 2,250 days that the archive might have.
    assert found[404] <= 2 * 10 + 2 * 10


def test_a_symbol_without_any_file_costs_a_few_requests() -> None:
    old = GeneratedMarket([MarketInstrument.parse("BTCUSDT", moment("2018-01-01"))])
    with site(since="2026-02-20", market=old) as place:
        report = place.fetch(
            MemorySink(), symbols=SPOT, interval="1m", start="2018-01-01", end=NOW, sources="archive"
        )
        assert asked(place) == {404: 10 + 10}
    assert not report.rows_written
    assert not report.archive.rejected  # nobody has promised these files
    assert not any(isinstance(event, RequestFailed | FileRejected) for event in place.events)
    ended = [event for event in place.events if isinstance(event, RequestEvent)]
    assert len(ended) == report.requests
    assert sum(event.limit == "okx files" for event in ended) == 10 + 10


def test_a_month_that_is_left_out_is_read_by_its_days() -> None:
    store = MemorySink()
    hole = ArchiveFaults(kinds=[ArchiveFaultKind.ABSENT], rate=1.0, keys=JANUARY)
    with site(hole) as place:
        report = place.fetch(
            store, symbols=SPOT, interval="1m", start="2025-12-20", end="2026-02-03", sources="archive"
        )
        assert_true(store, place, SPOT, span_of("2025-12-20", "2026-02-03"))
        assert asked(place) == {206: 1 + 31 + 3, 404: 1}
    assert report.complete


def test_files_of_a_year_before_the_archive_are_not_requested() -> None:
    old = GeneratedMarket([MarketInstrument.parse("BTCUSDT", moment("2018-01-01"))])
    with site(market=old) as place:
        place.fetch(
            MemorySink(), symbols=SPOT, interval="1m", start="2019-11-28", end="2019-11-30", sources="archive"
        )
        assert not place.archive.request_log.latest


def test_files_that_are_not_published_yet_are_not_requested() -> None:
    day = {"start": "2026-02-02T16:00Z", "end": "2026-02-03T16:00Z"}  # the 3rd in Hong Kong
    with site(now="2026-02-05T15:50Z") as place:
        place.fetch(MemorySink(), None, symbols=SPOT, interval="1m", **day)
        assert not place.archive.request_log.latest
        place.clock = moment("2026-02-05T16:10Z")
        place.fetch(MemorySink(), None, symbols=SPOT, interval="1m", **day)
        assert place.files() == 1


def test_files_alone_confirm_no_absence() -> None:
    gap = span_of("2026-01-30T12:00Z", "2026-01-30T18:00Z")
    market = GeneratedMarket(["BTCUSDT"], gaps=[gap])
    with site(market=market) as place:
        store = MemorySink()
        alone = place.fetch(store, symbols=SPOT, interval="1m", start=START, end=END, sources="archive")
        assert [missing.spans.hull for missing in alone.series[0].missing] == [gap]
        before = place.pages()
        report = place.fetch(store, symbols=SPOT, interval="1m", start=START, end=END)
        assert place.pages() - before >= 2  # a file without a checksum is not the first of two answers
    assert report.complete
    assert report.series[0].empty.hull == gap


def test_a_blocked_file_host_stops_no_run() -> None:
    store = MemorySink()
    with site(ArchiveFaults(kinds=[ArchiveFaultKind.BLOCKED], rate=1.0)) as place:
        report = place.fetch(store, symbols=SPOT, interval="1m", start=START, end=END)
        assert len(place.archive.request_log.latest) <= CONCURRENCY
        assert_true(store, place, SPOT, span_of(START, END))
    assert report.complete
    assert report.archive.rejected


def test_a_file_that_was_issued_anew_is_found_and_repaired() -> None:
    store = MemorySink()
    with site() as place:
        venue = okx.Okx(place.exchange.base_url, archive_url=place.archive.base_url)
        settings = Settings(clock=lambda: place.clock)
        place.archive.reissue(JANUARY, ArchiveFaultKind.OTHER_VALUES)
        place.fetch(store, symbols=SPOT, interval="1m", start="2026-01-01", end=END, sources="archive")
        assert verify_sources(store, venue, settings=settings).ok
        place.archive.reissue(JANUARY)
        (found,) = verify_sources(store, venue, settings=settings, repair=True).reissued
        assert (found.key, found.repaired, set(found.fields)) == (JANUARY, True, {"high"})
        assert_true(store, place, SPOT, span_of("2026-01-01", END))
        # A file that is gone says nothing about its rows.
        place.archive.faults = ArchiveFaults(kinds=[ArchiveFaultKind.ABSENT], rate=1.0)
        assert verify_sources(store, venue, settings=settings).ok


@pytest.mark.parametrize("ranges", [True, False])
def test_the_first_answer_tells_how_large_a_file_is(monkeypatch: pytest.MonkeyPatch, *, ranges: bool) -> None:
    for module in (downloads, files):
        monkeypatch.setattr(module, "PART", 20_000)
    store, start, end = MemorySink(), "2026-02-02T16:00Z", "2026-02-03T16:00Z"
    with site(ranges=ranges) as place:
        report = place.fetch(store, symbols=SPOT, interval="1m", sources="archive", start=start, end=end)
        assert_true(store, place, SPOT, span_of(start, end))
        (key,) = {seen.path.lstrip("/") for seen in place.archive.request_log.latest}
        size = len(place.archive.read(key))
        assert size > 20_000
        assert asked(place) == ({206: -(-size // 20_000)} if ranges else {200: 1})
    assert report.complete
    assert report.archive.size == size
    (entry,) = store.provenance(series())
    assert (entry.key, entry.size) == (key, size)


def test_large_files_that_nothing_lists_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only their first part may be there while they wait, though no listing says that they are large."""
    for module in (downloads, files):
        monkeypatch.setattr(module, "PART", 10_000)
    monkeypatch.setattr(files, "_MAX_LARGE", 1)
    begun, together = set[downloads.Download](), list[int]()
    append, close = downloads.Download.append, downloads.Download.close

    def appending(arrived: downloads.Download, part: downloads.FilePart) -> None:
        append(arrived, part)
        if part.start:
            begun.add(arrived)
            together.append(len(begun))

    def closing(arrived: downloads.Download) -> None:
        begun.discard(arrived)
        close(arrived)

    monkeypatch.setattr(downloads.Download, "append", appending)
    monkeypatch.setattr(downloads.Download, "close", closing)
    with site() as place:
        report = place.fetch(
            MemorySink(),
            symbols=SPOT,
            interval="1m",
            sources="archive",
            start="2026-02-02T16:00Z",
            end="2026-02-09T16:00Z",
        )
        assert report.complete
        assert place.files() == 7
    assert {*together} == {1}


@pytest.mark.parametrize("sources", ["auto", "archive"])
def test_a_plan_has_the_files_by_name_and_requests_none(sources: str) -> None:
    with site() as place:
        pipeline = place.pipeline(
            MemorySink(), symbols=SPOT, interval="1m", sources=sources, start="2025-12-10", end="2026-02-04"
        )
        plan = anyio.run(pipeline.plan)
        assert not place.archive.request_log.latest
        report = anyio.run(pipeline.run)
    assert report.complete
    assert plan.series[0].unlisted_files == plan.archive.requests == report.archive.files == 2 + 4
    assert plan.archive.rows == report.archive.rows
    assert plan.archive.size == pytest.approx(report.archive.size, rel=0.5)
    assert plan.total.requests == pytest.approx(report.requests, abs=2)
    assert "6 files are in no listing; if none is there: at most " in str(plan)


@pytest.mark.parametrize("sources", ["auto", "archive"])
def test_the_bound_of_a_plan_holds_if_no_file_is_there(sources: str) -> None:
    with site(since=NOW) as place:
        pipeline = place.pipeline(
            MemorySink(), symbols=SPOT, interval="1m", sources=sources, start="2025-12-10", end="2026-02-04"
        )
        plan, report = anyio.run(pipeline.plan), anyio.run(pipeline.run)
    assert report.complete == (sources == "auto")
    assert not report.archive.files
    assert plan.total.requests < report.requests <= plan.at_most.requests
    assert plan.at_most.rows == plan.total.rows
    assert not plan.is_upper_bound
