"""Where a process goes on while others fetch the same series: gaps, and the choice among them."""

from __future__ import annotations

from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.planning.batches import FetchTask
from marketfetch.planning.paginators import CursorPaginator, TimeWindowPaginator
from marketfetch.planning.shared_order import FileOrder, Pace, SharedOrder, UnfetchedSpan, unfetched_spans
from marketfetch.sharing import ProcessRank
from marketfetch.values.series import Series
from marketfetch.values.spans import MINUTE, Span, SpanSet

SERIES = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")
EVENTS = Series.of("binance-usdm", "funding_rate", "BTCUSDT", "event")
minutes = st.sets(st.integers(0, 40), max_size=30).map(lambda found: span_set(*sorted(found)))


def span(first: int, end: int) -> Span:
    return Span(first * MINUTE, end * MINUTE)


def span_set(*found: int) -> SpanSet:
    return SpanSet.of(*(span(minute, minute + 1) for minute in found))


def task(missing: SpanSet, series: Series = SERIES) -> FetchTask:
    paginator = CursorPaginator() if series.interval.is_event else TimeWindowPaginator()
    return FetchTask(series, missing, paginator, 100)


def pace(now: float, batch: float = 0.1) -> Pace:
    return Pace(now, batch, in_flight=5)


def order() -> SharedOrder:
    return SharedOrder(shares=1)


@given(minutes, minutes)
def test_gaps_hold_what_is_left_and_nothing_that_is_taken(missing: SpanSet, taken: SpanSet) -> None:
    gaps = list(unfetched_spans(task(missing), taken))
    held = SpanSet.of(*(gap.span for gap in gaps))
    assert held & missing == missing - taken
    assert not held & missing & taken
    assert len(held) <= len(gaps)


@given(minutes)
def test_moments_that_were_never_missing_divide_no_gap(missing: SpanSet) -> None:
    assert len(list(unfetched_spans(task(missing), SpanSet()))) == bool(missing)


def test_processes_that_begin_together_begin_at_different_places() -> None:
    names = [attrs.evolve(SERIES, symbol=name) for name in "ABCD"]
    gaps = [UnfetchedSpan(task(SpanSet.of(span(0, 1000)), series), span(0, 1000)) for series in names]
    starts = []
    for before in range(8):
        first, *others = order().choose(gaps, ProcessRank(before, 7), pace(0.0, 0.1))
        assert others == gaps[names.index(first.task.series) + 1 :], "the part goes on to the end of the line"
        starts.append(names.index(first.task.series) * 1000 + first.span.start // MINUTE)
    assert starts[0] == 0
    distances = [late - early for early, late in pairwise([*sorted(starts), 4000])]
    assert min(distances) > 4000 / 8 / 2, starts


def test_a_piece_of_the_line_where_nobody_works_is_taken_from_its_beginning() -> None:
    chooser, gap = order(), UnfetchedSpan(task(SpanSet.of(span(0, 1000))), span(0, 1000))
    first = attrs.evolve(gap, span=span(0, 300))
    assert chooser.choose([first], ProcessRank(), pace(0.0, 0.1)) == [first]
    assert chooser.choose([gap], ProcessRank(), pace(0.9, 0.1)) != [gap], "somebody may have just ended there"
    assert chooser.choose([gap], ProcessRank(), pace(1.0, 0.1)) == [gap]
    assert chooser.choose([gap], ProcessRank(), pace(1.0, 1.0)) != [gap], "batches that take long end seldom"


def test_where_somebody_works_the_rest_is_divided_while_it_is_long() -> None:
    chooser, other = order(), attrs.evolve(SERIES, symbol="ETHUSDT")
    whole, next_one = (
        task(SpanSet.of(span(0, 1000))),
        UnfetchedSpan(task(SpanSet.of(span(0, 300)), other), span(0, 300)),
    )
    chooser.choose([UnfetchedSpan(whole, span(0, 1000)), next_one], ProcessRank(), pace(0.0, 0.1))
    # Nobody works at the beginning of the other series: it belongs to the piece before it.
    rest = chooser.choose([UnfetchedSpan(whole, span(500, 1000)), next_one], ProcessRank(), pace(1.0, 0.1))
    assert rest == [UnfetchedSpan(whole, span(900, 1000)), next_one]
    assert chooser.choose([UnfetchedSpan(whole, span(981, 1000))], ProcessRank(), pace(2.0, 0.1)) == ()
    assert chooser.choose([UnfetchedSpan(whole, span(981, 1000))], ProcessRank(), pace(3.0, 0.1)) == [
        UnfetchedSpan(whole, span(981, 1000))
    ]


def test_processes_that_look_for_work_at_once_choose_different_places() -> None:
    names = [attrs.evolve(SERIES, symbol=name) for name in "ABC"]
    gaps = [UnfetchedSpan(task(SpanSet.of(span(0, 1000)), series), span(0, 1000)) for series in names]
    moved = [attrs.evolve(gap, span=span(100, 1000)) for gap in gaps]
    found = set()
    for before in range(6):
        chooser, rank = order(), ProcessRank(before, 5)
        chooser.choose(gaps, rank, pace(0.0))
        first, *_ = chooser.choose(moved, rank, pace(0.5))
        assert span(300, 800).start < first.span.start < span(300, 800).end
        found.add((first.task.series.symbol, first.span.start))
    assert len(found) == 6


def test_of_processes_that_look_for_work_one_begins_where_nobody_works() -> None:
    gap = UnfetchedSpan(task(SpanSet.of(span(0, 40))), span(0, 40))
    for before, begins in ((0, 1.0), (1, 1.5), (2, 2.0)):
        chooser, rank = order(), ProcessRank(before, 2)
        chooser.choose([attrs.evolve(gap, span=span(0, 5))], rank, pace(0.0))
        chooser.choose([gap], rank, pace(0.0))
        assert chooser.choose([gap], rank, pace(begins - 0.01)) != [gap]
        assert chooser.choose([gap], rank, pace(begins)) == [gap]


def test_the_more_processes_there_are_the_longer_is_a_piece_that_is_divided() -> None:
    gap = UnfetchedSpan(task(SpanSet.of(span(0, 40))), span(0, 40))
    for others, is_divided in ((1, True), (4, True), (5, False)):
        chooser = order()
        chooser.choose([attrs.evolve(gap, span=span(0, 5))], ProcessRank(0, others), pace(0.0))
        assert bool(chooser.choose([gap], ProcessRank(0, others), pace(0.5))) == is_divided


def test_files_on_their_way_at_once_meet_another_process_once() -> None:
    files = iter(order := FileOrder(range(10), before=0))
    on_their_way = [(next(files), order.at_the_end) for _ in range(2)]
    for _, at_the_end in on_their_way:  # both are stored
        order.meet(at_the_end=at_the_end)
    last = next(files)
    assert (last, order.at_the_end) == (9, True)
    order.meet(at_the_end=True)
    assert list(files) == [2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_chain_of_pages_is_never_divided(before: int) -> None:
    chooser, whole = order(), task(SpanSet.of(span(0, 1000)), EVENTS)
    assert chooser.choose([UnfetchedSpan(whole, span(0, 1000))], ProcessRank(before, 2), pace(0.0, 0.1)) == [
        UnfetchedSpan(whole, span(0, 1000))
    ]
    assert not chooser.choose([UnfetchedSpan(whole, span(500, 1000))], ProcessRank(before, 2), pace(0.1, 0.1))
