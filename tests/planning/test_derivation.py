"""Composites: where all members have the candle, the same bits in every order of events."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.engine.composites import CompositeOhlcv
from marketfetch.planning.derivation import intersect_coverage
from marketfetch.values.coverage import Coverage
from marketfetch.values.datasets import Dataset
from marketfetch.values.pages import Columns
from marketfetch.values.spans import Span, SpanSet

OHLCV = Dataset.parse("ohlcv")
spans = st.tuples(st.integers(0, 20), st.integers(1, 6)).map(lambda pair: Span(pair[0], pair[0] + pair[1]))
span_sets = st.lists(spans, max_size=4).map(lambda found: SpanSet(tuple(found)))


@st.composite
def members(draw: st.DrawFn) -> Columns:
    times = np.array(sorted(draw(st.sets(st.integers(0, 9)))), np.int64)
    numbers = st.floats(0, 1e9) | st.just(float("nan"))
    count = len(OHLCV.columns) * len(times)
    values = np.array(draw(st.lists(numbers, min_size=count, max_size=count)))
    return Columns(times, values.reshape(len(OHLCV.columns), len(times)))


@given(st.lists(members(), min_size=2, max_size=4))
def test_rows_are_where_every_member_has_one(found: list[Columns]) -> None:
    made = CompositeOhlcv(()).combine(found)
    common = set.intersection(*(set(member.times.tolist()) for member in found))
    assert made.times.tolist() == sorted(common)
    for at, time in enumerate(made.times):
        rows = np.stack([member.values[:, member.times.tolist().index(time)] for member in found])
        total = rows[0].copy()
        for row in rows[1:]:
            total += row
        total[:4] /= len(found)
        assert made.values[:, at].tobytes() == total.tobytes()


@given(st.lists(st.tuples(span_sets, span_sets), min_size=1, max_size=3))
def test_what_is_known_of_all_is_known(found: list[tuple[SpanSet, SpanSet]]) -> None:
    coverages = [Coverage(covered, covered & empty) for covered, empty in found]
    together = intersect_coverage(coverages)
    for ms in range(30):
        assert (ms in together.covered) == all(ms in each.covered for each in coverages)
        assert (ms in together.present) == all(ms in each.present for each in coverages)
    assert not together.empty - together.covered


@given(st.lists(st.tuples(span_sets, span_sets, span_sets), min_size=1, max_size=3))
def test_a_composite_has_no_candle_where_a_member_has_none(
    found: list[tuple[SpanSet, SpanSet, SpanSet]],
) -> None:
    coverages = [
        Coverage(covered, covered & empty, covered & wrong - empty) for covered, empty, wrong in found
    ]
    together = intersect_coverage(coverages)
    for ms in range(30):
        if ms in together.covered:
            assert (ms in together.empty) == any(ms in each.empty for each in coverages)
            wrong = any(ms in each.unusable for each in coverages)
            assert (ms in together.unusable) == (wrong and ms not in together.empty)
    assert not together.unusable - together.covered


@given(st.lists(st.tuples(span_sets, span_sets), min_size=2, max_size=3))
def test_uniting_coverage_is_commutative_and_a_row_wins(found: list[tuple[SpanSet, SpanSet]]) -> None:
    one, two = (Coverage(covered, covered & empty) for covered, empty in found[:2])
    both = one | two
    assert both == two | one
    assert both.covered == one.covered | two.covered
    assert both.present == one.present | two.present
    assert (both | one) == both
