"""The absence rule: first answer, second answer, verdict."""

from __future__ import annotations

import pytest

from marketfetch.planning.absence import beyond_last_row, decide_absence, still_absent_once
from marketfetch.values.spans import Span, SpanSet

MOMENT, NOTHING = SpanSet.of(Span(10, 20)), SpanSet()
ANSWERS = {"denied": (MOMENT, NOTHING), "silent": (NOTHING, MOMENT)}


@pytest.mark.parametrize(
    ("first", "second", "empty", "absent_once"),
    [
        ("denied", "denied", MOMENT, NOTHING),
        ("denied", "silent", NOTHING, MOMENT),
        ("silent", "denied", NOTHING, MOMENT),
        ("silent", "silent", NOTHING, NOTHING),
    ],
)
def test_two_answers_have_to_deny_a_moment(
    first: str, second: str, empty: SpanSet, absent_once: SpanSet
) -> None:
    before = decide_absence(NOTHING, *ANSWERS[first])
    assert not before.empty
    found = decide_absence(before.absent_once, *ANSWERS[second])
    assert (found.empty, found.absent_once) == (empty, absent_once)


def test_one_answer_is_enough_where_the_exchange_leaves_out_empty_candles() -> None:
    assert decide_absence(NOTHING, MOMENT, NOTHING, at_once=True).empty == MOMENT
    assert not decide_absence(NOTHING, NOTHING, MOMENT, at_once=True).empty


def test_a_row_takes_back_everything_that_was_denied_along_with_it() -> None:
    both = SpanSet.of(Span(10, 20), Span(30, 40))
    assert not still_absent_once(both, present=MOMENT)
    assert still_absent_once(both, present=SpanSet.of(Span(20, 30))) == both


@pytest.mark.parametrize(
    ("anchor", "silent"), [("start", SpanSet.of(Span(30, 50))), ("end", SpanSet.of(Span(0, 10)))]
)
def test_a_page_is_silent_beyond_its_last_row(anchor: str, silent: SpanSet) -> None:
    rows = SpanSet.of(Span(10, 20), Span(25, 30))
    assert beyond_last_row(Span(0, 50), rows, anchor) == silent  # type: ignore[arg-type]
    assert not beyond_last_row(Span(0, 50), NOTHING, anchor)  # type: ignore[arg-type]
