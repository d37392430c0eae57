"""SpanSet against the plainest model there is: a set of integers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.errors import ConfigurationError
from marketfetch.values.spans import Span, SpanSet, format_utc

SIZE = 30
spans = st.tuples(st.integers(0, SIZE), st.integers(1, 8)).map(lambda pair: Span(pair[0], pair[0] + pair[1]))
span_sets = st.lists(spans, max_size=6).map(lambda found: SpanSet(tuple(found)))


def moments(found: SpanSet) -> set[int]:
    return {ms for span in found for ms in range(span.start, span.end)}


@given(st.lists(spans, max_size=8))
def test_a_set_holds_the_moments_of_its_spans(found: list[Span]) -> None:
    held = SpanSet(tuple(found))
    assert moments(held) == {ms for span in found for ms in range(span.start, span.end)}
    assert held.length == len(moments(held))
    assert all(left.end < right.start for left, right in zip(held, held.spans[1:], strict=False))


@given(span_sets, span_sets)
def test_algebra_is_that_of_sets(left: SpanSet, right: SpanSet) -> None:
    assert moments(left | right) == moments(left) | moments(right)
    assert moments(left & right) == moments(left) & moments(right)
    assert moments(left - right) == moments(left) - moments(right)


@given(span_sets, span_sets)
def test_equal_moments_are_equal_sets(left: SpanSet, right: SpanSet) -> None:
    assert (left - right) | (left & right) == left
    assert left | right == right | left
    assert (moments(left) == moments(right)) == (left == right)


@given(span_sets, st.integers(-2, SIZE + 10))
def test_membership_and_hull(found: SpanSet, ms: int) -> None:
    assert (ms in found) == (ms in moments(found))
    assert bool(found) == bool(moments(found))
    if found.hull is not None:
        assert (found.hull.start, found.hull.end - 1) == (min(moments(found)), max(moments(found)))


@given(spans, spans)
def test_intersection_of_two_spans(left: Span, right: Span) -> None:
    both = left.intersect(right)
    assert moments(SpanSet.of(both)) == moments(SpanSet.of(left)) & moments(SpanSet.of(right))


def test_a_span_is_never_empty() -> None:
    with pytest.raises(ValueError, match="must end after it starts"):
        Span(5, 5)


@pytest.mark.parametrize(
    ("argument", "start", "end"),
    [
        ("start", "2026-01-01", "2026-02-01"),
        ("start", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)),
        ("end", 0, None),
        ("end", 0, 1.5),
    ],
)
def test_a_time_that_is_no_whole_number_is_told_how_to_be_written(
    argument: str, start: Any, end: Any
) -> None:
    with pytest.raises(ConfigurationError, match=rf"{argument}: .* write round\(1000 \* datetime\(2026"):
        Span(start, end)


def test_a_moment_that_no_calendar_has_is_written_all_the_same() -> None:
    assert format_utc(10**18) == f"{10**18}ms"
    assert str(SpanSet()) == "nothing"
