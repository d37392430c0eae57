"""Files that were issued anew are found by their listing, compared field by field, and repaired."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import marketfetch as mf
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline
from marketfetch.api.source_maintenance import verify_sources
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Store
from marketfetch.reports import SourceVerification
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.urls import sink_from
from marketfetch.testing import (
    ArchiveFaultKind,
    ArchiveFaults,
    ArchiveOptions,
    GeneratedMarket,
    SimulatedArchive,
    SimulatedExchange,
    simulate_binance,
)
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.spans import Span, SpanSet
from marketfetch.values.times import parse_time
from tests.support.worlds import assert_holds, run, span_of

START, END = "2025-11-01", "2026-02-01"
SYMBOLS = ("BTCUSDT", "ETHUSDT")
SERIES = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1h")
JANUARY = "data/futures/um/monthly/klines/BTCUSDT/1h/BTCUSDT-1h-2026-01.zip"


def moment(text: str) -> int:
    return parse_time("moment", text, 0)


class Site:
    """An exchange with an archive, and a store that was filled from its files."""

    def __init__(
        self, exchange: SimulatedExchange, archive: SimulatedArchive, market: GeneratedMarket
    ) -> None:
        self.archive, self.market = archive, market
        self.exchange = BinanceUsdm(exchange.base_url, archive_url=archive.base_url)
        self.settings = Settings(clock=archive.now)

    def fill(self, store: Store) -> None:
        query = mf.Query(symbols=SYMBOLS, interval="1h", start=START, end=END, sources="archive")
        assert run(
            Pipeline(self.exchange, query, store, fetcher=CurlFetcher(), settings=self.settings)
        ).complete

    def verify(self, store: Store, *, repair: bool = False) -> SourceVerification:
        return verify_sources(store, self.exchange, repair=repair, settings=self.settings)

    def requests(self) -> list[str]:
        return [seen.params.get("prefix") or seen.path for seen in self.archive.request_log.latest]


@pytest.fixture
def site() -> Iterator[Site]:
    market, now = GeneratedMarket(SYMBOLS), [moment("2026-02-10")]
    options = ArchiveOptions(since=moment("2025-10-01"))
    with simulate_binance(market, archive=options, now=lambda: now[0]) as (exchange, archive):
        place = Site(exchange, archive, market)
        yield place


@pytest.fixture(params=["memory", "duckdb", "sqlite", "parquet"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    made = MemorySink() if request.param == "memory" else sink_from(f"{request.param}:{tmp_path / 'market'}")
    assert isinstance(made, Store)
    return made


def test_files_as_they_were_cost_one_listing_for_each_series(site: Site, store: Store) -> None:
    site.fill(store)
    before = len(site.archive.request_log.latest)
    found = site.verify(store)
    assert found == SourceVerification(series=2, files=6, reissued=())
    assert found.ok
    assert len(site.archive.request_log.latest) - before == 2


def test_a_changed_value_is_found_and_repaired(site: Site, store: Store) -> None:
    # The file had wrong values when it was read, and was issued anew since.
    site.archive.reissue(JANUARY, ArchiveFaultKind.OTHER_VALUES)
    site.fill(store)
    site.archive.reissue(JANUARY)
    found = site.verify(store)
    (file,) = found.reissued
    assert not found.ok
    assert (file.series, file.key, file.new_rows, file.error) == (SERIES, JANUARY, 0, "")
    assert 0 < SERIES.interval.count_rows(file.spans) <= sum(file.fields.values())
    with pytest.raises(AssertionError):  # nothing was written
        assert_holds(store, site.market, SERIES, span_of(START, END))

    repaired = site.verify(store, repair=True)
    assert repaired.ok
    assert [one.repaired for one in repaired.reissued] == [True]
    assert_holds(store, site.market, SERIES, span_of(START, END))
    assert site.verify(store) == SourceVerification(series=2, files=6, reissued=())


def test_a_long_file_is_compared_piece_by_piece(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.archive.reissue(JANUARY, ArchiveFaultKind.OTHER_VALUES)
    store = MemorySink()
    site.fill(store)
    site.archive.reissue(JANUARY)
    (whole,) = site.verify(store).reissued
    monkeypatch.setattr("marketfetch.archives.file_reader.PIECE_ROWS", 30)
    monkeypatch.setattr("marketfetch.archives.file_reader._DISORDER", 5)
    monkeypatch.setattr("marketfetch.decoding.csv_layouts._BLOCK", 1_000)
    monkeypatch.setattr("marketfetch.archives.containers._PIECE", 500)
    reads = list[mf.Span]()
    read = MemorySink.read

    def counting(store: MemorySink, series: Series, span: mf.Span) -> Columns:
        reads.append(span)
        return read(store, series, span)

    monkeypatch.setattr(MemorySink, "read", counting)
    (file,) = site.verify(store, repair=True).reissued
    assert len(reads) > 10
    assert (file.spans, file.fields, file.repaired) == (whole.spans, whole.fields, True)
    assert_holds(store, site.market, SERIES, span_of(START, END))


def test_the_same_bytes_again_are_no_reissue(site: Site, store: Store) -> None:
    site.fill(store)
    site.archive.upload_again(JANUARY)
    assert site.verify(store).reissued == ()


def test_rows_that_a_file_has_now_are_added(site: Site) -> None:
    store = MemorySink()
    site.archive.reissue(JANUARY, ArchiveFaultKind.MISSING_DAYS)
    query = mf.Query(symbols="BTCUSDT", interval="1h", start=START, end=END, sources="archive")
    assert run(Pipeline(site.exchange, query, store, settings=site.settings)).complete  # by the days
    day = mf.SpanSet.of(span_of("2026-01-01", "2026-01-02"))
    store.forget(SERIES, day, rows=True)
    site.archive.reissue(JANUARY)
    assert not [one for one in site.verify(store).reissued if one.differs]  # nobody asks for that day
    with store.writer() as write:
        write(Batch(SERIES, Columns.empty(SERIES.dataset), Coverage(day, day)))
    (file,) = [one for one in site.verify(store).reissued if one.key == JANUARY]
    assert file.new_rows == 24
    assert site.verify(store, repair=True).ok
    assert_holds(store, site.market, SERIES, span_of(START, END))


def test_a_file_that_cannot_be_read_is_named(site: Site) -> None:
    store = MemorySink()
    site.fill(store)
    site.archive.reissue(JANUARY, ArchiveFaultKind.TRUNCATED_ZIP)
    (file,) = site.verify(store, repair=True).reissued
    assert file.error.startswith("ArchiveDamaged: ")
    assert not file.repaired
    assert_holds(store, site.market, SERIES, span_of(START, END))


def test_a_broken_page_of_a_listing_is_requested_again(site: Site) -> None:
    store = MemorySink()
    site.fill(store)
    before = len(site.archive.request_log.latest)
    site.archive.faults = ArchiveFaults(rate=1, kinds=[ArchiveFaultKind.PAGE_LISTING], times=1)
    assert site.verify(store) == SourceVerification(series=2, files=6, reissued=())
    assert len(site.archive.request_log.latest) - before == 4


def test_an_archive_that_is_away_is_in_the_result(site: Site) -> None:
    store = MemorySink()
    site.fill(store)
    away = BinanceUsdm(site.exchange.base_url, archive_url="http://127.0.0.1:9")
    quick = Settings(clock=site.archive.now, retries=RetryPolicy(attempts=1))
    found = verify_sources(store, away, settings=quick)
    assert not found.ok
    assert {file.series.symbol for file in found.reissued} == set(SYMBOLS)
    assert all("cannot be listed" in file.error for file in found.reissued)


def test_an_exchange_without_an_archive_is_refused(site: Site) -> None:
    with pytest.raises(mf.errors.ConfigurationError, match=r"has no archive .* give an archive_url"):
        verify_sources(MemorySink(), BinanceUsdm(site.exchange.base_url))
    with pytest.raises(mf.errors.ConfigurationError, match="repair: 'no' is neither yes nor no"):
        verify_sources(MemorySink(), site.exchange, repair="no")  # type: ignore[arg-type]


def test_a_store_without_provenance_is_refused(site: Site) -> None:
    class Bare(MemorySink):
        provenance = None  # type: ignore[assignment]

    store = Bare()
    site.fill(store)
    with pytest.raises(mf.errors.ConfigurationError, match="does not keep"):
        site.verify(store)


def test_symbols_are_looked_for_at_the_exchange_alone(site: Site) -> None:
    store = MemorySink()
    site.fill(store)
    other = Series.of("okx", "ohlcv", "BTC-USDT", "1h")
    for series in (other, attrs.evolve(other, symbol="ETH-USDC")):
        with store.writer() as write:
            write(Batch(series, Columns.empty(series.dataset), Coverage(SpanSet.of(Span(0, 3_600_000)))))

    def verified(symbols: str) -> SourceVerification:
        return verify_sources(store, site.exchange, symbols=symbols, settings=site.settings)

    assert verified("BTC/USDT").series == 1, "okx has one that is spelt like this, too"
    with pytest.raises(mf.errors.ConfigurationError, match="'ETH-USDC' is not held"):
        verified("ETH-USDC")
