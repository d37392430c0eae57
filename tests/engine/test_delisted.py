"""Symbols that the exchange no longer lists: found in its archive, and fetched from files alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import ClassVar

import anyio
import numpy as np
import pytest

import marketfetch as mf
from marketfetch.adapters.binance_usdm import BinanceUsdm, Ohlcv, UsdmOhlcvFiles
from marketfetch.adapters.okx import Okx
from marketfetch.api.pipeline import Pipeline
from marketfetch.engine.archives import waves
from marketfetch.errors import BadSymbol, ConfigurationError
from marketfetch.sinks.memory import MemorySink
from marketfetch.sources import Source
from marketfetch.testing import ArchiveFaultKind, ArchiveFaults, GeneratedMarket
from marketfetch.testing.markets.market import MarketInstrument
from marketfetch.values.http import Request
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet
from tests.support.sites import END, SYMBOLS, Site, moment, site
from tests.support.worlds import assert_holds, run, span_of, truth

START = "2025-10-05"
NOW = "2026-02-20T00:05Z"
BIRTH, DEATH = "2025-10-20T07:00Z", "2026-01-10T18:00Z"
LUNA = MarketInstrument.parse("LUNAUSDT", moment(BIRTH), moment(DEATH))
FORMER = GeneratedMarket([LUNA], seed=1)
SERIES = Series.of("binance-usdm", "ohlcv", "LUNAUSDT", "1h")
NOT_READ = "a file or a listing of the archive could not be used; run again, it may be back"
UNSEEN = {ArchiveFaultKind.OTHER_VALUES, ArchiveFaultKind.ZERO_VOLUME}
"""The digest is right and the rows are possible: only a comparison with another source shows them."""
BOTH_LIE = {ArchiveFaultKind.SHORT_LISTING, ArchiveFaultKind.UNLISTED}
"""If the listing of months and that of days hide the same rows, nothing tells that they exist."""
CLOSES_CONNECTIONS = {ArchiveFaultKind.CUT_BODY}
"""Connections that close again and again rest the only egress."""
LONG = {ArchiveFaultKind.BOMB}
"""Without the compiled decoder 100 MB take a while; the tests of the reader have it."""


def assert_no_false_word(place: Site, store: MemorySink, series: Series = SERIES) -> None:
    """Assert that every stored row is a true one, and no moment with a true row is called empty."""
    true = truth(FORMER, series, span_of(START, END))
    found = store.read(series, span_of(START, END))
    assert np.isin(found.times, true.times).all()
    np.testing.assert_array_equal(found.values, true.values[:, np.isin(true.times, found.times)])
    empty = store.coverage([series])[series].empty
    assert not [time for time in true.times.tolist() if time in empty]


@pytest.mark.parametrize("sources", ["auto", "archive"])
@pytest.mark.parametrize("name", ["LUNAUSDT", "luna/usdt:USDT"])
def test_a_delisted_symbol_is_complete_without_a_page_of_the_api(sources: str, name: str) -> None:
    store = MemorySink()
    with site(now=NOW, former=FORMER) as place:
        report = place.fetch(store, symbols=name, start=START, end="now", sources=sources)
        assert_holds(store, FORMER, SERIES, span_of(START, "2026-02-20"))
        assert not place.pages()
        assert report.complete
        assert report.archive.rows == report.rows_written == len(truth(FORMER, SERIES, span_of(START, END)))
        again = place.fetch(store, symbols=name.upper(), start=START, end="2026-02-20", sources=sources)
    empty = SpanSet.of(span_of(START, BIRTH), span_of(DEATH, "2026-02-20"))
    assert store.coverage([SERIES])[SERIES].empty == empty
    assert again.rows_written == again.archive.files == 0


def test_a_second_run_asks_nothing_and_a_later_one_lists_files_alone() -> None:
    store = MemorySink()
    with site(now=NOW, former=FORMER) as place:
        place.fetch(store, symbols="LUNAUSDT", start=START)
        assert place.fetch(store, symbols="LUNAUSDT", start=START).requests == 0
        read = place.files()
        later = place.fetch(store, symbols="LUNAUSDT", start=START, end="2026-02-20")
        assert later.complete
        assert place.files() == read


def test_a_window_within_its_life_is_read_from_few_files() -> None:
    store, window = MemorySink(), ("2025-12-05", "2025-12-20")
    with site(now=NOW, former=FORMER) as place:
        report = place.fetch(store, symbols="LUNAUSDT", start=window[0], end=window[1])
        assert_holds(store, FORMER, SERIES, span_of(*window))
    assert report.complete
    assert report.archive.files == 1


def test_a_plan_of_a_delisted_symbol_has_files_alone() -> None:
    """Where no file has a row, nothing is left to ask."""
    with site(now=NOW, former=FORMER) as place:
        plan = anyio.run(place.pipeline(MemorySink(), symbols="LUNAUSDT", start=START, end="now").plan)
    (line,) = plan.series
    assert line.rest.requests == 0
    assert line.archive.requests > 0


def test_all_symbols_may_have_the_delisted_ones_among_them() -> None:
    store = MemorySink()
    with site(now=NOW, former=FORMER) as place:
        report = place.fetch(store, symbols=mf.AllSymbols(quote="USDT", delisted=True), start="2025-12-20")
        assert {line.series.symbol for line in report.series} == {*SYMBOLS, "LUNAUSDT"}
        assert report.complete
        assert_holds(store, FORMER, SERIES, span_of("2025-12-20", END))
        bitcoin = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1h")
        assert_holds(store, place.market, bitcoin, span_of("2025-12-20", END))
        now = place.fetch(MemorySink(), symbols=mf.AllSymbols(quote="USDT"), start="2026-02-10")
    assert {line.series.symbol for line in now.series} == {*SYMBOLS}


def test_a_name_that_nobody_knows_gets_the_usual_hint() -> None:
    with site(now=NOW, former=FORMER) as place:
        report = place.fetch(MemorySink(), symbols="BTCUSD", start=START)
        assert report.unknown == {"BTCUSD": "unknown symbol; did you mean 'BTCUSDT' or 'ETHUSDT'?"}
        place.archive.request_log.clear()
        for sources, name in (("rest", "LUNAUSDT"), ("auto", "BTCUSDT")):
            place.fetch(MemorySink(), symbols=name, start="2026-02-10", sources=sources)
        assert not place.archive.request_log.latest


def test_what_one_run_of_a_session_learns_from_an_archive_is_not_told_to_one_without() -> None:
    with site(now=NOW, former=FORMER) as place:
        exchange = BinanceUsdm(place.exchange.base_url, archive_url=place.archive.base_url)
        span = {"interval": "1h", "start": "2026-01-01", "end": "2026-01-10"}
        settings = mf.Settings(clock=lambda: place.clock)

        async def work() -> mf.Report:
            async with mf.Session() as session:
                for sources in ("auto", "rest"):
                    query = mf.Query(symbols="LUNAUSDT", sources=sources, **span)
                    run_of = Pipeline(exchange, query, MemorySink(), session=session, settings=settings)
                    report = await run_of.run()
            return report

        report = anyio.run(work)
        assert report.unknown == {
            "LUNAUSDT": "unknown symbol; mf.instruments and `marketfetch symbols` list all"
        }
        assert not place.pages()


def test_a_name_stays_unknown_if_the_archive_does_not_answer() -> None:
    blocked = ArchiveFaults(kinds=[ArchiveFaultKind.BLOCKED], rate=1.0)
    with site(blocked, former=FORMER) as place:
        report = place.fetch(MemorySink(), symbols=["LUNAUSDT", "BTCUSDT"], start="2026-02-10")
    assert "the archive cannot be asked: Banned" in report.unknown["LUNAUSDT"]
    assert [bool(line.missing) for line in report.series] == [True, False]
    with site(blocked, former=FORMER) as place, pytest.raises(mf.errors.Banned):
        place.fetch(MemorySink(), symbols=mf.AllSymbols(delisted=True), start="2026-02-10")


def test_a_hole_in_all_files_is_missing_and_never_empty() -> None:
    lost = ArchiveFaults(
        kinds=[ArchiveFaultKind.ABSENT],
        rate=1.0,
        keys=["*LUNAUSDT-1h-2025-12.zip", "*2025-12-1?.zip"],
    )
    store = MemorySink()
    with site(lost, former=FORMER) as place:
        report = place.fetch(store, symbols="LUNAUSDT", start=START)
        assert_no_false_word(place, store)
    (line,) = report.series
    hole = SpanSet.of(span_of("2025-12-10", "2025-12-20"))
    assert [(gap.spans, gap.reason) for gap in line.missing] == [(hole, NOT_READ)]


@pytest.mark.parametrize(
    "kind", sorted(set(ArchiveFaultKind) - UNSEEN - BOTH_LIE - CLOSES_CONNECTIONS - LONG)
)
def test_no_row_is_denied_whatever_is_wrong_with_files(kind: ArchiveFaultKind) -> None:
    store = MemorySink()
    # The folders, and the files at both ends of its life.
    keys = ["*LUNAUSDT/1h/", "*-2025-10.zip", "*-2025-10-20.zip", "*-2026-01.zip", "*-2026-01-10.zip"]
    faults = ArchiveFaults(kinds=[kind], rate=1.0, keys=keys)
    with site(faults, former=FORMER) as place:
        report = place.fetch(store, symbols="LUNAUSDT", start=START)
        assert_no_false_word(place, store)
    assert report.complete == (not any(line.missing for line in report.series) and not report.unknown)


@pytest.mark.parametrize("hidden", ["monthly", "daily"])
@pytest.mark.parametrize("kind", sorted(BOTH_LIE))
def test_one_listing_that_hides_files_changes_nothing(kind: ArchiveFaultKind, hidden: str) -> None:
    store = MemorySink()
    faults = ArchiveFaults(kinds=[kind], rate=1.0, keys=f"*/{hidden}/klines/LUNAUSDT/1h/*")
    with site(faults, former=FORMER) as place:
        report = place.fetch(store, symbols="LUNAUSDT", start=START)
        assert_holds(store, FORMER, SERIES, span_of(START, END))
    assert report.complete


def test_a_host_that_blocks_amid_the_files_proves_nothing() -> None:
    # The months are listed; then a file is refused, and nothing more is asked: not even the days.
    store = MemorySink()
    faults = ArchiveFaults(kinds=[ArchiveFaultKind.BLOCKED], rate=1.0, keys="*.zip")
    with site(faults, former=FORMER) as place:
        report = place.fetch(store, symbols="LUNAUSDT", start=START)
        assert_no_false_word(place, store)
    assert not report.complete
    assert not store.coverage([SERIES])[SERIES].empty
    assert {gap.reason for line in report.series for gap in line.missing} == {NOT_READ}


def test_one_listing_of_the_only_part_of_an_archive_is_not_enough() -> None:
    # Candles of 1w have no files of days: the first of two listings of months hides some.
    weeks, store = Series.of("binance-usdm", "ohlcv", "LUNAUSDT", "1w"), MemorySink()
    faults = ArchiveFaults(
        kinds=[ArchiveFaultKind.SHORT_LISTING], rate=1.0, times=1, keys="*/monthly/klines/LUNAUSDT/1w/*"
    )
    with site(faults, former=FORMER) as place:
        place.fetch(store, symbols="LUNAUSDT", interval="1w", start=START)
        assert_no_false_word(place, store, weeks)


def test_an_end_is_believed_after_two_weeks() -> None:
    store = MemorySink()
    with site(now="2026-01-16T00:05Z", former=FORMER) as place:
        early = place.fetch(store, symbols="LUNAUSDT", start=START, end="now")
        assert not early.complete
        assert_no_false_word(place, store)
        (gap,) = early.series[0].missing
        assert gap.spans == SpanSet.of(span_of(DEATH, "2026-01-16"))
        assert gap.reason == "its files end at 2026-01-10T18:00:00Z, and another may follow"
        place.clock = moment(NOW)
        late = place.fetch(store, symbols="LUNAUSDT", start=START, end="now")
    assert late.complete
    assert late.rows_written == 0


def test_a_run_that_was_stopped_is_continued() -> None:
    store = MemorySink()

    async def begin(pipeline: Pipeline) -> None:
        async with aclosing(aiter(pipeline)) as batches:
            await anext(batches)

    with site(now=NOW, former=FORMER) as place:
        anyio.run(begin, place.pipeline(store, symbols="LUNAUSDT", start=START))
        held = len(store.read(SERIES, span_of(START, END)))
        assert_no_false_word(place, store)
        report = place.fetch(store, symbols="LUNAUSDT", start=START)
        assert_holds(store, FORMER, SERIES, span_of(START, END))
    assert report.complete
    assert 0 < held < held + report.rows_written == len(store.read(SERIES, span_of(START, END)))


def test_a_dataset_without_files_is_missing_with_a_reason() -> None:
    with site(now=NOW, former=FORMER) as place:
        report = place.fetch(
            MemorySink(), symbols="LUNAUSDT", datasets=["ohlcv", "funding_rate"], start=START
        )
    candles, funding = report.series
    assert not candles.missing
    assert [gap.reason for gap in funding.missing] == [
        "the exchange no longer lists LUNAUSDT, and has no files of funding_rate"
    ]


def test_rows_of_an_older_instrument_of_the_same_name_are_not_mixed_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = moment("2025-12-23T09:00Z")
    market = GeneratedMarket([*SYMBOLS, MarketInstrument.parse("LITUSDT", listed)])
    older = MarketInstrument.parse("LITUSDT", moment("2025-10-20"), moment("2025-11-30"))
    series, store = Series.of("binance-usdm", "ohlcv", "LITUSDT", "1h"), MemorySink()
    monkeypatch.setattr(waves, "files_end_sooner", lambda *_: True)
    monkeypatch.setattr(waves, "_MIN_PAGES", 0)
    with site(market=market, former=GeneratedMarket([older], seed=1)) as place:
        for sources in ("auto", "archive"):
            place.events.clear()
            report = place.fetch(store, symbols="LITUSDT", start=START, sources=sources)
            assert_holds(store, market, series, span_of(START, END))
            assert report.complete
            if sources == "auto":
                (warning,) = place.rejected()
                assert warning.key.endswith("LITUSDT-1h-2025-10.zip")
                assert "is older than the listing of 2025-12-23T09:00:00Z" in warning.reason
    assert store.read(series, span_of(START, END)).times[0] == listed


def test_delisted_symbols_need_an_archive() -> None:
    wanted = mf.AllSymbols(delisted=True)
    with pytest.raises(ConfigurationError, match=r"delisted: okx .* has no archive that lists the symbols"):
        Pipeline(Okx(), mf.Query(symbols=wanted, start=START), MemorySink())
    query = mf.Query(symbols=wanted, start=START, sources="rest")
    with pytest.raises(ConfigurationError, match=r"delisted: .* in files alone; write sources='auto'"):
        Pipeline("binance-usdm", query, MemorySink())
    with pytest.raises(ConfigurationError, match="delisted: 'yes' is neither True nor False"):
        mf.AllSymbols(delisted="yes")  # type: ignore[arg-type]


class _Refusing(Ohlcv):
    """Refuses the symbol, as Binance does with code -1122, although the listing has it."""

    def request(self, part: Slice) -> Request:
        if part.series.symbol == "LUNAUSDT":
            raise BadSymbol("binance-usdm does not serve this symbol (code -1122)")
        return super().request(part)

    def first_row_request(self, series: Series, start: int) -> Request | None:
        return self.request(Slice(series, Span(start, start + 1), 1))


class _Venue(BinanceUsdm):
    sources: ClassVar[Sequence[type[Source]]] = (_Refusing, UsdmOhlcvFiles)


@pytest.mark.parametrize("sources", ["auto", "rest"])
def test_a_listed_symbol_that_is_not_traded_and_that_the_api_refuses_is_read_from_files(sources: str) -> None:
    store, market = MemorySink(), GeneratedMarket([*SYMBOLS, LUNA], seed=1)
    with site(now=NOW, market=market) as place:
        query = mf.Query(
            symbols=("LUNAUSDT", "BTCUSDT"),
            interval="1h",
            start="2025-12-20",
            end="2026-02-20",
            sources=sources,
        )
        exchange = _Venue(place.exchange.base_url, archive_url=place.archive.base_url)
        settings = mf.Settings(clock=lambda: place.clock, concurrency=4)
        report = run(Pipeline(exchange, query, store, settings=settings))
        lines = {line.series.symbol: line for line in report.series}
        assert not lines["BTCUSDT"].missing
        if sources == "rest":
            (gap,) = lines["LUNAUSDT"].missing
            assert "-1122" in gap.reason
            return
        assert report.complete
        assert_holds(store, market, SERIES, span_of("2025-12-20", "2026-02-20"))
