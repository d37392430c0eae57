"""Longer candles show where a series has gaps: in one question, and in one more for each gap."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from marketfetch.planning.gap_hints import ProbableGap, search_gaps
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import DAY, MINUTE, Span

GRID = Interval.parse("1m")
COARSER = [Interval.parse(name) for name in ("5m", "30m", "4h", "1d", "1w", "1M")]


def found(times: list[int], span: Span, page: int, rows: int) -> tuple[list[ProbableGap], int]:
    """Answer as an exchange does whose longer candles are those that have a row."""
    search, asked, answer = search_gaps(span, page, rows, COARSER, GRID), 0, None
    while True:
        try:
            question = next(search) if answer is None else search.send(answer)
        except StopIteration as stop:
            return stop.value, asked
        asked += 1
        opens = sorted({question.interval.floor(time) for time in times})
        answer = [time for time in opens if time in question.span]
        assert len(answer) <= rows


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=6), st.integers(30, 500), st.integers(0, DAY))
def test_each_has_no_row_and_begins_less_than_a_page_behind_one(
    lengths: list[int], page: int, offset: int
) -> None:
    """Stretches with and without rows take turns, in minutes."""
    times, at = list[int](), offset - offset % MINUTE
    start = at
    for number, minutes in enumerate(lengths):
        if number % 2 == 0:
            times += range(at, at + minutes * MINUTE, 7 * MINUTE)
        at += minutes * MINUTE
    gaps, asked = found(times, Span(start, at), page, 1500)
    for gap in gaps:
        assert not any(time in gap.empty for time in times)
        behind = max(time for time in times if time < gap.empty.start)
        assert gap.empty.start - behind <= page * MINUTE
        if gap.resumption is not None:
            assert any(time in gap.resumption for time in times)
    assert asked <= 1 + 3 * len(gaps)
    # A longer candle, of which 500 show the span, may hide so much of a gap at both of its ends.
    hidden = 2 * min(each.typical for each in COARSER if each.count(Span(start, at)) <= 500)
    for one, two in pairwise([*times, at]):
        if two - one > 5 * page * MINUTE + hidden and one > start + hidden:
            assert any(one < gap.empty.start < two for gap in gaps)


def test_a_span_that_no_answer_shows_is_not_asked_for() -> None:
    assert found([], Span(0, 200 * 365 * DAY), 100, 300) == ([], 0)
