"""Plans cover every gap once, lazily and side by side; page sizes follow what holds the run back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.planning.batches import BatchSizing, Capacity, FetchTask, choose_page_size, plan_batches
from marketfetch.planning.paginators import CursorPaginator, TimeWindowPaginator
from marketfetch.values.http import Cost, LimitPool
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

START = 1_780_272_000_000
MINUTES = Series.of("x", "ohlcv", "A", "1m")
WEIGHT = LimitPool("weight", capacity=2400, period=60_000)


@st.composite
def tasks(draw: st.DrawFn, number: int) -> FetchTask:
    name = draw(st.sampled_from(["1m", "1w", "1M", "event"]))
    dataset = "funding_rate" if name == "event" else "ohlcv"
    series = Series.of("x", dataset, f"S{number}", name)
    first = series.interval.ceil(START)
    pieces = draw(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=4))
    missing = SpanSet(
        tuple(
            Span(series.interval.shift(first, skip), series.interval.shift(first, skip + length))
            for skip, length in pieces
        )
    )
    paginator = CursorPaginator() if series.interval.is_event else TimeWindowPaginator()
    return FetchTask(series, missing, paginator, draw(st.integers(1, 20)))


@st.composite
def gap_lists(draw: st.DrawFn) -> list[FetchTask]:
    return [draw(tasks(number)) for number in range(draw(st.integers(0, 4)))]


@given(gap_lists(), st.integers(1, 100))
def test_every_gap_is_covered_once(wanted: Sequence[FetchTask], batch_rows: int) -> None:
    batch_plans = list(plan_batches(wanted, BatchSizing(batch_rows)))
    assert len({batch_plan.id for batch_plan in batch_plans}) == len(batch_plans)
    for task in wanted:
        parts = [
            part
            for batch_plan in batch_plans
            if batch_plan.series == task.series
            for part in batch_plan.slices
        ]
        assert SpanSet(tuple(part.span for part in parts)) == task.missing
        assert sum(part.span.length for part in parts) == task.missing.length
        assert all(1 <= part.rows <= task.page_size for part in parts)
    for batch_plan in batch_plans:
        assert {part.batch_plan for part in batch_plan.slices} == {batch_plan.id}
        if not batch_plan.series.interval.is_event:
            size = next(task.page_size for task in wanted if task.series == batch_plan.series)
            assert sum(part.rows for part in batch_plan.slices) <= max(batch_rows, size)


@given(gap_lists(), st.integers(1, 100), st.integers(1, 10**9))
def test_no_batch_crosses_a_border_further_than_to_the_next_row(
    wanted: Sequence[FetchTask], batch_rows: int, length: int
) -> None:
    def partition(series: Series, moment: int) -> Span:
        return Span(moment - moment % length, moment - moment % length + length)

    batch_plans = list(plan_batches(wanted, BatchSizing(batch_rows, partition)))
    for task in wanted:
        parts = [
            part
            for batch_plan in batch_plans
            if batch_plan.series == task.series
            for part in batch_plan.slices
        ]
        assert SpanSet(tuple(part.span for part in parts)) == task.missing
        assert sum(part.span.length for part in parts) == task.missing.length
    for batch_plan in batch_plans:
        if not batch_plan.series.interval.is_event:
            start, end = batch_plan.slices[0].span.start, batch_plan.slices[-1].span.end
            assert len(batch_plan.slices) == 1 or end <= batch_plan.series.interval.ceil(
                partition(batch_plan.series, start).end
            )


def test_all_series_advance_side_by_side() -> None:
    span = Span(START, START + 1000 * 60_000)
    wanted = [
        FetchTask(Series.of("x", "ohlcv", symbol, "1m"), SpanSet.of(span), TimeWindowPaginator(), 10)
        for symbol in "ABC"
    ]
    assert [
        batch_plan.series.symbol for batch_plan in islice(plan_batches(wanted, BatchSizing(100)), 6)
    ] == list("ABCABC")


def test_a_plan_of_decades_is_made_as_it_is_used() -> None:
    forever = FetchTask(
        MINUTES, SpanSet.of(Span(START, START + 10**15 // 60_000 * 60_000)), TimeWindowPaginator(), 10
    )
    first = next(plan_batches([forever], BatchSizing(100)))
    assert len(first.slices) == 10


def test_rows_of_events_are_a_guess_of_one_page_each() -> None:
    events = Series.of("x", "funding_rate", "A", "event")
    spans = SpanSet.of(Span(0, 10), Span(20, 30))
    assert FetchTask(events, spans, CursorPaginator(), 1000).rows == 2000
    assert FetchTask(MINUTES, SpanSet.of(Span(START, START + 600_000)), TimeWindowPaginator(), 100).rows == 10


def tiers(rows: int) -> Cost:
    return Cost(
        WEIGHT, next((weight for below, weight in ((100, 1), (500, 2), (1001, 5)) if rows < below), 10)
    )


@given(st.integers(1, 10**9), st.integers(1, 500), st.integers(1, 1000), st.floats(0.001, 3))
def test_no_other_page_size_costs_less_and_waits_less(
    rows: int, egresses: int, concurrency: int, latency: float
) -> None:
    sizes = (99, 499, 1000, 1500)
    chosen = choose_page_size(sizes, tiers, rows, Capacity(egresses, concurrency, latency))
    assert chosen in sizes

    def load(size: int) -> tuple[int, int]:
        requests = -(-rows // size)
        return requests * tiers(size).weight, -(-requests // concurrency)

    weight, turns = load(chosen)
    # Fewer turns may hold larger pages, whose transfer takes longer: compare only what is clear.
    assert not any(load(size)[0] < weight and load(size)[1] < turns and size <= chosen for size in sizes)


@pytest.mark.parametrize(
    ("rows", "capacity", "expected"),
    [
        (10**8, Capacity(1, 64, 0.1), 499),  # weight is what is short
        (10_000, Capacity(100, 4, 0.3), 1500),  # round trips are
    ],
)
def test_the_bottleneck_decides(rows: int, capacity: Capacity, expected: int) -> None:
    assert choose_page_size((99, 499, 1000, 1500), tiers, rows, capacity) == expected


def test_candles_of_a_day_are_not_asked_year_by_year() -> None:
    def year(series: Series, moment: int) -> Span:
        first = moment - moment % (365 * 86_400_000)
        return Span(first, first + 365 * 86_400_000)

    days = Series.of("x", "ohlcv", "A", "1d")
    task = FetchTask(days, SpanSet.of(Span(0, 3000 * 86_400_000)), TimeWindowPaginator(), 1500)
    assert [len(batch_plan.slices) for batch_plan in plan_batches([task], BatchSizing(45_000, year))] == [
        1,
        1,
    ]


@given(gap_lists(), st.integers(1, 100), st.data())
def test_no_batch_begins_in_a_stretch_that_was_crossed_since(
    wanted: Sequence[FetchTask], batch_rows: int, data: st.DataObject
) -> None:
    crossed: dict[Series, SpanSet] = {}
    planned = {task.series: SpanSet() for task in wanted}
    for batch in plan_batches(wanted, BatchSizing(batch_rows), lambda series: crossed.get(series, SpanSet())):
        span = SpanSet.of(*(part.span for part in batch.slices))
        assert span.spans[0].start not in crossed.get(batch.series, SpanSet())
        planned[batch.series] |= span
        if data.draw(st.booleans()):
            end, steps = span.spans[-1].end, data.draw(st.integers(1, 50))
            stop = batch.series.interval.shift(batch.series.interval.floor(end), steps)
            if stop > end:
                crossed[batch.series] = crossed.get(batch.series, SpanSet()) | SpanSet.of(Span(end, stop))
    for task in wanted:
        assert not task.missing - planned[task.series] - crossed.get(task.series, SpanSet())
        assert not planned[task.series] - task.missing
