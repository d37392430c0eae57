"""What files prove about the beginning and the end of a delisted symbol."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from marketfetch.archives.periods import CalendarPeriod
from marketfetch.planning.archive_absence import FilesRead
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import DAY, HOUR, Span, SpanSet
from tests.support.worlds import span_of

HOURS = Interval.parse("1h")
NOW = span_of("1970-01-01", "2024-12-01").end
YEAR = SpanSet.of(span_of("2024-01-01", "2024-12-01"))


def known(interval: Interval, listed: set[CalendarPeriod]) -> FilesRead:
    """Return files of months and days, each of which was listed."""
    read = FilesRead(interval, grains=2, listed=listed)
    read.listings = 2
    return read


def files(*labels: str) -> FilesRead:
    return known(HOURS, set(map(CalendarPeriod.parse, labels)))


def test_nothing_is_proved_without_files_or_by_half_a_listing() -> None:
    assert not files().empty(YEAR, NOW)
    half = files("2024-03")
    half.listings = 1
    assert not half.empty(YEAR, NOW)
    only = FilesRead(HOURS, grains=1, listed={CalendarPeriod.parse("2024-03")})
    only.listings = 1
    assert not only.empty(YEAR, NOW)  # of the only part, two listings have to agree
    only.listings = 2
    assert only.empty(YEAR, NOW)


def test_the_silence_begins_at_the_end_of_a_file_that_was_not_read() -> None:
    read = files("2024-02", "2024-03")
    read.record(CalendarPeriod.parse("2024-02"), span_of("2024-02-01", "2024-03-01"))
    march = span_of("2024-03-01", "2024-04-01")
    assert not read.is_over(march.end + 14 * DAY - 1)
    assert read.is_over(march.end + 14 * DAY)
    read.record(CalendarPeriod.parse("2024-03"), span_of("2024-03-01", "2024-03-10"))
    assert read.is_over(march.end)


def test_files_bound_a_life_before_they_are_read() -> None:
    assert files("2024-03", "2024-04").empty(YEAR, NOW) == YEAR - SpanSet.of(
        span_of("2024-03-01", "2024-05-01")
    )


def test_a_file_with_a_bad_row_does_not_show_what_it_lacks() -> None:
    read = files("2024-03")
    rows = span_of("2024-03-05", "2024-03-20")
    read.record(CalendarPeriod.parse("2024-03"), rows, complete=False)
    assert read.empty(YEAR, NOW) == YEAR - SpanSet.of(span_of("2024-03-01", "2024-04-01"))
    # The days of both ends tell more than the month.
    for label in ("2024-03-05", "2024-03-19", "2024-03-20"):
        day = CalendarPeriod.parse(label)
        read.listed.add(day)
        read.record(day, None)
    assert SpanSet.of(span_of("2024-03-20", "2024-03-21")) & read.empty(YEAR, NOW)
    assert SpanSet.of(span_of("2024-03-21", "2024-04-01")) - read.empty(YEAR, NOW)


def test_a_hole_between_files_is_never_empty() -> None:
    read = files("2024-03", "2024-04", "2024-05")
    read.record(CalendarPeriod.parse("2024-04"), span_of("2024-04-10", "2024-04-20"))
    assert read.empty(YEAR, NOW) == YEAR - SpanSet.of(span_of("2024-03-01", "2024-06-01"))


def test_an_end_of_yesterday_proves_nothing() -> None:
    read = files("2024-03")
    read.record(CalendarPeriod.parse("2024-03"), span_of("2024-03-05", "2024-03-20"))
    end = span_of("2024-03-05", "2024-03-20").end
    assert read.end == end
    assert not read.is_over(end + 14 * DAY - 1)
    assert read.empty(YEAR, end + DAY) == SpanSet.of(span_of("2024-01-01", "2024-03-05"))
    assert read.is_over(end + 14 * DAY)


def test_a_candle_of_a_week_belongs_to_the_month_in_which_it_opens() -> None:
    weeks, march = Interval.parse("1w"), CalendarPeriod.parse("2024-03")
    read = known(weeks, {march})
    # 4 March is the first Monday; the week of 25 March ends in April.
    assert read.empty(YEAR, NOW) == YEAR - SpanSet.of(span_of("2024-03-04", "2024-04-01"))


@given(
    birth=st.integers(0, 200 * 24),
    hours=st.integers(1, 100 * 24),
    unread=st.sets(st.integers(0, 320), max_size=5),
    hidden=st.sampled_from(["month", "day", None]),
)
def test_no_moment_with_a_row_is_called_empty(
    birth: int, hours: int, unread: set[int], hidden: str | None
) -> None:
    start = YEAR.spans[0].start + birth * HOUR
    life = Span(start, start + hours * HOUR)
    days = [CalendarPeriod(date(2024, 1, 1) + timedelta(days=n), "day") for n in range(320)]
    months = [CalendarPeriod(date(2024, n, 1), "month") for n in range(1, 12)]
    exist = [each for each in (*months, *days) if each.span.intersect(life) and each.grain != hidden]
    read = known(HOURS, set(exist))
    for number, period in enumerate(exist):
        if number not in unread:
            read.record(period, period.span.intersect(life))
    empty = read.empty(YEAR, NOW)
    assert not empty & SpanSet.of(life)
    if not unread:
        assert empty == YEAR - SpanSet.of(life)
