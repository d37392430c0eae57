"""The first row of a series is found by a handful of questions, whatever is missing in between."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from marketfetch.planning.first_row_search import Question, search_first_row
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span

MINUTE = 60_000
GRID = Interval.parse("1m")
COARSER = [Interval.parse(name) for name in ("5m", "30m", "4h", "1d", "1w", "1M")]


def found(
    search: Generator[Question, Sequence[int], int | None],
    times: Sequence[int],
    cap: int,
    anchor: Literal["start", "end"],
) -> tuple[int | None, list[Question]]:
    """Answer as an exchange does that never gives more than `cap` rows."""
    asked = [next(search)]
    while True:
        question = asked[-1]
        # A coarser candle exists if it has a row.
        opens = sorted({question.interval.floor(time) for time in times})
        inside = [time for time in opens if time in question.span]
        most = min(question.rows, cap)
        try:
            asked.append(search.send(inside[:most] if anchor == "start" else inside[-most:]))
        except StopIteration as stop:
            return stop.value, asked


@given(
    st.sets(st.integers(0, 400)),
    st.integers(0, 200),
    st.integers(1, 200),
    st.integers(1, 50),
    st.integers(1, 50),
    st.none() | st.integers(-10, 500),
    st.sampled_from(["start", "end"]),
)
def test_it_is_the_first_one_whatever_the_hint_says(  # noqa: PLR0917  # drawn by hypothesis
    steps: set[int],
    start: int,
    length: int,
    rows: int,
    cap: int,
    hint: int | None,
    anchor: Literal["start", "end"],
) -> None:
    times = [step * MINUTE for step in sorted(steps)]
    span = Span(start * MINUTE, (start + length) * MINUTE)
    search = search_first_row(GRID, span, rows, anchor=anchor, hint=None if hint is None else hint * MINUTE)
    first, asked = found(search, times, cap, anchor)
    assert first == min((time for time in times if time in span), default=None)
    for question in asked:
        assert span.start <= question.span.start < question.span.end <= span.end


def test_a_right_hint_costs_a_handful_and_a_wrong_one_little_more() -> None:
    span, rows = Span(0, 70_000 * MINUTE), 300
    times = range(67_000 * MINUTE, 70_000 * MINUTE, MINUTE)

    def cost(hint: int | None, cap: int = 100) -> int:
        first, asked = found(search_first_row(GRID, span, rows, anchor="end", hint=hint), times, cap, "end")
        assert first == 67_000 * MINUTE
        return len(asked)

    assert cost(67_000 * MINUTE) <= 6
    assert cost(66_990 * MINUTE) <= 7
    assert cost(None) <= 20
    assert cost(1 * MINUTE) <= 20
    assert cost(69_000 * MINUTE) <= 22


@given(
    st.integers(0, 3_000_000),
    st.integers(0, 1_000_000),
    st.integers(1, 3_000),
    st.integers(150, 1000),
    st.integers(1, 3),
)
def test_coarser_candles_lead_to_the_end_of_a_hole(
    start: int, hole: int, length: int, rows: int, shorter: int
) -> None:
    """Rows before a hole, then a hole of up to two years, then rows up to the end of the span."""
    times = [*range(max(0, start - 50), start), *range(start + hole, start + hole + length)]
    span = Span(start * MINUTE, (start + hole + length) * MINUTE)
    search = search_first_row(GRID, span, rows, anchor="end", coarser=COARSER)
    first, asked = found(search, [time * MINUTE for time in times], rows // shorter, "end")
    assert first == (start + hole) * MINUTE
    assert len(asked) <= 9


@given(
    st.sets(st.integers(0, 5_000), max_size=20),
    st.lists(st.sets(st.integers(0, 5_000), max_size=5), max_size=6),
    st.integers(1, 50),
)
def test_coarser_candles_that_mislead_find_a_row_all_the_same(
    steps: set[int], lies: list[set[int]], rows: int
) -> None:
    """Whatever coarser candles say: a result is a row, and there is one if there is any row."""
    times, span = [step * MINUTE for step in sorted(steps)], Span(0, 5_000 * MINUTE)
    search = search_first_row(GRID, span, rows, anchor="end", coarser=COARSER)
    answers, question = list(lies), next(search)
    while True:
        given_ = [time for time in times if time in question.span][-question.rows :]
        if question.interval != GRID:
            lie = answers.pop() if answers else set()
            opens = {question.interval.floor(step * MINUTE) for step in lie}
            given_ = [time for time in sorted(opens) if time in question.span]
        try:
            question = search.send(given_)
        except StopIteration as stop:
            first = stop.value
            break
    inside = [time for time in times if time in span]
    assert first in inside if inside else first is None
