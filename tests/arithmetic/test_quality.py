"""Every row of an answer has one outcome, and all of them are counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.arithmetic.decoding import Decoded
from marketfetch.arithmetic.quality import inspect, possible
from marketfetch.values.datasets import Dataset, datasets
from marketfetch.values.pages import Columns
from marketfetch.values.series import Series, Slice
from marketfetch.values.spans import Span, SpanSet

START = 1_780_272_000_000
MINUTE = 60_000
SERIES = Series.of("x", "mark_price", "S", "1m")
PART = Slice(SERIES, Span(START, START + 10 * MINUTE), rows=10)
GOOD = (2.0, 3.0, 1.0, 2.5)


def decoded(rows: dict[int, tuple[float, ...]], closed: list[bool] | None = None) -> Decoded:
    values = np.array(list(rows.values()), np.float64).T.reshape(4, len(rows))
    flags = None if closed is None else np.array(closed)
    return Decoded(Columns(np.array(list(rows), np.int64), values), flags)


numbers = st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, -1.0, float("nan"), float("inf"), -float("inf")])
offsets = st.sampled_from([-MINUTE, -1, 0, 1, MINUTE, 3 * MINUTE, 9 * MINUTE, 10 * MINUTE])


@given(st.lists(st.tuples(offsets, st.tuples(*[numbers] * 4), st.booleans()), max_size=20), st.integers(0, 2))
def test_each_row_is_kept_or_counted(
    rows: list[tuple[int, tuple[float, ...], bool]], undecodable: int
) -> None:
    times = np.array([START + offset for offset, _, _ in rows], np.int64)
    values = np.array([row for _, row, _ in rows], np.float64).reshape(len(rows), 4).T
    closed = np.array([flag for _, _, flag in rows], np.bool_)
    page = inspect(Decoded(Columns(times, values), closed, undecodable), PART)
    assert len(page.columns) + sum(page.rejected.values()) == len(rows) + undecodable
    kept = page.columns
    assert kept.is_sorted
    assert all(int(time) in PART.span and (time - START) % MINUTE == 0 for time in kept.times)
    assert possible(SERIES.dataset, kept.values).all()
    assert not page.spoiled & SERIES.interval.cover(kept.times)
    assert not page.spoiled - SpanSet.of(PART.span)
    assert page.stray == any(START + offset not in PART.span for offset, _, _ in rows)
    # A moment whose rows are all unusable is spoiled, never absent.
    for offset, _, _ in rows:
        moment = START + offset
        if moment in PART.span and offset % MINUTE == 0:
            assert (moment in page.spoiled) != (moment in kept.times.tolist())


def test_the_last_of_several_rows_of_a_moment_stays() -> None:
    both = Columns(np.array([START, START]), np.array([GOOD, (2.0, 4.0, 1.0, 2.5)]).T)
    page = inspect(Decoded(both), PART)
    assert page.columns.values[1].tolist() == [4.0]
    assert page.rejected == {"duplicate": 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((2.0, 1.0, 3.0, 2.5), "impossible"),
        ((2.0, 3.0, 1.0, float("nan")), "impossible"),
        ((2.0, float("inf"), 1.0, 2.0), "impossible"),
        ((-2.0, 3.0, -3.0, 2.0), "impossible"),
    ],
)
def test_impossible_values_are_named(row: tuple[float, ...], reason: str) -> None:
    page = inspect(decoded({START: row, START + MINUTE: GOOD}), PART)
    assert page.rejected == {reason: 1}
    assert page.spoiled == SpanSet.of(Span(START, START + MINUTE))
    assert len(page.columns) == 1


def test_a_premium_may_be_negative_and_a_volume_may_not() -> None:
    row = np.array([[-1.0], [-0.5], [-2.0], [-1.0]])
    assert possible(Dataset.parse("premium_index"), row).all()
    assert not possible(Dataset.parse("mark_price"), row).any()


@pytest.mark.parametrize("name", sorted(datasets()))
def test_only_optional_columns_may_be_absent(name: str) -> None:
    dataset = Dataset.parse(name)
    for at, column in enumerate(dataset.columns):
        row = np.ones((len(dataset.columns), 1))
        row[at] = np.nan
        assert possible(dataset, row).all() == column.optional


def test_an_unfinished_row_is_neither_present_nor_absent() -> None:
    page = inspect(decoded({START: GOOD, START + MINUTE: GOOD}, closed=[True, False]), PART)
    assert page.rejected == {"unfinished": 1}
    assert START + MINUTE in page.spoiled
