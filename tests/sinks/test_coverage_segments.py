"""However a coverage is cut, its segments know together what was learnt, and adding to them is cheap."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from operator import or_
from random import Random
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfetch.sinks.sql import coverage_segments as segments
from marketfetch.sinks.sql.coverage_segments import (
    SEGMENT_SPANS,
    hull,
    join_segments,
    split,
    touched_slice,
    unite_segments,
)
from marketfetch.values.coverage import Coverage
from marketfetch.values.spans import Span, SpanSet

FEW = 4
"""So many spans in a segment let a handful of spans fill several."""


def spans_within(length: int) -> st.SearchStrategy[SpanSet]:
    step = st.integers(0, length - 1)
    pairs = st.lists(st.tuples(step, step), max_size=12)
    return pairs.map(lambda found: SpanSet(tuple(Span(min(pair), max(pair) + 1) for pair in found)))


@st.composite
def coverages(draw: st.DrawFn, length: int = 120) -> Coverage:
    covered, empty, unusable = (draw(spans_within(length)) for _ in range(3))
    unusable = unusable & covered
    return Coverage(covered, (empty & covered) - unusable, unusable)


def spans_of(segment: Coverage) -> int:
    return len(segment.covered) + len(segment.empty) + len(segment.unusable)


def check_order(held: list[Coverage], most: int) -> None:
    hulls = [hull(segment) for segment in held]
    assert all(one.end <= other.start for one, other in pairwise(hulls))
    assert all(spans_of(segment) <= most for segment in held)


def learn(held: list[Coverage], learnt: Coverage) -> None:
    """Do what a store does for a batch."""
    if learnt.covered:
        chosen = touched_slice(held, hull(learnt))
        held[chosen] = unite_segments(held[chosen], learnt)


@given(st.lists(coverages(), max_size=12))
def test_segments_know_together_what_was_learnt(learnt: list[Coverage]) -> None:
    with patch.object(segments, "SEGMENT_SPANS", FEW):
        held: list[Coverage] = []
        for one in learnt:
            learn(held, one)
            check_order(held, FEW)
        assert join_segments(held) == reduce(or_, learnt, Coverage())
        assert join_segments(reversed(held)) == join_segments(held)


CUT = Coverage(SpanSet.of(Span(0, 116)), SpanSet.of(Span(64, 98), Span(115, 116)))
"""Is cut at 64, where a span may begin."""


@given(coverages(), st.integers(0, 119), st.integers(1, 60))
@example(CUT, 64, 1)
def test_what_is_not_touched_keeps_its_distance(held: Coverage, start: int, length: int) -> None:
    with patch.object(segments, "SEGMENT_SPANS", FEW):
        cut = split(held)
    span = Span(start, start + length)
    chosen = touched_slice(cut, span)
    beside = [hull(segment) for segment in (*cut[: chosen.start], *cut[chosen.stop :])]
    # One that ends where the span begins needs no change if there is a segment that begins there.
    begun = {hull(segment).start for segment in cut[chosen]}
    assert all(
        one.end < span.start or span.end < one.start or one.end == span.start in begun for one in beside
    )
    # At most one is read that has nothing to do with the span: the one before it.
    assert sum(one.end < span.start or span.end < one.start for one in map(hull, cut[chosen])) <= 1


@given(coverages(), st.integers(2, 9))
def test_a_coverage_is_cut_into_segments_that_fit(whole: Coverage, most: int) -> None:
    with patch.object(segments, "SEGMENT_SPANS", most):
        cut = split(whole)
    check_order(cut, most)
    assert join_segments(cut) == whole
    if spans_of(whole) <= most:
        assert len(cut) == bool(whole.covered)


@pytest.mark.parametrize("order", ["forward", "backward", "anyhow"])
@pytest.mark.parametrize("confirmed", [True, False])
def test_a_batch_costs_the_same_however_many_gaps_there_are(order: str, *, confirmed: bool) -> None:
    # Batches of 40 steps, every second of which is missing or confirmed empty, over 40,000 steps.
    starts = list(range(0, 40_000, 40))
    if order == "backward":
        starts.reverse()
    elif order == "anyhow":
        Random(11).shuffle(starts)
    held: list[Coverage] = []
    dearest = 0
    for start in starts:
        gaps = SpanSet(tuple(Span(step, step + 1) for step in range(start + 1, start + 40, 2)))
        whole = SpanSet.of(Span(start, start + 40))
        learnt = Coverage(whole, gaps) if confirmed else Coverage(whole - gaps)
        chosen = touched_slice(held, hull(learnt))
        dearest = max(dearest, sum(map(spans_of, held[chosen])))
        learn(held, learnt)
    check_order(held, SEGMENT_SPANS)
    assert len(join_segments(held).empty if confirmed else join_segments(held).covered) == 20_000
    assert dearest <= 3 * SEGMENT_SPANS  # the one before, and one on either side
    if confirmed or order != "backward":  # where each batch begins before all segments, and touches none
        assert len(held) <= 4 * 20_000 / SEGMENT_SPANS  # at least a quarter full
