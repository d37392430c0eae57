"""For any page each moment of a slice gets one verdict; from any server all rows come in."""

from __future__ import annotations

from itertools import pairwise

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfetch.decoding.layouts import DecodedRows
from marketfetch.decoding.validation import validate_page
from marketfetch.planning.paginators import CursorPaginator, ProgressGuard, TimeWindowPaginator
from marketfetch.protocols import PageOutcome, Paginator
from marketfetch.testing.contracts.exchange_paging import AdversarialServer, fetch_all
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Columns, Page, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

START = 1_780_272_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WINDOWS = [
    TimeWindowPaginator(),
    TimeWindowPaginator(anchor="end"),
    TimeWindowPaginator(skips_empty_candles=True),
    TimeWindowPaginator(anchor="end", max_span=10 * DAY),
]
CHAINS = [CursorPaginator(), CursorPaginator(newest_first=True)]
CANDLES = [Series.of("x", "ohlcv", "S", interval) for interval in ("1m", "1w", "1M")]
EVENTS = Series.of("x", "funding_rate", "S", "event")
NOTHING = Page(Columns.empty(EVENTS.dataset))
WINDOWED = [(paginator, series) for paginator in WINDOWS for series in CANDLES]
CHAINED = [(chain, series) for chain in CHAINS for series in (CANDLES[0], EVENTS)]


def rows_at(series: Series, times: list[int]) -> Columns:
    return Columns(np.array(times, np.int64), np.ones((len(series.dataset.columns), len(times))))


@st.composite
def slices(draw: st.DrawFn, series: Series, most: int = 12) -> Slice:
    interval = series.interval
    first = interval.shift(interval.ceil(START), draw(st.integers(-3, 3)))
    length = draw(st.integers(1, most))
    span = Span(first, interval.shift(first, length))
    return Slice(series, span, rows=draw(st.integers(1, most)), bad_answers=draw(st.integers(0, 2)))


@st.composite
def subsets(draw: st.DrawFn, part: Slice) -> SpanSet:
    grid = part.series.interval.grid(part.span)
    return part.series.interval.cover(
        grid[draw(st.lists(st.booleans(), min_size=len(grid), max_size=len(grid)))]
    )


@st.composite
def slices_with_pages(draw: st.DrawFn, series: Series) -> tuple[Slice, Page]:
    """A slice and any page: rows inside and outside of it, broken rows, rows out of order."""
    part = draw(slices(series))
    part = attrs.evolve(part, absent_once=draw(subsets(part)))
    step = series.interval.typical
    stamps = st.integers(part.span.start - 2, part.span.end + 2)
    grid = [int(each) for each in series.interval.grid(part.span)]
    times = draw(
        st.lists(st.one_of(st.sampled_from(grid), stamps, stamps.map(lambda ms: ms - step)), max_size=15)
    )
    columns = rows_at(series, times)
    if series.dataset.names[:1] == ("open",):
        columns.values[1] -= np.array(
            draw(st.lists(st.booleans(), min_size=len(times), max_size=len(times))), float
        )
    page = validate_page(DecodedRows(columns, undecodable=draw(st.integers(0, 1))), part)
    if part.bad_answers:
        same = draw(st.lists(st.booleans(), min_size=len(page.invalid), max_size=len(page.invalid)))
        suspects = tuple(row for row, kept in zip(page.invalid, same, strict=True) if kept)
        part = attrs.evolve(part, invalid_rows=suspects)
    return part, page


@pytest.mark.parametrize(("paginator", "series"), [*WINDOWED, *CHAINED], ids=str)
@settings(max_examples=40)
@given(data=st.data())
def test_every_moment_of_a_slice_is_accounted_for(
    paginator: Paginator, series: Series, data: st.DataObject
) -> None:
    part, page = data.draw(slices_with_pages(series))
    outcome = paginator.outcome(part, page)
    left = SpanSet(tuple(each.span for each in outcome.remaining))
    assert outcome.decided | left == SpanSet.of(part.span)
    assert not outcome.present & outcome.empty
    assert not outcome.given_up & (outcome.present | outcome.empty)
    assert not outcome.unusable & (outcome.present | outcome.empty | outcome.given_up)
    # A wrong row is believed when three answers have it, the same each time.
    assert outcome.unusable == series.interval.cells(
        np.array([row.time for row in outcome.rejected], np.int64)
    )
    assert not outcome.unusable or part.bad_answers == 2
    assert set(outcome.rejected) <= set(part.invalid_rows) & set(page.invalid)
    # No moment with a row is empty, and none that an earlier answer did not deny.
    assert not any(int(time) in outcome.empty for time in page.columns.times)
    if not getattr(paginator, "skips_empty_candles", False):
        assert not outcome.empty - part.absent_once
    for each in outcome.remaining:
        assert 1 <= each.rows <= part.rows
        assert not each.absent_once - SpanSet.of(each.span)
        assert each.series == part.series
    assert bool(outcome.given_up or outcome.unusable) == bool(outcome.reason)


@pytest.mark.parametrize(("paginator", "series"), WINDOWED, ids=str)
@settings(max_examples=30)
@given(data=st.data())
def test_windows_cover_a_slice_once_and_in_order(
    paginator: Paginator, series: Series, data: st.DataObject
) -> None:
    whole = data.draw(slices(series, most=40))
    parts = list(paginator.split(whole))
    assert parts[0].span.start == whole.span.start
    assert parts[-1].span.end == whole.span.end
    assert all(left.span.end == right.span.start for left, right in pairwise(parts))
    assert all(part.rows == series.interval.count(part.span) <= whole.rows for part in parts)


@pytest.mark.parametrize(
    ("interval", "days", "lengths"),
    [
        ("1h", 18, [8, 8, 2]),
        ("1d", 21, [8, 8, 5]),
        ("3d", 21, [6, 6, 6, 3]),
        ("1w", 21, [7, 7, 7]),
        ("1M", 30, [30]),
    ],
)
def test_no_window_is_longer_than_the_exchange_allows(interval: str, days: int, lengths: list[int]) -> None:
    """Eight days at most; a candle that is longer is requested alone."""
    series = Series.of("x", "ohlcv", "S", interval)
    first = series.interval.ceil(START)
    span = Span(first, series.interval.ceil(first + days * DAY))
    whole = Slice(series, span, rows=1500)
    parts = list(TimeWindowPaginator(max_span=8 * DAY).split(whole))
    assert [part.span.length // DAY for part in parts] == lengths


@pytest.mark.parametrize(("paginator", "series"), [*WINDOWED, *CHAINED[1::2]], ids=str)
@settings(max_examples=30)
@given(data=st.data())
def test_all_rows_of_any_server_are_fetched(
    paginator: Paginator, series: Series, data: st.DataObject
) -> None:
    interval = series.interval
    rows = data.draw(st.integers(1, 9))
    grid = interval.grid(Span(interval.ceil(START), interval.shift(interval.ceil(START), 30)))
    there = data.draw(st.lists(st.booleans(), min_size=30, max_size=30))
    times = grid[np.array(there)]
    span = Span(int(grid[0]), interval.shift(int(grid[-1]), 1))

    def choose(count: int) -> int:
        return data.draw(st.integers(0, count - 1))

    server = AdversarialServer(times, paginator, cap=data.draw(st.integers(1, 9)), choose=choose)
    fetched = fetch_all(paginator, Slice(series, span, rows), server.page, limit=300)
    assert fetched.columns.times.tolist() == times.tolist()
    assert np.array_equal(fetched.columns.values[0], times % 1_000_003)
    assert fetched.coverage.covered == SpanSet.of(span)
    assert not fetched.lost
    if not interval.is_event:
        assert fetched.coverage.present == interval.cover(times)


def test_a_capped_page_does_not_deny_what_lies_beyond_it() -> None:
    """A server that caps every page, and then one empty answer by mistake: nothing may be believed absent."""
    series = CANDLES[0]
    minute = 60_000
    part = Slice(series, Span(START, START + 10 * minute), rows=10)
    (rest,) = TimeWindowPaginator().outcome(part, Page(rows_at(series, [START]), received=1)).remaining
    outcome = TimeWindowPaginator().outcome(rest, Page(Columns.empty(series.dataset)))
    assert not outcome.empty
    assert [each.span for each in outcome.remaining] == [rest.span]


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_chain_asks_again_for_the_stretch_that_a_page_skipped(newest_first: bool) -> None:
    """A server that ignores the start gives sound rows, but not the next ones."""
    chain = CursorPaginator(newest_first=newest_first)
    span = Span(START, START + 100 * DAY)
    hours = [8 * 3_600_000 * n for n in range(3)]
    times = [START + ms for ms in hours] if newest_first else [START + 99 * DAY + ms for ms in hours]
    page = Page(rows_at(EVENTS, times), received=3)
    outcome = chain.outcome(Slice(EVENTS, span, rows=3), page)
    skipped = Span(times[-1], span.end) if newest_first else Span(span.start, times[0] + 1)
    assert skipped in [each.span for each in outcome.remaining]
    assert not outcome.present & SpanSet.of(skipped)
    # A row at its far end is believed at once, an empty page only if it comes twice.
    (again,) = [each for each in outcome.remaining if each.span == skipped]
    edge = times[-1] if newest_first else times[0]
    assert chain.outcome(again, Page(rows_at(EVENTS, [edge]), received=1)).present == SpanSet.of(skipped)
    (once_more,) = chain.outcome(again, NOTHING).remaining
    assert chain.outcome(once_more, NOTHING).empty == SpanSet.of(skipped)


@pytest.mark.parametrize("newest_first", [False, True])
def test_rows_outside_the_span_show_that_a_chain_began_in_the_wrong_place(
    newest_first: bool,
) -> None:
    """However short the stretch is: it may hold one event, or another row of the nearest moment."""
    chain, span = CursorPaginator(newest_first=newest_first), Span(START, START + DAY)
    times = [START + 8 * HOUR, START + 16 * HOUR]
    page = Page(rows_at(EVENTS, times), received=3, has_rows_outside=True)
    outcome = chain.outcome(Slice(EVENTS, span, rows=3), page)
    skipped = Span(times[1], span.end) if newest_first else Span(span.start, times[0] + 1)
    assert skipped in [each.span for each in outcome.remaining]
    assert not outcome.present & SpanSet.of(skipped)


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_chain_takes_in_what_a_server_gives_that_ignores_the_far_end(newest_first: bool) -> None:
    """Its last pages always have rows outside the span: only the moments without a row are given up."""
    chain, guard = CursorPaginator(newest_first=newest_first), ProgressGuard()
    times = START + 3 * HOUR * np.arange(-3, 7)
    whole = Slice(EVENTS, Span(START - HOUR, START + 10 * HOUR), rows=5)

    def answer(part: Slice) -> Page:
        given = times[times < part.span.end][-5:] if newest_first else times[times >= part.span.start][:5]
        page = validate_page(DecodedRows(rows_at(EVENTS, given.tolist())), part)
        guard.observe(chain.outcome(part, page))
        return page

    fetched = fetch_all(chain, whole, answer, limit=40)
    inside = START + 3 * HOUR * np.arange(4)
    assert fetched.columns.times.tolist() == inside.tolist()
    assert not EVENTS.interval.cover(inside) - fetched.coverage.covered
    assert fetched.lost
    assert fetched.coverage.covered | fetched.lost == SpanSet.of(whole.span)


@pytest.mark.parametrize("newest_first", [False, True])
def test_rows_outside_in_every_answer_cost_the_stretch_before_the_nearest_row(
    newest_first: bool,
) -> None:
    chain, span = CursorPaginator(newest_first=newest_first), Span(START, START + DAY)
    times = [START + 8 * HOUR, START + 16 * HOUR]
    page = Page(rows_at(EVENTS, times), {"outside the window": 1}, received=3, has_rows_outside=True)
    part = Slice(EVENTS, span, rows=4)
    skipped = Span(times[1], span.end) if newest_first else Span(span.start, times[0] + 1)
    for bad_answers in range(2):
        outcome = chain.outcome(attrs.evolve(part, bad_answers=bad_answers), page)
        (again,) = [each for each in outcome.remaining if each.span == skipped]
        assert again.bad_answers == bad_answers + 1
        assert not outcome.given_up
    outcome = chain.outcome(attrs.evolve(part, bad_answers=2), page)
    assert not EVENTS.interval.cover(page.columns.times) - outcome.present
    before = Span(times[1] + 1, span.end) if newest_first else Span(span.start, times[0])
    assert outcome.given_up == SpanSet.of(before)
    assert "1 outside the window" in outcome.reason


@pytest.mark.parametrize("paginator", [TimeWindowPaginator(), TimeWindowPaginator(anchor="end")])
def test_a_row_refutes_the_answer_that_denied_it(paginator: TimeWindowPaginator) -> None:
    """An empty page by mistake, a page cut short, then another empty page: two wrong denials."""
    series = CANDLES[0]
    part = Slice(series, Span(START, START + 10 * MINUTE), rows=10)
    (again,) = paginator.outcome(part, NOTHING).remaining
    near = [START] if paginator.anchor == "start" else [START + 9 * MINUTE]
    (far,) = paginator.outcome(again, Page(rows_at(series, near), received=1)).remaining
    assert not paginator.outcome(far, NOTHING).empty


def test_a_row_refutes_the_answer_that_denied_the_rest_of_a_chain() -> None:
    part = Slice(EVENTS, Span(START, START + 10 * DAY), rows=2)
    (again,) = CursorPaginator().outcome(part, NOTHING).remaining
    page = Page(rows_at(EVENTS, [START, START + 8 * HOUR]), received=2)
    (rest,) = CursorPaginator().outcome(again, page).remaining
    assert not CursorPaginator().outcome(rest, NOTHING).empty


def test_after_a_page_with_rows_bad_answers_are_counted_anew() -> None:
    part = Slice(EVENTS, Span(START, START + 10 * DAY), rows=2, bad_answers=2)
    (rest,) = CursorPaginator().outcome(part, Page(rows_at(EVENTS, [START]), received=1)).remaining
    assert rest.bad_answers == 0
    window = Slice(CANDLES[0], Span(START, START + 10 * MINUTE), rows=10, bad_answers=2)
    (far,) = TimeWindowPaginator().outcome(window, Page(rows_at(CANDLES[0], [START]), received=1)).remaining
    assert far.bad_answers == 0


def test_unusable_rows_are_given_up_after_three_answers() -> None:
    series = CANDLES[0]
    part = Slice(series, Span(START, START + 60_000), rows=1)
    for bad_answers in range(3):
        page = Page(Columns.empty(series.dataset), {"impossible": 1}, SpanSet.of(part.span), received=1)
        outcome = TimeWindowPaginator().outcome(attrs.evolve(part, bad_answers=bad_answers), page)
        assert bool(outcome.given_up) == (bad_answers == 2)
    assert "1 impossible" in outcome.reason


def test_interval_of_a_slice_may_be_a_calendar_month() -> None:
    month = Interval.parse("1M")
    year = Span(month.ceil(START), month.shift(month.ceil(START), 12))
    parts = list(TimeWindowPaginator().split(Slice(CANDLES[2], year, rows=5)))
    assert [part.rows for part in parts] == [5, 5, 2]


WRONG = RejectedRow(START + 2 * MINUTE, "impossible", "[1]")


def asked(paginator: Paginator, part: Slice, answers: list[Page]) -> list[PageOutcome]:
    """Return the outcome of each answer; each is about the first slice that the one before it leaves."""
    outcomes = []
    for page in answers:
        outcomes.append(paginator.outcome(part, page))
        part = next(iter(outcomes[-1].remaining), part)
    return outcomes


def wrong_page(series: Series, *rows: RejectedRow) -> Page:
    cells = series.interval.cells(np.array([row.time for row in rows], np.int64))
    return Page(Columns.empty(series.dataset), {"impossible": len(rows)}, cells, len(rows), invalid=rows)


@pytest.mark.parametrize(
    ("answers", "usable"),
    [
        ([[WRONG], [WRONG], [WRONG]], False),
        ([[WRONG], [attrs.evolve(WRONG, raw="[2]")], [WRONG]], True),
        ([[WRONG], [attrs.evolve(WRONG, time=WRONG.time + 1)], [WRONG]], True),
        ([[WRONG], [WRONG], [WRONG, attrs.evolve(WRONG, time=WRONG.time + 1)]], True),
    ],
)
def test_a_wrong_row_is_believed_when_three_answers_agree(
    answers: list[list[RejectedRow]], *, usable: bool
) -> None:
    cell = Span(WRONG.time, WRONG.time + MINUTE)
    part = Slice(CANDLES[0], cell, rows=1)
    pages = [wrong_page(CANDLES[0], *rows) for rows in answers]
    last = asked(TimeWindowPaginator(), part, pages)[-1]
    assert (last.unusable, last.given_up) == (
        (SpanSet(), SpanSet.of(cell)) if usable else (SpanSet.of(cell), SpanSet())
    )
    assert ("its answers differ" in last.reason) == usable


def test_a_page_with_rows_outside_the_window_repeats_no_wrong_row() -> None:
    part = Slice(CANDLES[0], Span(WRONG.time, WRONG.time + MINUTE), rows=1)
    pages = [wrong_page(CANDLES[0], WRONG)] * 2 + [
        attrs.evolve(wrong_page(CANDLES[0], WRONG), has_rows_outside=True)
    ]
    assert not asked(TimeWindowPaginator(), part, pages)[-1].unusable


@pytest.mark.parametrize("paginator", [TimeWindowPaginator(), TimeWindowPaginator(anchor="end")])
def test_wrong_rows_deny_nothing_beyond_them(paginator: TimeWindowPaginator) -> None:
    """A server that caps its pages, and whose rows at that end are all off the grid."""
    series = CANDLES[0]
    part = Slice(series, Span(START, START + 10 * MINUTE), rows=10)
    late = [START + 5 * MINUTE + 7, START + 6 * MINUTE + 7]
    page = validate_page(
        DecodedRows(rows_at(series, late)), attrs.evolve(part, absent_once=SpanSet.of(part.span))
    )
    outcome = paginator.outcome(attrs.evolve(part, absent_once=SpanSet.of(part.span)), page)
    far = Span(START + 7 * MINUTE, START + 10 * MINUTE)
    near = Span(START, START + 5 * MINUTE)
    beyond, between = (far, near) if paginator.anchor == "start" else (near, far)
    assert outcome.empty == SpanSet.of(between)
    assert beyond in [each.span for each in outcome.remaining]
