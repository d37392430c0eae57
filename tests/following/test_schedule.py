"""When a series is due, and which rows are provisional: pure functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfetch.adapters.binance_usdm import FundingRate, Ohlcv
from marketfetch.following.provisional import PROVISIONAL, ProvisionalRows
from marketfetch.following.schedule import final_until, next_due
from marketfetch.planning.paginators import TimeWindowPaginator
from marketfetch.sources import Endpoint
from marketfetch.values.intervals import EVENT, Interval
from marketfetch.values.pages import Columns, Page
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import HOUR, MINUTE, SECOND, Span, SpanSet

NOON = 1_793_534_400_000
BTC = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")


class WithoutDelay(Ohlcv):
    publish_delay = 0


@pytest.mark.parametrize(
    ("interval", "endpoint", "after", "due"),
    [
        ("1m", Ohlcv, 20 * SECOND, MINUTE + 250),
        ("1m", Ohlcv, MINUTE + 250, 2 * MINUTE + 250),
        ("1m", WithoutDelay, 20 * SECOND, MINUTE + 250),
        ("1h", Ohlcv, 20 * SECOND, MINUTE + 250),  # the candle that closed at noon becomes final
        ("1h", Ohlcv, 2 * MINUTE, HOUR + 250),
        ("1M", Ohlcv, 2 * MINUTE, 30 * 24 * HOUR - 12 * HOUR + 250),
        ("event", FundingRate, 6 * MINUTE, HOUR + 5 * MINUTE),
        ("event", FundingRate, 4 * MINUTE, 5 * MINUTE),
    ],
)
def test_due_times(interval: str, endpoint: type[Endpoint], after: int, due: int) -> None:
    assert next_due(Interval.parse(interval), endpoint(), NOON + after) == NOON + due


@given(
    st.sampled_from(["1m", "3m", "1h", "1d", "1w", "1M"]),
    st.just(0) | st.integers(SECOND, 10 * MINUTE),
    st.integers(NOON, 2 * NOON),
)
def test_every_close_and_every_final_row_has_a_due_time(name: str, delay: int, now: int) -> None:
    class Delayed(Ohlcv):
        publish_delay = delay

    interval, endpoint = Interval.parse(name), Delayed()
    due = next_due(interval, endpoint, now)
    assert due > now
    # Until then nothing closes or becomes final, but in the moment that exchanges need to publish it.
    assert final_until(interval, endpoint, due - 251) == final_until(interval, endpoint, now - 250)
    assert interval.floor(due - 251) == interval.floor(now - 250)


def test_events_are_due_after_each_full_hour() -> None:
    due = [NOON]
    for _ in range(3):
        due.append(next_due(EVENT, FundingRate(), due[-1]))
    assert [moment - NOON for moment in due[1:]] == [5 * MINUTE, HOUR + 5 * MINUTE, 2 * HOUR + 5 * MINUTE]


def page_of(minutes: list[int], close: float) -> Page:
    times = np.array(minutes, np.int64) * MINUTE
    return Page(Columns(times, np.full((9, len(times)), close)), received=len(times))


@given(
    st.integers(0, 20),
    st.integers(1, 10),
    st.sets(st.integers(0, 30)),
    st.integers(0, 40),
)
def test_what_is_held_back_is_not_decided_and_not_requested_at_once(
    start: int, length: int, served: set[int], border: int
) -> None:
    span = Span(start * MINUTE, (start + length) * MINUTE)
    part = Slice(BTC, span, rows=length)
    page = page_of(sorted(minute for minute in served if start <= minute < start + length), close=1.0)
    whole = TimeWindowPaginator().outcome(part, page)
    held_back = ProvisionalRows().hold_back(part, page, whole, border * MINUTE)
    later = SpanSet.of(Span(border * MINUTE, max(border * MINUTE, span.end) + 1))
    assert not held_back.coverage.covered & later
    assert held_back.coverage.covered == whole.coverage.covered - later
    asked = SpanSet.of(*(rest.span for rest in held_back.remaining))
    assert held_back.decided | asked == SpanSet.of(span)
    assert all(rest.span.start < border * MINUTE for rest in held_back.remaining)


def test_only_rows_that_have_changed_are_revisions() -> None:
    rows, part = ProvisionalRows(), Slice(BTC, Span(0, 3 * MINUTE), rows=3)

    def see(minutes: list[int], close: float, border: int) -> None:
        page = page_of(minutes, close)
        outcome = TimeWindowPaginator().outcome(part, page)
        assert rows.hold_back(part, page, outcome, border * MINUTE).reason in {"", PROVISIONAL.detail}

    see([0, 1], 1.0, border=1)
    assert rows.held(BTC, 0) == SpanSet.of(Span(MINUTE, 2 * MINUTE))
    see([1, 2], 1.0, border=2)
    assert rows.revisions[BTC] == 0
    see([2], 2.0, border=3)
    assert rows.revisions[BTC] == 1
    assert (rows.count(BTC, 0), rows.held(BTC, 0)) == (0, SpanSet())
