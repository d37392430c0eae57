"""Calendar periods have the spans of the calendar of the exchange."""

from __future__ import annotations

from datetime import date
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.archives.periods import CalendarPeriod, Grain, periods
from marketfetch.values.spans import DAY, HOUR, Span

GRAINS: tuple[Grain, ...] = ("month", "day")
moments = st.integers(0, 4_000_000_000_000)
offsets = st.sampled_from([0, 3 * HOUR, 8 * HOUR, -5 * HOUR])


@pytest.mark.parametrize(
    ("label", "offset", "span"),
    [
        ("2024-02", 0, "[2024-02-01T00:00:00Z, 2024-03-01T00:00:00Z)"),
        ("2020-8", 0, "[2020-08-01T00:00:00Z, 2020-09-01T00:00:00Z)"),
        ("2024-12", 8, "[2024-11-30T16:00:00Z, 2024-12-31T16:00:00Z)"),
        ("2024-02-29", 0, "[2024-02-29T00:00:00Z, 2024-03-01T00:00:00Z)"),
        ("2024-03-1", 8, "[2024-02-29T16:00:00Z, 2024-03-01T16:00:00Z)"),
        ("2024-01", 3, "[2023-12-31T21:00:00Z, 2024-01-31T21:00:00Z)"),
    ],
)
def test_a_label_has_the_span_of_the_exchange_s_calendar(label: str, offset: int, span: str) -> None:
    assert str(CalendarPeriod.parse(label, utc_offset=offset * HOUR).span) == span


@pytest.mark.parametrize(
    "label", ["", "2024", "2024-13", "2024-00", "2023-02-29", "24-01", "2024-01-01-01", "x"]
)
def test_any_other_label_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="label"):
        CalendarPeriod.parse(label)


def test_a_month_begins_on_its_first_day() -> None:
    with pytest.raises(ValueError, match="2024-01-01"):
        CalendarPeriod(date(2024, 1, 2), "month")


@given(moments, st.sampled_from(GRAINS), offsets)
def test_a_moment_lies_in_its_period_whose_label_can_be_read(ms: int, grain: Grain, offset: int) -> None:
    period = CalendarPeriod.containing(ms, grain, utc_offset=offset)
    assert ms in period.span
    assert CalendarPeriod.parse(str(period), utc_offset=offset) == period
    assert period.next.span.start == period.span.end


@given(moments, st.integers(1, 100 * DAY), st.sampled_from(GRAINS), offsets)
def test_the_periods_of_a_span_cover_it_without_overlap(
    start: int, length: int, grain: Grain, offset: int
) -> None:
    span = Span(start, start + length)
    found = [period.span for period in periods(span, grain, utc_offset=offset)]
    assert found[0].start <= span.start < found[0].end
    assert found[-1].start < span.end <= found[-1].end
    assert all(one.end == two.start for one, two in pairwise(found))
