"""Grids: every interval, with weeks on Mondays and calendar months."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.errors import ConfigurationError
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import Span, SpanSet

NAMES = [
    *("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h"),
    *("1d", "2d", "3d", "1w", "1M", "event"),
    *("10m", "3h", "1d+08:00", "1w-05:00", "12h+05:30"),
]
intervals = st.sampled_from(NAMES).map(Interval.parse)
moments = st.integers(0, 4_102_444_800_000)


@given(intervals, moments)
def test_floor_and_ceil_enclose_a_moment(interval: Interval, ms: int) -> None:
    floor, ceil = interval.floor(ms), interval.ceil(ms)
    assert floor <= ms <= ceil
    assert (floor == ms) == (ceil == ms) == bool(interval.aligned(np.array([ms]))[0])
    assert interval.shift(floor, 1) in {ceil, interval.shift(ceil, 1)}
    assert interval.aligned(np.array([floor, ceil])).all()


@given(intervals, moments, st.integers(-50, 50))
def test_shifts_add_up(interval: Interval, ms: int, steps: int) -> None:
    start = interval.floor(ms)
    assert interval.shift(interval.shift(start, steps), -steps) == start
    if steps > 0:
        span = Span(start, interval.shift(start, steps))
        assert interval.count(span) == steps
        assert interval.grid(span).tolist() == [interval.shift(start, step) for step in range(steps)]


@given(intervals, moments, st.integers(1, 40), st.data())
def test_rows_cover_exactly_their_own_steps(
    interval: Interval, ms: int, steps: int, data: st.DataObject
) -> None:
    start = interval.floor(ms)
    grid = interval.grid(Span(start, interval.shift(start, steps)))
    times = grid[np.array(data.draw(st.lists(st.booleans(), min_size=steps, max_size=steps)))]
    expected = SpanSet(tuple(Span(int(time), interval.shift(int(time), 1)) for time in times))
    assert interval.cover(times) == expected
    assert sum(map(interval.count, interval.cover(times))) == len(times)


@given(moments)
def test_weeks_open_on_mondays_and_months_on_the_first(ms: int) -> None:
    week = datetime.fromtimestamp(Interval.parse("1w").floor(ms) / 1000, UTC)
    month = datetime.fromtimestamp(Interval.parse("1M").floor(ms) / 1000, UTC)
    assert (week.weekday(), week.hour, week.minute, week.second) == (0, 0, 0, 0)
    assert (month.day, month.hour, month.minute, month.second) == (1, 0, 0, 0)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5), intervals)
def test_alignment_of_absurd_times_is_no_error(times: list[int], interval: Interval) -> None:
    assert interval.aligned(np.array(times, np.int64)).shape == (len(times),)


def test_case_matters() -> None:
    assert Interval.parse("1m").length == 60_000
    assert Interval.parse("1M").length is None
    assert Interval.parse("1H") == Interval.parse("1h")  # which cannot mean anything else
    with pytest.raises(ConfigurationError, match="interval: '5M' is unknown"):
        Interval.parse("5M")


def test_a_day_may_open_at_midnight_of_another_zone() -> None:
    day, week = Interval.parse("1d+08:00"), Interval.parse("1w+08:00")
    east = timezone(timedelta(hours=8))
    for interval, weekday in ((day, 4), (week, 0)):
        opens = datetime.fromtimestamp(interval.floor(1_780_600_000_000) / 1000, east)  # a Friday there
        assert (opens.weekday(), opens.hour, opens.minute) == (weekday, 0, 0)
    assert Interval.parse("24h+08:00") == day
