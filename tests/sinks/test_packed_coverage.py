"""Coverage as arrays says what coverage as spans says, whatever is learnt and forgotten in whatever order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.sinks.sql.packed_coverage import PackedCoverage
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import in_spans
from marketfetch.values.spans import Span, SpanSet


def span_sets() -> st.SearchStrategy[SpanSet]:
    ends = st.tuples(st.integers(-20, 40), st.integers(1, 12))
    return st.lists(ends, max_size=5).map(
        lambda some: SpanSet(tuple(Span(start, start + length) for start, length in some))
    )


def coverages() -> st.SearchStrategy[Coverage]:
    def sound(covered: SpanSet, empty: SpanSet, unusable: SpanSet) -> Coverage:
        return Coverage(covered, (empty & covered) - unusable, unusable & covered)

    return st.builds(sound, span_sets(), span_sets(), span_sets())


@given(st.lists(st.one_of(coverages(), span_sets()), max_size=8))
def test_learning_and_forgetting(steps: list[Coverage | SpanSet]) -> None:
    packed, known = PackedCoverage(), Coverage()
    for step in steps:
        if isinstance(step, Coverage):
            packed, known = packed.united_with(PackedCoverage.of(step)), known | step
        else:
            packed, known = packed.without(step), known.without(step)
        assert packed.unpack() == known
        assert packed.equals(PackedCoverage.of(known)), "not in the shortest form"
        assert bool(packed) == bool(known.covered)
        assert PackedCoverage.parse(packed.numbers()).equals(packed)


@given(coverages(), st.integers(-25, 55), st.integers(1, 40))
def test_a_part_and_the_rest_of_it(known: Coverage, start: int, length: int) -> None:
    packed, span = PackedCoverage.of(known), Span(start, start + length)
    inside = packed.within(span)
    assert inside.unpack() == known.within(span)
    assert inside.lies_in(span)
    assert packed.lies_in(span) == (inside.unpack() == known)
    rest = [packed.within(one) for one in (Span(-100, start), span, Span(span.end, 100))]
    assert PackedCoverage.join(rest).equals(packed)


@given(coverages())
def test_moments(known: Coverage) -> None:
    packed, moments = PackedCoverage.of(known), np.arange(-25, 60)
    assert [packed.is_present(moment) for moment in moments.tolist()] == [
        moment in known.present for moment in moments.tolist()
    ]
    assert in_spans(moments, known.covered).tolist() == [
        moment in known.covered for moment in moments.tolist()
    ]


@pytest.mark.parametrize(
    "sets",
    [
        *(
            [],
            [[]],
            [[1], [], []],
            [[1, 0], [], []],
            [[1, -1], [], []],
            [[1, 2.0], [], []],
            [[1, True], [], []],
        ),
        *([["1", "2"], [], []], [None, [], []], [[2**63, 1], [], []], [[2**63 - 1, 1], [], []]),
    ],
)
def test_other_numbers_are_refused(sets: list[object]) -> None:
    with pytest.raises((ValueError, TypeError, OverflowError)):
        PackedCoverage.parse(sets)
