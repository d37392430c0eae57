"""What lies before the first row ever seen is called empty only where something else than a page says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

import marketfetch.adapter as mf
from marketfetch.engine.missing import PUBLISH_GRACE
from marketfetch.planning.absence import Evidence
from marketfetch.sinks.memory import MemorySink
from marketfetch.values.instruments import Instrument
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span, SpanSet
from marketfetch.values.times import parse_time
from tests.support.plain import Backwards, Events, Forwards, PlainExchange, PlainServer, filled, union
from tests.support.worlds import DAY, HOUR, MINUTE

NOW = parse_time("now", "2026-11-01T00:00:00Z", 0)
END = NOW - HOUR
KEPT = NOW - 5_000 * MINUTE
YEARS = NOW - 900 * DAY
SERVED = ["mark_price", "index_price"]


@pytest.mark.parametrize("dataset", SERVED)
@pytest.mark.parametrize("listed", [None, YEARS, KEPT - 3 * DAY])
@pytest.mark.parametrize("days", [1, 10, 100])
def test_older_candles_than_the_exchange_keeps_are_missing(
    dataset: str, listed: int | None, days: int
) -> None:
    """Only the newest 5,000 candles are served, and nothing is said of it, however often it is asked."""
    if listed is not None and listed > KEPT - days * DAY:
        pytest.skip("asked from after the listing only")
    start = KEPT - days * DAY
    with PlainServer(range(start - DAY, NOW, MINUTE), listed_at=listed, keeps_from=KEPT).serving() as server:
        store = MemorySink()
        report, line, _ = filled(server, dataset, store, now=NOW, interval="1m", start=start, end=END)
    assert not report.complete
    assert not line.empty
    assert union(gap.spans for gap in line.missing) == SpanSet.of(Span(start, KEPT))
    assert [gap.reason for gap in line.missing] == [
        "the exchange serves nothing before 2026-10-28T12:40:00Z; it may keep no more: start there"
    ]
    assert line.rows == (END - KEPT) // MINUTE
    assert not store.coverage([line.series])[line.series].empty


@pytest.mark.parametrize("dataset", SERVED)
def test_a_span_that_is_no_longer_kept_at_all_is_missing(dataset: str) -> None:
    start = NOW - 9 * DAY
    with PlainServer(range(YEARS, NOW, HOUR), listed_at=YEARS, keeps_from=KEPT).serving() as server:
        report, line, _ = filled(server, dataset, now=NOW, interval="1h", start=start, end=start + DAY)
    assert not report.complete
    assert not line.empty
    assert union(gap.spans for gap in line.missing) == SpanSet.of(Span(start, start + DAY))
    assert "it may keep no more" in line.missing[0].reason


def test_older_events_than_the_exchange_keeps_are_missing() -> None:
    """A chain of events has no grid, and what lies before its first one counted as covered."""
    with PlainServer(range(YEARS, NOW, 8 * HOUR), listed_at=YEARS, keeps_from=KEPT).serving() as server:
        report, line, _ = filled(server, "funding_rate", now=NOW, start=KEPT - 30 * DAY, end=END)
    assert not report.complete
    assert line.rows == 10
    assert "it may keep no more" in line.missing[0].reason
    assert line.missing[0].spans.hull.start == KEPT - 30 * DAY  # type: ignore[union-attr]


def test_events_oldest_first_are_no_other_case() -> None:
    class OldestFirst(Events):
        paginator = mf.CursorPaginator()

    class Venue(PlainExchange):
        sources: ClassVar[Sequence[type[mf.Endpoint]]] = (OldestFirst,)

    with PlainServer(range(YEARS, NOW, 8 * HOUR), listed_at=YEARS, keeps_from=KEPT).serving() as server:
        report, line, _ = filled(server, "funding_rate", kind=Venue, now=NOW, start=YEARS, end=END)
    assert not report.complete
    assert line.rows == 10
    assert line.missing[0].spans.hull.start == YEARS  # type: ignore[union-attr]


def test_a_store_that_has_older_rows_knows_that_a_hole_is_one() -> None:
    times = [time for time in range(KEPT - 9 * DAY, NOW, MINUTE) if not KEPT <= time < KEPT + DAY]
    store = MemorySink()
    server = PlainServer(times)
    with server.serving():
        filled(server, "mark_price", store, now=NOW, interval="1m", start=KEPT - DAY, end=KEPT)
        server.keeps_from = KEPT - HOUR
        report, line, _ = filled(server, "mark_price", store, now=NOW, interval="1m", start=KEPT, end=END)
    assert report.complete
    assert line.empty == SpanSet.of(Span(KEPT, KEPT + DAY))


@pytest.mark.parametrize("dataset", [*SERVED, "funding_rate"])
@pytest.mark.parametrize("lost", [50 * MINUTE, 6 * DAY], ids=str)
def test_what_a_store_has_from_earlier_does_not_show_what_the_exchange_keeps_by_now(
    dataset: str, lost: int
) -> None:
    """A store is brought up to date after weeks: the exchange has dropped the first rows since."""
    step = 10 * MINUTE if dataset == "funding_rate" else MINUTE
    server, store, start = PlainServer(range(KEPT - 20 * DAY, NOW, step)), MemorySink(), KEPT - 9 * DAY
    with server.serving():
        filled(server, dataset, store, now=KEPT - lost, interval="1m", start=start, end="now")
        server.keeps_from = KEPT
        report, line, questions = filled(server, dataset, store, now=NOW, interval="1m", start=start, end=END)
        again, _, _ = filled(server, dataset, store, now=NOW, interval="1m", start=start, end=END)
    assert not report.complete
    assert not again.complete
    assert not store.coverage([line.series])[line.series].empty
    (hole,) = union(gap.spans for gap in line.missing)
    # Events of the last minutes are not asked for: the adapter does not say when they are published.
    grace = PUBLISH_GRACE if dataset == "funding_rate" else 0
    assert hole == Span(KEPT - lost - grace, KEPT)
    assert questions < 80


@pytest.mark.parametrize("dataset", [*SERVED, "funding_rate"])
def test_rows_from_before_a_hole_show_that_the_exchange_keeps_so_much(dataset: str) -> None:
    """What is wanted begins in an outage: a row from before it is all that is needed."""
    step = 8 * HOUR if dataset == "funding_rate" else MINUTE
    times = [
        time for time in range(KEPT - 9 * DAY, NOW, step) if not KEPT - 4 * HOUR <= time < KEPT + 2 * DAY
    ]
    start = KEPT - 3 * HOUR
    with PlainServer(times, listed_at=YEARS).serving() as server:
        hole, holed, _ = filled(server, dataset, now=NOW, interval="1m", start=start, end=start + HOUR)
        report, line, _ = filled(server, dataset, now=NOW, interval="1m", start=start, end=END)
    assert hole.complete
    assert report.complete
    assert line.rows == sum(start <= time < END for time in times)
    assert holed.rows == 0


@pytest.mark.parametrize("dataset", [*SERVED, "funding_rate"])
def test_a_series_that_began_when_the_listing_says_is_complete(dataset: str) -> None:
    step = 8 * HOUR if dataset == "funding_rate" else MINUTE
    times = range(KEPT + 20 * MINUTE, NOW, step)
    with PlainServer(times, listed_at=KEPT + 3 * MINUTE + 17).serving() as server:
        report, line, _ = filled(server, dataset, now=NOW, interval="1m", start=YEARS, end=END)
        before, none, _ = filled(server, dataset, now=NOW, interval="1m", start=YEARS, end=KEPT - DAY)
    assert report.complete
    assert line.rows == sum(time < END for time in times)
    assert before.complete, "all of it lies before the listing, and rows confirm the listing"
    assert none.rows == 0


def test_a_series_that_has_ended_is_complete_where_pages_and_listing_agree() -> None:
    with PlainServer(range(YEARS, KEPT, HOUR), listed_at=YEARS, delisted_at=KEPT).serving() as server:
        report, line, asked = filled(
            server, "index_price", now=NOW, interval="1h", start=KEPT + 2 * DAY, end=KEPT + 3 * DAY
        )
    assert report.complete
    assert line.rows == 0
    assert asked <= 4


@pytest.mark.parametrize("dataset", SERVED)
def test_an_endpoint_that_declares_its_reach_is_believed_within_it(dataset: str) -> None:
    class ForwardsFor(Forwards):
        retention = 20 * DAY

    class BackwardsFor(Backwards):
        retention = 20 * DAY

    class Venue(PlainExchange):
        sources: ClassVar[Sequence[type[mf.Endpoint]]] = (ForwardsFor, BackwardsFor)

    with PlainServer(range(KEPT, NOW, MINUTE)).serving() as server:
        report, line, asked = filled(
            server, dataset, kind=Venue, now=NOW, interval="1m", start=NOW - 30 * DAY, end=END
        )
    (gap,) = line.missing
    assert gap.reason == "older than the exchange serves (20 days)"
    assert gap.spans == SpanSet.of(Span(NOW - 30 * DAY, NOW - 20 * DAY))
    assert line.empty == SpanSet.of(Span(NOW - 20 * DAY, KEPT))
    assert asked <= 47 + 25
    assert not report.complete


def test_an_endpoint_with_a_request_for_the_first_row_is_believed() -> None:
    class WithFirst(Forwards):
        def first_row_request(self, series: mf.Series, start: int) -> mf.Request:
            return self.request(mf.Slice(series, Span(start, NOW), rows=1))

    class Venue(PlainExchange):
        sources: ClassVar[Sequence[type[mf.Endpoint]]] = (WithFirst,)

    with PlainServer(range(KEPT, NOW, MINUTE)).serving() as server:
        report, line, _ = filled(
            server, "mark_price", kind=Venue, now=NOW, interval="1m", start=YEARS, end=END
        )
        report, line, _ = filled(
            server, "mark_price", kind=Venue, now=NOW, interval="1m", start=YEARS, end=YEARS + DAY
        )
    assert report.complete
    assert line.empty == SpanSet.of(Span(YEARS, YEARS + DAY))


def test_a_first_row_that_the_pages_deny_is_not_called_absent() -> None:
    """Pages come from a cache that has lost a day; the request for the first row knows better."""

    class Forgetful(PlainServer):
        def answer(self, path: str, asked: dict[str, str]) -> Any:
            self.keeps_from = KEPT if asked.get("limit") != "1" else 0
            return super().answer(path, asked)

    class WithFirst(Forwards):
        def first_row_request(self, series: mf.Series, start: int) -> mf.Request:
            return self.request(mf.Slice(series, Span(start, NOW), rows=1))

    class Venue(PlainExchange):
        sources: ClassVar[Sequence[type[mf.Endpoint]]] = (WithFirst,)

    row = KEPT - 6 * HOUR
    times = [row, *range(KEPT, NOW, MINUTE)]
    with Forgetful(times, listed_at=YEARS).serving() as server:
        report, line, _ = filled(
            server, "mark_price", kind=Venue, now=NOW, interval="1m", start=KEPT - DAY, end=END
        )
    assert not report.complete
    (gap,) = line.missing
    assert row in gap.spans
    assert line.empty == SpanSet.of(Span(KEPT - DAY, KEPT)) - gap.spans, (
        "the rest is denied by both kinds of answers"
    )
    assert "the exchange denies rows here, and gives one at" in gap.reason


STRETCH = Span(KEPT, KEPT + DAY)


@pytest.mark.parametrize(
    ("evidence", "listed", "ended", "retention", "verdict"),
    [
        (Evidence(None), None, None, None, False),
        (Evidence(None), YEARS, None, None, False),
        (Evidence(None), YEARS, KEPT, None, True),
        (Evidence(None), YEARS, KEPT + 1, None, False),
        (Evidence(None), None, None, 30 * DAY, True),
        (Evidence(None, row_before=True), None, None, None, True),
        (Evidence(None, first_row_request=True), None, None, None, True),
        (Evidence(STRETCH.end), None, None, None, False),
        (Evidence(STRETCH.end), STRETCH.end - HOUR, None, None, True),
        (Evidence(STRETCH.end), STRETCH.end + HOUR, None, None, True),
        (Evidence(STRETCH.end), STRETCH.end - HOUR - MINUTE, None, None, False),
        (Evidence(STRETCH.end), STRETCH.end + HOUR + MINUTE, None, None, False),
        (Evidence(STRETCH.end), None, KEPT - DAY, None, False),
    ],
)
def test_the_table_of_cases(
    evidence: Evidence, listed: int | None, ended: int | None, retention: int | None, *, verdict: bool
) -> None:
    instrument = Instrument("AB", "A", "B", listed_at=listed, delisted_at=ended)
    assert evidence.proves_empty(Interval.parse("1m"), STRETCH, instrument, retention=retention) is verdict
