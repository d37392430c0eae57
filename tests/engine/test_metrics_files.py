"""Statistics from files: five years instead of the 30 days of the API, with the times of the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import attrs
import numpy as np
import pytest

import marketfetch as mf
from marketfetch.adapters.binance_coinm import BinanceCoinm
from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline
from marketfetch.events import FileFetched, FileRejected
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.plans import Plan
from marketfetch.reports import Report, SeriesReport
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import (
    ArchiveFaultKind,
    ArchiveFaults,
    ArchiveOptions,
    GeneratedMarket,
    SimulatedArchive,
    SimulatedExchange,
    simulate_binance,
)
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.spans import Span, SpanSet
from tests.support.worlds import DAY, MINUTE, assert_holds, assert_same, at, run, span_of, truth

DATASETS = ("open_interest", "long_short_ratio")
VENUES = {"binance-usdm": (BinanceUsdm, "BTCUSDT"), "binance-coinm": (BinanceCoinm, "BTCUSD_PERP")}
START, END, NOW = "2026-06-20", "2026-08-08", "2026-08-08T12:00Z"
BEFORE_API = span_of(START, "2026-07-09T13:00Z")
"""What the API no longer serves: it keeps 30 days, less an hour."""
STEPS_A_DAY = 288


@attrs.frozen
class Site:
    """An exchange and its archive on one market."""

    exchange: SimulatedExchange
    archive: SimulatedArchive
    market: GeneratedMarket
    venue: str
    events: list[object] = attrs.field(factory=list)

    def fetch(self, store: MemorySink, dataset: str = "open_interest", **query: object) -> Report:
        return run(self.pipeline(store, dataset, **query))

    def pipeline(self, store: MemorySink, dataset: str = "open_interest", **query: object) -> Pipeline:
        kind, symbol = VENUES[self.venue]
        asked = {"symbols": symbol, "datasets": dataset, "interval": "5m", "start": START, "end": END}
        return Pipeline(
            kind(self.exchange.base_url, archive_url=self.archive.base_url),
            mf.Query(**asked | query),  # type: ignore[arg-type]  # its converters check every argument
            store,
            fetcher=CurlFetcher(),
            settings=Settings(
                concurrency=4,
                retries=RetryPolicy(attempts=3, initial=0.001, cap=0.002),
                clock=self.archive.now,
            ),
            listeners=[self.events.append],
        )

    def series(self, dataset: str = "open_interest") -> Series:
        return Series.of(self.venue, dataset, VENUES[self.venue][1], "5m")

    def count_of(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    def asked(self) -> int:
        """Return how many pages of statistics were requested."""
        return sum("/futures/data/" in seen.path for seen in self.exchange.request_log.latest)


@contextmanager
def site(venue: str = "binance-usdm", *faults: ArchiveFaults, now: str = NOW) -> Iterator[Site]:
    market = GeneratedMarket([VENUES[venue][1]])
    options = ArchiveOptions(since=span_of("2026-06-01", END).start, faults=faults)
    with simulate_binance(market, archive=options, now=at(now)) as (exchange, archive):
        yield Site(exchange, archive, market, venue)


def missing_rows(line: SeriesReport) -> int:
    return sum(line.series.interval.count_rows(gap.spans) for gap in line.missing)


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("venue", VENUES)
def test_files_have_what_the_api_no_longer_serves(venue: str, dataset: str) -> None:
    """The span has the day on which the files of USD-M begin to write the start of a period."""
    store = MemorySink()
    with site(venue) as place:
        report = place.fetch(store, dataset)
        assert_holds(store, place.market, place.series(dataset), span_of(START, END))
        # Midnight of the first day is in the file of the day before; the API has the last 30 days.
        assert place.count_of(FileFetched) == 1 + 20
        assert place.asked() <= 20
        again = place.fetch(store, dataset)
    assert report.complete
    assert report.archive.rows == 1 + 20 * STEPS_A_DAY
    assert again.complete
    assert again.requests == 0


@pytest.mark.parametrize("end", ["2026-07-01", END], ids=["all of it", "some of it"])
def test_a_plan_has_what_the_api_no_longer_serves(end: str) -> None:
    with site() as place:
        pipeline = place.pipeline(MemorySink(), end=end)

        async def both() -> tuple[Plan, Report]:
            return await pipeline.plan(), await pipeline.run()

        plan, report = anyio.run(both)
    assert report.complete
    assert plan.archive.requests == 2 * report.archive.files > 0
    assert [line.missing for line in plan.series] == [SpanSet.of(span_of(START, end))]


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("venue", VENUES)
def test_files_and_api_agree_where_both_have_rows(venue: str, dataset: str) -> None:
    by_files, by_api = MemorySink(), MemorySink()
    span = span_of("2026-07-20", "2026-07-23")
    with site(venue) as place:
        days = {"start": "2026-07-20", "end": "2026-07-23"}
        place.fetch(by_files, dataset, **days, sources="archive")
        asked = place.asked()
        place.fetch(by_api, dataset, **days, sources="rest")
        series = place.series(dataset)
        assert place.count_of(FileFetched) == 4
        assert place.asked() > asked == 0
    assert len(by_files.read(series, span)) == 3 * STEPS_A_DAY
    assert_same(by_files.read(series, span), by_api.read(series, span))


@pytest.mark.parametrize("now", ["2026-06-26T12:00Z", "2026-07-20T12:00Z"])
def test_the_new_meaning_of_times_doubles_and_loses_no_row(now: str) -> None:
    store = MemorySink()
    days = {"start": "2026-06-24", "end": "2026-06-26"}
    with site(now=now) as place:
        assert place.fetch(store, **days, sources="archive").complete
        assert_holds(store, place.market, place.series(), span_of("2026-06-24", "2026-06-26"))


def test_rest_and_other_intervals_ask_no_file() -> None:
    with site() as place:
        for query in ({"sources": "rest"}, {"interval": "15m"}, {"dataset": "taker_volume"}):
            report = place.fetch(MemorySink(), **{"dataset": "open_interest"} | query)
            (line,) = report.series
            assert [gap.reason for gap in line.missing] == ["older than the exchange serves (30 days)"]
            assert line.missing[0].spans.hull == BEFORE_API
        assert not place.archive.request_log.latest


def test_what_neither_has_is_missing_for_both_reasons() -> None:
    store = MemorySink()
    with site() as place:
        report = place.fetch(store, start="2026-05-20")
        (line,) = report.series
        (gap,) = line.missing
        assert gap.reason == (
            "older than the exchange serves (30 days), and in no file of its archive that could be used"
        )
        # The archive begins with 1 June; the first row of a file is five minutes after midnight.
        assert gap.spans.hull == Span(
            span_of("2026-05-20", START).start, span_of("2026-06-01", START).start + 5 * MINUTE
        )
        seen, asked = place.count_of(FileFetched), place.asked()
        place.fetch(store, start="2026-05-20")
        assert (place.count_of(FileFetched), place.asked()) == (seen, asked)
    assert not report.complete


@pytest.mark.parametrize("sources", ["auto", "archive"])
@pytest.mark.parametrize(
    "kind", [ArchiveFaultKind.BLANK_VALUE, ArchiveFaultKind.ENDS_EARLY, ArchiveFaultKind.TEXT_VALUE]
)
def test_rows_that_a_file_lacks_are_missing_and_the_others_are_right(
    kind: ArchiveFaultKind, sources: str
) -> None:
    store = MemorySink()
    faults = ArchiveFaults(kinds=[kind], rate=1.0, keys="*-2026-06-2[24].zip")
    with site("binance-usdm", faults) as place:
        report = place.fetch(store, end="2026-06-28", sources=sources)
        expected = truth(place.market, place.series(), span_of(START, "2026-06-28"))
    (line,) = report.series
    (gap,) = line.missing
    assert gap.reason.startswith("older than the exchange serves (30 days), and in no file")
    lost = missing_rows(line)
    assert lost in {2 * 13, 2} or kind is ArchiveFaultKind.ENDS_EARLY
    days = {span.start // DAY for span in gap.spans} | {(span.end - 1) // DAY for span in gap.spans}
    assert days <= {
        moment // DAY for moment in (span_of(f"2026-06-{day}", END).start for day in range(22, 26))
    }
    held = ~np.isin(
        expected.times, np.concatenate([np.arange(*span, 5 * MINUTE) for span in _pairs(gap.spans)])
    )
    assert int(np.count_nonzero(~held)) == lost > 0
    assert_same(store.read(place.series(), span_of(START, "2026-06-28")), expected.take(held))


def _pairs(spans: object) -> list[tuple[int, int]]:
    return [(span.start, span.end) for span in spans]  # type: ignore[attr-defined]


def test_the_api_heals_what_a_file_lacks_within_its_30_days() -> None:
    store = MemorySink()
    with site("binance-usdm", ArchiveFaults(kinds=["ends_early"], rate=1.0, keys="*-2026-07-*")) as place:
        days = {"start": "2026-07-20", "end": "2026-07-23"}
        assert not place.fetch(store, **days, sources="archive").complete
        assert place.fetch(store, **days).complete
        assert_holds(store, place.market, place.series(), span_of("2026-07-20", "2026-07-23"))


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_short_gap_in_rows_of_the_api_is_found_in_files_when_the_api_has_it_no_more(dataset: str) -> None:
    """A run missed 20 minutes; a month later only the file of that day has them."""
    store = MemorySink()
    day = span_of("2026-06-24", "2026-06-25")
    with site(now="2026-06-26T12:00Z") as place:
        for start, end in (("2026-06-24", "2026-06-24T10:00Z"), ("2026-06-24T10:20Z", "2026-06-25")):
            assert place.fetch(store, dataset, start=start, end=end, sources="rest").complete
    with site() as place:
        report = place.fetch(store, dataset, start="2026-06-24", end="2026-06-25")
        assert report.complete
        assert (report.archive.files, report.archive.rows) == (1, 4)
        assert not place.asked()
        assert_holds(store, place.market, place.series(dataset), day)


def test_a_few_missing_rows_are_not_looked_for_in_every_run() -> None:
    store = MemorySink()
    faults = ArchiveFaults(kinds=["text_value"], rate=1.0, keys="*-2026-06-*")
    with site("binance-usdm", faults) as place:
        first = place.fetch(store, end="2026-06-28")
        files = place.count_of(FileFetched)
        again = place.fetch(store, end="2026-06-28")
        assert not again.complete
        assert [gap.spans for gap in again.series[0].missing] == [
            gap.spans for gap in first.series[0].missing
        ]
        assert place.count_of(FileFetched) == files
        for key in place.archive.keys("data/futures/um/daily/metrics/BTCUSDT/"):
            if key.endswith("zip"):
                place.archive.reissue(key)
        assert place.fetch(store, end="2026-06-28", sources="archive").complete
        assert_holds(store, place.market, place.series(), span_of(START, "2026-06-28"))


@pytest.mark.parametrize("until", ["2026-06-22T00:30Z", "2026-06-22T12:00Z", "2026-06-22T23:30Z"])
def test_a_store_that_was_filled_by_the_api_is_completed_by_files(until: str) -> None:
    """The days on which the API's rows begin and end are in files, too, also if they lack a few rows."""
    store = MemorySink()
    with site(now="2026-06-25T12:00Z") as place:
        held = place.fetch(store, start="2026-06-21T00:30Z", end=until, sources="rest")
    with site() as place:
        report = place.fetch(store, end="2026-06-24")
        assert_holds(store, place.market, place.series(), span_of(START, "2026-06-24"))
        assert not place.asked()
    assert report.complete
    assert held.rows_written + report.rows_written == 4 * STEPS_A_DAY


def test_an_archive_that_is_away_costs_only_what_it_alone_has() -> None:
    store = MemorySink()
    with site("binance-usdm", ArchiveFaults(kinds=["blocked"], rate=1.0)) as place:
        report = place.fetch(store)
        assert place.count_of(FileRejected)
        (line,) = report.series
        assert line.missing[0].spans.hull == BEFORE_API
        rest = Span(BEFORE_API.end, span_of(START, END).end)
        assert_holds(store, place.market, place.series(), rest)
