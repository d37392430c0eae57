"""Every row of an answer has one outcome, and all of them are counted."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.decoding.layouts import DecodedRows
from marketfetch.decoding.validation import plausible, validate_page
from marketfetch.values.datasets import Dataset, datasets
from marketfetch.values.pages import Columns, RejectedRow
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

START = 1_780_272_000_000
MINUTE = 60_000
SERIES = Series.of("x", "mark_price", "S", "1m")
PART = Slice(SERIES, Span(START, START + 10 * MINUTE), rows=10)
GOOD = (2.0, 3.0, 1.0, 2.5)


def decoded(rows: dict[int, tuple[float, ...]], closed: list[bool] | None = None) -> DecodedRows:
    values = np.array(list(rows.values()), np.float64).T.reshape(4, len(rows))
    flags = None if closed is None else np.array(closed)
    return DecodedRows(Columns(np.array(list(rows), np.int64), values), flags)


numbers = st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, -1.0, float("nan"), float("inf"), -float("inf")])
offsets = st.sampled_from([-MINUTE, -1, 0, 1, MINUTE, 3 * MINUTE, 9 * MINUTE, 10 * MINUTE])


@given(st.lists(st.tuples(offsets, st.tuples(*[numbers] * 4), st.booleans()), max_size=20), st.integers(0, 2))
def test_each_row_is_kept_or_counted(
    rows: list[tuple[int, tuple[float, ...], bool]], undecodable: int
) -> None:
    times = np.array([START + offset for offset, _, _ in rows], np.int64)
    values = np.array([row for _, row, _ in rows], np.float64).reshape(len(rows), 4).T
    closed = np.array([flag for _, _, flag in rows], np.bool_)
    page = validate_page(DecodedRows(Columns(times, values), closed, undecodable), PART)
    assert len(page.columns) + sum(page.rejected.values()) == len(rows) + undecodable
    kept = page.columns
    assert kept.is_sorted
    assert all(int(time) in PART.span and (time - START) % MINUTE == 0 for time in kept.times)
    assert plausible(SERIES.dataset, kept.values).all()
    assert not page.without_sound_row & SERIES.interval.cover(kept.times)
    assert not page.without_sound_row - SpanSet.of(PART.span)
    assert page.has_rows_outside == any(START + offset not in PART.span for offset, _, _ in rows)
    # A moment whose rows are all unusable is spoiled, never absent.
    for offset, _, _ in rows:
        moment = START + offset
        if moment in PART.span and offset % MINUTE == 0:
            assert (moment in page.without_sound_row) != (moment in kept.times.tolist())


def test_the_last_of_several_rows_of_a_moment_stays() -> None:
    both = Columns(np.array([START, START]), np.array([GOOD, (2.0, 4.0, 1.0, 2.5)]).T)
    page = validate_page(DecodedRows(both), PART)
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
    page = validate_page(decoded({START: row, START + MINUTE: GOOD}), PART)
    assert page.rejected == {reason: 1}
    assert page.without_sound_row == SpanSet.of(Span(START, START + MINUTE))
    assert len(page.columns) == 1


@pytest.mark.parametrize(
    ("trades", "sound"),
    [
        *[(7.0, True), (0.0, True), (float("nan"), True), (2.0**63 - 1024, True)],
        *[(1.5, False), (2.0**63, False), (1e300, False)],
    ],
)
def test_a_count_is_whole_and_fits_64_bits(trades: float, sound: bool) -> None:
    part = attrs.evolve(PART, series=Series.of("x", "ohlcv", "S", "1m"))
    values = np.ones((9, 2))
    values[part.series.dataset.index("trades"), 0] = trades
    rows = DecodedRows(Columns(np.array([START, START + MINUTE]), values))
    page = validate_page(rows, part)
    assert plausible(part.series.dataset, values).tolist() == [sound, True]
    assert page.rejected == ({} if sound else {"impossible": 1})
    assert (START in page.without_sound_row) != sound
    assert page.storable is None


def test_a_premium_may_be_negative_and_a_volume_may_not() -> None:
    row = np.array([[-1.0], [-0.5], [-2.0], [-1.0]])
    assert plausible(Dataset.parse("premium_index"), row).all()
    assert not plausible(Dataset.parse("mark_price"), row).any()


@pytest.mark.parametrize("name", sorted(datasets()))
def test_only_optional_columns_may_be_absent(name: str) -> None:
    dataset = Dataset.parse(name)
    for at, column in enumerate(dataset.columns):
        row = np.ones((len(dataset.columns), 1))
        row[at] = np.nan
        assert plausible(dataset, row).all() == column.optional


@pytest.mark.parametrize("name", sorted(datasets()))
def test_a_row_without_a_value_is_not_possible_and_not_wrong_for_good(name: str) -> None:
    series = Series.of("x", name, "S", "1m")
    nothing = np.full((len(series.dataset.columns), 1), np.nan)
    assert not plausible(series.dataset, nothing).any()
    page = validate_page(DecodedRows(Columns(np.array([START]), nothing)), Slice(series, PART.span, rows=10))
    assert page.rejected == {"without a value": 1}
    assert START in page.without_sound_row
    assert not page.invalid


def test_an_unfinished_row_is_neither_present_nor_absent() -> None:
    page = validate_page(decoded({START: GOOD, START + MINUTE: GOOD}, closed=[True, False]), PART)
    assert page.rejected == {"unfinished": 1}
    assert START + MINUTE in page.without_sound_row


@given(st.lists(st.tuples(offsets, st.tuples(*[numbers] * 4), st.booleans()), max_size=20))
def test_wrong_for_good_are_final_rows_with_a_value_where_no_sound_row_stands(
    rows: list[tuple[int, tuple[float, ...], bool]],
) -> None:
    times = np.array([START + offset for offset, _, _ in rows], np.int64)
    values = np.array([row for _, row, _ in rows], np.float64).reshape(len(rows), 4).T
    closed = np.array([flag for _, _, flag in rows], np.bool_)
    page = validate_page(DecodedRows(Columns(times, values), closed), PART)
    wrong = sorted(
        START + offset
        for offset, row, flag in rows
        if START + offset in page.without_sound_row and flag and not all(map(np.isnan, row))
    )
    assert sorted(row.time for row in page.invalid) == wrong
    assert {row.reason for row in page.invalid} <= {"off the grid", "impossible"}
    if page.storable is not None:
        assert set(page.storable.times.tolist()) <= set(wrong)
        assert np.isfinite(page.storable.values).all()


def test_a_row_without_its_text_is_told_by_its_values() -> None:
    page = validate_page(decoded({START: (2.0, 1.0, 3.0, float("inf"))}), PART)
    assert [row.raw for row in page.invalid] == ['{"open":2.0,"high":1.0,"low":3.0,"close":Infinity}']


def test_more_wrong_rows_than_any_exchange_has_prove_nothing() -> None:
    times = np.full(10_001, START + 1, np.int64)
    page = validate_page(DecodedRows(Columns(times, np.ones((4, 10_001)))), PART)
    assert (page.invalid, page.storable) == ((), None)
    assert page.rejected == {"off the grid": 10_001}


def test_rows_of_text_are_placed_by_their_times() -> None:
    broken = [RejectedRow(START + offset, "undecodable", "[]") for offset in (MINUTE, -MINUTE)]
    page = validate_page(DecodedRows(Columns.empty(SERIES.dataset), undecodable=2, broken=broken), PART)
    assert page.invalid == (broken[0],)
    assert page.without_sound_row == SpanSet.of(Span(START + MINUTE, START + 2 * MINUTE))
    assert page.rejected == {"undecodable": 1, "outside the window": 1}
    assert page.has_rows_outside
