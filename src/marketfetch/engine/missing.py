"""What is wanted and what of it is missing: functions of the books and of the server's time."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from marketfetch.engine.state import SeriesState
from marketfetch.exchange import Endpoint, Exchange
from marketfetch.planning.batches import Capacity, FetchTask, choose_page_size
from marketfetch.protocols import PageOutcome
from marketfetch.values.pages import Page
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

__all__ = [
    "MAX_CLOCK_SKEW",
    "PUBLISH_GRACE",
    "UNPROVEN_ABSENCE",
    "clip_to_retention",
    "defer_recent_absence",
    "doubt_absence_before_first_row",
    "plan_tasks",
    "update_wanted",
]

_DAY = 86_400_000
PUBLISH_GRACE = 300_000
"""How late a row may come and still be awaited, in milliseconds."""
_ALWAYS_RETAINED = _DAY
"""What every exchange keeps of events, which are few: to bring a series up to date daily costs no more."""
UNPROVEN_ABSENCE = (
    "said to have no row, before any row of the series was seen: another question has to confirm it"
)
"""Why moments are missing that pages have denied twice, until `HistoryBounds.conclude` decides about them."""
MAX_CLOCK_SKEW = 300_000
"""How far the exchange's clock and ours may be apart before one of them counts as wrong, in milliseconds."""


def update_wanted(state: SeriesState, endpoint: Endpoint, span: Span, now: int) -> None:
    """Set what is wanted of a series: from the start to the last row that is closed.

    `span` ends by our clock at the latest, `now` is the earlier one of the exchange's and ours. If they are
    minutes apart, one of them is wrong, and what lies between them is wanted and missing. "Now" moves with
    every millisecond: for series of events it stays what it was at the first call.
    """
    interval = state.series.interval
    if interval.is_event and state.wanted:
        return
    start = interval.ceil(span.start)
    end = min(interval.ceil(span.end), interval.floor(now - endpoint.publish_delay))
    told, end = max(start, end), interval.floor(span.end) if span.end - now > MAX_CLOCK_SKEW else end
    if told < end:
        disputed = SpanSet.of(Span(told, end))
        state.give_up(disputed, "by the exchange's clock this is not over yet; check this machine's")
    state.wanted = SpanSet.of(Span(start, end)) if start < end else SpanSet()
    _give_up_beyond_retention(state, endpoint, state.missing, now)


def clip_to_retention(state: SeriesState, endpoint: Endpoint, part: Slice, now: int) -> Slice | None:
    """Cut off what has fallen out of the exchange's reach since it was planned; None if nothing is left."""
    lost = _give_up_beyond_retention(state, endpoint, SpanSet.of(part.span), now)
    if not lost:
        return part
    left = SpanSet.of(part.span) - lost
    return attrs.evolve(part, span=left.hull) if left.hull is not None else None


def _give_up_beyond_retention(state: SeriesState, endpoint: Endpoint, spans: SpanSet, now: int) -> SpanSet:
    if endpoint.retention is None or spans.hull is None:
        return SpanSet()
    horizon = state.series.interval.ceil(now - endpoint.retention)
    if spans.hull.start >= horizon:
        return SpanSet()
    beyond = spans & SpanSet.of(Span(spans.hull.start, horizon))
    state.give_up(beyond, f"older than the exchange serves ({endpoint.retention / _DAY:.0f} days)")
    return beyond


def defer_recent_absence(outcome: PageOutcome, series: Series, now: int) -> PageOutcome:
    """Confirm nothing for good that is younger than a few minutes: the row may be late, or be mended.

    A candle is as young as its end: the whole day that was over two minutes ago is held back. Events have no
    grid; for them the endpoint's `publish_delay` keeps the same distance.
    """
    if series.interval.is_event:
        return outcome
    recent = SpanSet.of(Span(series.interval.floor(now - PUBLISH_GRACE), now + _DAY))
    young = outcome.empty & recent | outcome.unusable & recent
    if not young:
        return outcome
    unusable = outcome.unusable - recent
    return attrs.evolve(
        outcome,
        empty=outcome.empty - recent,
        unusable=unusable,
        rejected=tuple(row for row in outcome.rejected if row.time in unusable),
        given_up=outcome.given_up | young,
        reason=outcome.reason or "the exchange has not published it yet; run again in a few minutes",
    )


def doubt_absence_before_first_row(
    state: SeriesState, endpoint: Endpoint, page: Page, outcome: PageOutcome, now: int
) -> PageOutcome:
    """Take back what a page says of moments before the first row this run saw: the exchange may keep no more.

    The moments are given up as UNPROVEN_ABSENCE until another question has been asked. An endpoint that
    declares its `retention` is believed. Example: asked 00:00-10:00, first row 09:00: 00:00-09:00 is empty.

    A page of events counts the moments before its first row as present. They are taken back as well, unless
    they are so few that the next event was not due, or follow what the store has and are of the last day.
    """
    times, claimed = page.columns.times, outcome.present | outcome.empty
    if page.earliest is not None:  # it may be wrong or without a value, and it is there
        state.record_row_time(page.earliest)
    if endpoint.retention is not None or claimed.hull is None:
        return outcome
    is_event, start = state.series.interval.is_event, claimed.hull.start
    if (
        is_event
        and state.first_stored is not None
        and state.first_stored < start
        and start > now - _ALWAYS_RETAINED
    ):
        return outcome
    known_from = claimed.hull.end if state.earliest_row is None else state.earliest_row
    due = 2 * int(np.diff(times).max()) if is_event and len(times) > 1 else 0
    if known_from - due <= start:
        return outcome
    early = claimed & SpanSet.of(Span(start, known_from))
    state.give_up(early, UNPROVEN_ABSENCE)
    return attrs.evolve(outcome, present=outcome.present - early, empty=outcome.empty - early)


def plan_tasks(states: Sequence[SeriesState], exchange: Exchange, capacity: Capacity) -> list[FetchTask]:
    """Return what is missing, with the page size by which it is fetched soonest.

    Series that draw on the same limit pool are weighed together.
    """
    lacking = [(state, exchange.endpoint(state.series.dataset)) for state in states if state.missing]
    rows: dict[str, int] = {}
    for state, endpoint in lacking:
        pool = _pool(endpoint)
        # Nobody knows how many events there will be: they do not count.
        steps = 0 if endpoint.paginator.sequential else sum(map(state.series.interval.count, state.missing))
        rows[pool] = rows.get(pool, 0) + steps
    tasks = []
    for state, endpoint in lacking:
        size = endpoint.page_sizes[-1]
        if not endpoint.paginator.sequential:
            size = choose_page_size(endpoint.page_sizes, endpoint.cost, rows[_pool(endpoint)], capacity)
        tasks.append(FetchTask(state.series, _whole_steps(state), endpoint.paginator, size))
    return tasks


def _whole_steps(state: SeriesState) -> SpanSet:
    """Return what is missing in whole steps of the grid: no request finds a candle by a part of it.

    Stores of earlier versions may call the first part of a candle empty that was late.
    """
    interval, missing = state.series.interval, state.missing
    if interval.is_event:
        return missing
    return SpanSet.of(*(Span(interval.floor(span.start), interval.ceil(span.end)) for span in missing))


def _pool(endpoint: Endpoint) -> str:
    return endpoint.cost(endpoint.page_sizes[-1]).pool.name
