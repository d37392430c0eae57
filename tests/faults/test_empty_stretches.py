"""An empty stretch of any length, before, amid or after the rows of a series, costs a handful of requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, ClassVar

import anyio
import attrs
import pytest

import marketfetch.adapter as mf
from marketfetch.events import Event, Heartbeat, PageFetched, RoundStarted
from marketfetch.reports import Report, SeriesReport
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import (
    FaultKind,
    Faults,
    GeneratedMarket,
    MarketInstrument,
    SimulatedExchange,
    SimulatorOptions,
)
from marketfetch.values.intervals import Interval
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span, SpanSet
from marketfetch.values.times import parse_time
from tests.support.plain import Backwards, Events, Forwards, PlainExchange, PlainServer
from tests.support.plain import filled as run_plain
from tests.support.worlds import DAY, HOUR, MINUTE, World, run, span_of

pytestmark = pytest.mark.usefixtures("unpaced_okx")

NOW = parse_time("now", "2026-11-01T00:00:30Z", 0)
YEAR = span_of("2025-06-03T07:21:00Z", "2026-06-03T09:33:00Z")
HANDFUL = 12
KLINES = [
    ("binance-spot", "ohlcv"),
    ("binance-usdm", "ohlcv"),
    ("binance-usdm", "mark_price"),
    ("binance-usdm", "index_price"),
    ("binance-usdm", "premium_index"),
    ("okx", "ohlcv"),
]


@attrs.frozen
class Filled:
    """What a run has found, and how many requests for rows it has made beside those that brought new ones."""

    report: Report
    line: SeriesReport
    beside: int
    events: list[Event]


def filled(
    venue: str,
    dataset: str,
    span: Span,
    *,
    gaps: Iterable[Span] = (),
    listed: int = 0,
    delisted: int | None = None,
    interval: str = "1m",
    faults: Faults | None = None,
    okx_page: int = 100,
    concurrency: int = 4,
) -> Filled:
    """Run a query against a market with gaps, check every row and every empty moment, and count requests."""
    name = "ETHUSD_PERP" if venue == "binance-coinm" else "ABUSDT"
    instrument = MarketInstrument.parse(name, listed, delisted)
    market = GeneratedMarket([instrument], seed=4, gaps=gaps)
    options = SimulatorOptions(
        now=lambda: NOW, limits=None, faults=faults, log_size=100_000, okx_history_limit=okx_page
    )
    with SimulatedExchange(market, options) as exchange:
        world = World(
            exchange, venue, settings=Settings(clock=lambda: NOW, concurrency=concurrency, heartbeat=0.02)
        )
        store = MemorySink()
        symbol = "AB-USDT" if venue == "okx" else name
        query: dict[str, Any] = {"symbols": symbol, "datasets": dataset, "interval": interval}
        report = run(world.pipeline(store, **query, start=span.start, end=span.end))
        side = ("/time", "/exchangeInfo", "/instruments")
        asked = sum(not seen.path.endswith(side) for seen in exchange.request_log.latest)
        asked -= sum(page.rows > 0 for page in world.events_of(PageFetched))
    (line,) = report.series
    life = SpanSet.of(Span(line.series.interval.floor(listed), delisted or NOW)) - SpanSet.of(*gaps)
    assert line.empty == SpanSet.of(line.wanted) - life
    rows = store.read(line.series, line.wanted)
    assert SpanSet.of(line.wanted) - line.series.interval.cover(rows.times) == line.empty
    return Filled(report, line, asked, world.events)


STATISTICS = ["open_interest", "long_short_ratio", "taker_volume"]


@cache
def usual(venue: str, dataset: str, interval: str = "1m") -> int:
    """Return the requests beside the pages of a run without an empty stretch."""
    span = Span(NOW - 30_000 - 4 * DAY, NOW - 30_000 - 3 * DAY)
    return filled(venue, dataset, span, interval=interval).beside


@pytest.mark.parametrize(("venue", "dataset"), KLINES)
def test_a_year_without_rows_amid_a_series(venue: str, dataset: str) -> None:
    found = filled(venue, dataset, Span(YEAR.start - 2 * DAY, YEAR.end + 2 * DAY), gaps=[YEAR])
    assert found.report.complete
    assert found.report.rows_crossed >= (YEAR.length - DAY) // MINUTE
    assert found.beside <= HANDFUL + usual(venue, dataset)
    planned, beats = 0, []
    for event in found.events:
        planned += event.rows if isinstance(event, RoundStarted) else 0
        if isinstance(event, Heartbeat) and planned:
            beats.append(event.rows_planned + event.rows_crossed - planned)
    assert beats
    assert not any(beats), "each open time is either planned or crossed"


@pytest.mark.parametrize("concurrency", [1, 4, 20, 50])
@pytest.mark.parametrize("venue", ["binance-spot", "binance-usdm", "binance-coinm", "okx"])
def test_the_requests_in_flight_do_not_end_in_a_gap(venue: str, concurrency: int) -> None:
    """One page goes ahead in a gap, wherever in a page and in a longer candle the gap begins and ends."""
    for into in (0, 611 * MINUTE):
        gap = Span(YEAR.start + into, YEAR.end + into)
        span = Span(YEAR.start - 2 * DAY, YEAR.end + 2 * DAY)
        begins = YEAR.start - 9 * DAY
        found = filled(venue, "ohlcv", span, gaps=[gap], listed=begins, concurrency=concurrency, okx_page=300)
        assert found.report.complete
        assert found.beside <= HANDFUL


@pytest.mark.parametrize("venue", ["binance-usdm", "okx"])
def test_a_long_series_without_gaps_costs_one_more_request(venue: str) -> None:
    """Its pages are in flight side by side, as ever: longer candles show no gap, and nothing waits."""
    pages = 30 if venue == "okx" else 130
    size = 300 if venue == "okx" else 499
    span = Span(YEAR.start, YEAR.start + pages * size * MINUTE)
    found = [
        filled(venue, "ohlcv", span, listed=YEAR.start - 9 * DAY, concurrency=each, okx_page=300).beside
        for each in (1, 20)
    ]
    assert found[1] - found[0] == 1


def test_longer_candles_that_are_wrong_hide_no_row() -> None:
    """The candles lack months that have rows: the first page there shows that, and the others go on."""
    times = range(YEAR.start, YEAR.start + 12 * DAY, MINUTE)
    with Forgetful(times, listed_at=YEAR.start).serving() as server:
        report, line, asked = run_plain(
            server, "mark_price", now=NOW, interval="1m", start=times.start, end=times.stop, concurrency=20
        )
    assert report.complete
    assert line.rows == len(times)
    assert not line.empty
    assert asked <= -(-len(times) // 100) + 10


@pytest.mark.parametrize("dataset", STATISTICS)
def test_weeks_without_statistics(dataset: str) -> None:
    hole = Span(NOW - 30_000 - 27 * DAY - 35 * MINUTE, NOW - 30_000 - 3 * DAY)
    span = Span(hole.start - DAY, hole.end + DAY)
    found = filled("binance-usdm", dataset, span, gaps=[hole], interval="5m", concurrency=4)
    assert found.report.complete
    # Of fourteen pages no longer candles are asked beforehand: if the last of four pages in flight is denied
    # first, the three before it are each requested a second time.
    assert found.beside <= HANDFUL + 3 + usual("binance-usdm", dataset, "5m")


@pytest.mark.parametrize(("venue", "dataset"), KLINES)
def test_a_symbol_that_was_listed_last_week(venue: str, dataset: str) -> None:
    found = filled(venue, dataset, span_of("2020-01-01", "2026-10-31"), listed=NOW - 7 * DAY)
    assert found.report.complete
    assert found.beside <= HANDFUL


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(("venue", "dataset"), KLINES)
def test_the_years_after_the_last_row(venue: str, dataset: str, *, announced: bool) -> None:
    """The listing says when the symbol ended, or it says nothing and the rows simply end."""
    end = YEAR.start
    ended: dict[str, Any] = {"delisted": end} if announced else {"gaps": [Span(end, NOW + DAY)]}
    found = filled(venue, dataset, Span(end - 2 * DAY, NOW - 30_000 - DAY), **ended)
    assert found.report.complete
    assert found.beside <= HANDFUL + usual(venue, dataset)


@pytest.mark.parametrize(("venue", "interval"), [("binance-spot", "1m"), ("okx", "15m")])
def test_many_holes_of_many_lengths(venue: str, interval: str) -> None:
    start, step = NOW - 30_000 - 300 * DAY, Interval.parse(interval).typical
    gaps = [Span(start + n * 600 * step, start + n * (600 + 14 * n) * step) for n in range(1, 24)]
    assert filled(
        venue, "ohlcv", Span(start, gaps[-1].end + DAY), gaps=gaps, interval=interval
    ).report.complete


def test_an_hour_without_rows_costs_what_it_did() -> None:
    """Small holes are denied by a second page, as ever; so is a page that is short of the end."""
    hole = Span(YEAR.start, YEAR.start + HOUR)
    for venue, dataset in KLINES:
        found = filled(venue, dataset, Span(hole.start - 5 * DAY, hole.end + 5 * DAY), gaps=[hole])
        # The page that has the hole, OKX cuts pages, and longer candles of ten days show no gap.
        assert found.beside <= usual(venue, dataset) + 3 + 1
        assert not found.report.rows_crossed


@pytest.mark.parametrize(
    "kinds", [[FaultKind.EMPTY_PAGE], [FaultKind.EMPTY_PAGE, FaultKind.SHORT_PAGE]], ids=len
)
@pytest.mark.parametrize("rate", [0.2, 1.0])
@pytest.mark.parametrize("venue", ["binance-spot", "binance-usdm", "okx"])
def test_a_server_that_is_empty_once_hides_no_row(venue: str, rate: float, kinds: list[FaultKind]) -> None:
    """Each question may be answered wrongly once: pages, first rows and windows of a year alike."""
    hole = Span(YEAR.start, YEAR.start + 10 * DAY)
    span = Span(hole.start - DAY, hole.end + DAY)
    for seed in range(3):
        faults = Faults(rate=rate, kinds=kinds, seed=seed)
        found = filled(venue, "ohlcv", span, gaps=[hole], faults=faults, okx_page=300)
        assert found.report.complete


@pytest.mark.parametrize("venue", ["binance-spot", "okx"])
def test_a_run_that_ends_inside_a_hole_goes_on_behind_it(venue: str) -> None:
    """The hole is durable by itself: the next run asks for what is behind it, and not for the hole again."""
    span = Span(YEAR.start - 2 * DAY, YEAR.end + 2 * DAY)
    market = GeneratedMarket([MarketInstrument.parse("ABUSDT", 0)], seed=4, gaps=[YEAR])
    symbol, store = "AB-USDT" if venue == "okx" else "ABUSDT", MemorySink()
    with SimulatedExchange(market, SimulatorOptions(now=lambda: NOW, limits=None)) as exchange:
        world = World(exchange, venue, settings=Settings(clock=lambda: NOW, concurrency=2))
        query: dict[str, Any] = {"symbols": symbol, "start": span.start, "end": span.end}

        async def ended() -> None:
            async for batch in world.pipeline(store, **query):
                if batch.coverage.empty.length > YEAR.length / 2:
                    return

        anyio.run(ended)
        before = exchange.request_log.total
        report = run(world.pipeline(store, **query))
        asked = exchange.request_log.total - before
        assert report.complete
        assert asked < 90
        series = report.series[0].series
        assert report.series[0].empty == SpanSet.of(YEAR)
        assert len(store.read(series, span)) == (span.length - YEAR.length) // MINUTE


class Aggregating(PlainServer):
    """A longer candle exists if it has a row."""

    def answer(self, path: str, asked: dict[str, str]) -> Any:
        if path == "/listing" or asked["step"] in {"1m", "event"}:
            return super().answer(path, asked)
        step = Interval.parse(asked["step"])
        candles = PlainServer(sorted({step.floor(time) for time in self.times}))
        rows = candles.answer(path, asked)
        self.questions += candles.questions
        return rows


class Forgetful(Aggregating):
    """Its longer candles lack a week of rows."""

    def answer(self, path: str, asked: dict[str, str]) -> Any:
        lost = Span(YEAR.start + 3 * DAY, YEAR.start + 10 * DAY)
        rows = super().answer(path, asked)
        longer = asked.get("step", "1m") != "1m"
        return [row for row in rows if row[0] not in lost] if longer else rows


class OldestFirst(Events):
    paginator = mf.CursorPaginator()


class OldestFirstVenue(PlainExchange):
    sources: ClassVar[Sequence[type[mf.Endpoint]]] = (Forwards, Backwards, OldestFirst)


@pytest.mark.parametrize("kind", [PlainExchange, OldestFirstVenue])
@pytest.mark.parametrize("dataset", ["mark_price", "index_price", "funding_rate"])
@pytest.mark.parametrize("tail", [False, True])
def test_an_exchange_without_a_request_for_the_first_row(
    kind: type[PlainExchange], dataset: str, *, tail: bool
) -> None:
    """Pages filled from the start, from the end, and chains of events in both directions."""
    step = 8 * HOUR if dataset == "funding_rate" else MINUTE
    before, after = Span(YEAR.start - DAY, YEAR.start), Span(YEAR.end, YEAR.end + DAY)
    times = [*range(before.start, before.end, step), *([] if tail else range(after.start, after.end, step))]
    with Aggregating(times, listed_at=before.start).serving() as server:
        report, line, asked = run_plain(
            server, dataset, kind=kind, now=NOW, interval="1m", start=before.start, end=after.end
        )
    assert report.complete
    assert line.rows == len(times)
    assert asked - -(-len(times) // 100) <= HANDFUL + 2 * 20  # twenty in flight, some of them asked again


class TwoFaced(PlainServer):
    """Its window of one row has a row where no page has one."""

    def answer(self, path: str, asked: dict[str, str]) -> Any:
        hidden = Span(YEAR.start, YEAR.start + DAY)
        rows = super().answer(path, asked)
        return [row for row in rows if row[0] not in hidden] if asked.get("limit", "1") != "1" else rows


def test_pages_that_deny_what_another_answer_has_are_given_up() -> None:
    span = Span(YEAR.start - DAY, YEAR.start + 8 * DAY)
    with TwoFaced(range(span.start, span.end + DAY, MINUTE), listed_at=0).serving() as server:
        report, line, asked = run_plain(
            server, "mark_price", now=NOW, interval="1m", start=span.start, end=span.end, concurrency=1
        )
    assert not report.complete
    assert line.rows == 8 * DAY // MINUTE
    # The last page of the day has the first rows of the next one: its hole is a small one.
    assert line.empty == SpanSet.of(Span(YEAR.start + 1360 * MINUTE, YEAR.start + DAY))
    assert all("the exchange denies rows here, and gives one at" in gap.reason for gap in line.missing)
    assert asked <= 130 + 2 * 16 + 2
