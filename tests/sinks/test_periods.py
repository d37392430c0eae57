"""Every moment is in one file, and every candle's stretch of time is told by the file that has its row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.sinks.parquet.periods import Period, periods_of, split, unit_of, whole_periods
from marketfetch.values.intervals import EVENT, Interval
from marketfetch.values.pages import Columns
from marketfetch.values.spans import Span, SpanSet

INTERVALS = [*map(Interval.parse, ("1s", "1m", "30m", "1h", "12h", "1d", "2d", "3d", "1w", "1M")), EVENT]
moments = st.integers(-5_000_000_000_000, 20_000_000_000_000)


@given(st.sampled_from(INTERVALS), moments)
def test_a_candle_is_covered_by_the_file_of_its_row(interval: Interval, moment: int) -> None:
    opened = interval.floor(moment)
    closed = opened + 1 if interval.is_event else interval.shift(opened, 1)
    period = Period.of(opened, unit_of(interval))
    assert opened in period.span
    covers = period.covers(interval)
    assert covers.start <= opened < closed <= covers.end
    following = Period(period.unit, period.number + 1)
    assert following.span.start == period.span.end
    assert following.covers(interval).start == covers.end
    assert list(periods_of(SpanSet.of(Span(opened, closed)), interval)) == [period]
    assert Period.parse(str(period), period.unit) == period


@given(st.sampled_from(INTERVALS[1:]), st.lists(st.tuples(moments, st.integers(1, 10**11)), max_size=4))
def test_spans_touch_each_period_once(interval: Interval, some: list[tuple[int, int]]) -> None:
    spans = SpanSet(tuple(Span(start, start + length) for start, length in some))
    found = list(periods_of(spans, interval))
    assert found == sorted(set(found))
    parts = [SpanSet.of(period.covers(interval)) & spans for period in found]
    assert all(parts)
    assert SpanSet(tuple(span for part in parts for span in part)) == spans
    inner = [
        covers
        for covers in (period.covers(interval) for period in found)
        if any(span.start <= covers.start < covers.end <= span.end for span in spans)
    ]
    assert SpanSet(tuple(whole_periods(spans, interval))) == SpanSet(tuple(inner))


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        *(("NaT", "M"), ("now", "D"), ("today", "D"), ("2026-06-01", "M"), ("2026", "M"), ("2026-06", "D")),
        *(
            ("2026-13", "M"),
            ("2026-02-30", "D"),
            ("2026-06Z", "M"),
            ("", "Y"),
            ("\uff12026", "Y"),
            ("notes", "Y"),
        ),
    ],
)
def test_other_names_are_no_period(name: str, unit: str) -> None:
    assert Period.parse(name, unit) is None


def test_rows_are_cut_where_periods_end() -> None:
    times = np.array([-1, 0, 1, 2_678_400_000 - 1, 2_678_400_000], np.int64)
    parts = list(split(Columns(times, np.zeros((1, 5))), "M"))
    assert [(str(period), part.times.tolist()) for period, part in parts] == [
        ("1969-12", [-1]),
        ("1970-01", [0, 1, 2_678_399_999]),
        ("1970-02", [2_678_400_000]),
    ]
