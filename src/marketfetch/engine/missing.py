"""Update the state of a series: what is wanted, missing and given up."""

from __future__ import annotations

import attrs
import numpy as np

from marketfetch.engine.state import SeriesState
from marketfetch.protocols import PageOutcome
from marketfetch.sources import Endpoint
from marketfetch.values.coverage import MissingReason, Reason
from marketfetch.values.pages import Page
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import DAY, Span, SpanSet

__all__ = [
    "MAX_CLOCK_SKEW",
    "PUBLISH_GRACE",
    "UNPROVEN_ABSENCE",
    "beyond_retention",
    "clip_to_retention",
    "defer_recent_absence",
    "defer_unproven_absence",
    "give_up_beyond_retention",
    "publish_delay",
    "update_wanted",
    "want_beyond_retention",
]

PUBLISH_GRACE = 300_000
"""Milliseconds after its close during which a row may still be published: its absence is not believed yet."""
_MIN_RETENTION = DAY
"""Every exchange serves at least the events of the last day: a daily update needs no further proof."""
UNPROVEN_ABSENCE = Reason(
    MissingReason.UNPROVEN_ABSENCE,
    "no row was seen here or before; another question has to confirm that there is none",
)
"""Reason for moments before the first row that was seen, until `HistoryBounds` decides about them."""
MAX_CLOCK_SKEW = 300_000
"""Milliseconds between the exchange's clock and the local one, above which one of them counts as wrong."""


def update_wanted(
    state: SeriesState, endpoint: Endpoint, span: Span, now: int, *, fresh: bool = False
) -> None:
    """Set what is wanted of a series: from the start of `span` to the end of the last published row.

    `span` ends at the local time at the latest; `now` is the earlier one of the exchange's time and the local
    time. If they are minutes apart, one clock is wrong: the time between them is wanted, and given up with
    that reason. The end of an event series is set at the first call only: its "now" moves all the time, so
    each round would find something missing. So is that of a delisted symbol: nothing of it closes any more.

    With `fresh`, rows on a grid are wanted as soon as they have closed, and each call moves the end of an
    event series.

    Example: requested 00:00-12:00 in candles of 1h, now 11:20, publish delay 1 min: 00:00-11:00 is wanted.
    """
    interval = state.series.interval
    if ((interval.is_event and not fresh) or state.delisted) and state.wanted:
        return
    start = interval.ceil(span.start)
    delay = 0 if fresh and not interval.is_event else publish_delay(endpoint)
    closed_until = min(interval.ceil(span.end), interval.floor(now - delay))
    closed_until = max(start, closed_until)
    end = closed_until
    if span.end - now > MAX_CLOCK_SKEW:
        end = interval.floor(span.end)
    if closed_until < end:
        disputed = SpanSet.of(Span(closed_until, end))
        text = "by the exchange's clock this is not over yet; check this machine's"
        state.give_up(disputed, Reason(MissingReason.CLOCKS_DIFFER, text))
    state.wanted = SpanSet.of(Span(start, end)) if start < end else SpanSet()
    _give_up_beyond_retention(state, endpoint, state.missing, now)


def publish_delay(endpoint: Endpoint) -> int:
    """Return how long after its close a row is not asked for, in milliseconds.

    A declared delay is kept as it is. An endpoint of events that declares none gets PUBLISH_GRACE: a page
    covers its whole span, so an event that is published after the page would never be asked for again. Rows
    on a grid need no such rule: `defer_recent_absence` asks for them again.
    """
    if endpoint.dataset_type.event:
        return endpoint.publish_delay or PUBLISH_GRACE
    return endpoint.publish_delay


def clip_to_retention(state: SeriesState, endpoint: Endpoint, part: Slice, now: int) -> Slice | None:
    """Cut off and give up what the exchange no longer serves; None if nothing of the slice is left."""
    if endpoint.retention is None:
        return part
    beyond = _give_up_beyond_retention(state, endpoint, SpanSet.of(part.span), now)
    if not beyond:
        return part
    served = SpanSet.of(part.span) - beyond
    return None if served.hull is None else part.within(served.hull)


def beyond_retention(spans: SpanSet, series: Series, endpoint: Endpoint, now: int) -> SpanSet:
    """Return the part of some spans that is older than the endpoint serves."""
    if endpoint.retention is None or spans.hull is None:
        return SpanSet()
    oldest_served = series.interval.ceil(now - endpoint.retention)
    if spans.hull.start >= oldest_served:
        return SpanSet()
    return spans & SpanSet.of(Span(spans.hull.start, oldest_served))


def want_beyond_retention(state: SeriesState, endpoint: Endpoint) -> None:
    """Take back that moments were given up as older than the endpoint serves: files may have them.

    What the files have not, `give_up_beyond_retention` gives up again.
    """
    state.given_up.pop(_too_old(endpoint), None)


def give_up_beyond_retention(state: SeriesState, endpoint: Endpoint, now: int) -> None:
    """Give up what is older than the endpoint serves, after the files of the archive were asked for it."""
    if beyond := beyond_retention(state.missing, state.series, endpoint, now):
        text = f"{_too_old(endpoint)}, and in no file of its archive that could be used"
        state.give_up(beyond, Reason(MissingReason.TOO_OLD, text))


def _give_up_beyond_retention(state: SeriesState, endpoint: Endpoint, spans: SpanSet, now: int) -> SpanSet:
    beyond = beyond_retention(spans, state.series, endpoint, now)
    if beyond:
        state.give_up(beyond, _too_old(endpoint))
    return beyond


def _too_old(endpoint: Endpoint) -> Reason:
    """Return the reason for moments that are older than the endpoint serves."""
    days = (endpoint.retention or 0) / DAY
    return Reason(MissingReason.TOO_OLD, f"older than the exchange serves ({days:.0f} days)")


def defer_recent_absence(outcome: PageOutcome, series: Series, now: int) -> PageOutcome:
    """Give up empty and unusable moments of the last minutes for this run: a row may still come or change.

    The age of a candle counts from its end. Example: two minutes after midnight, the whole last day of a
    daily series is too recent. Events of the last minutes are never asked for: see `update_wanted`.
    """
    if series.interval.is_event or not (outcome.empty or outcome.unusable):
        return outcome
    recent = SpanSet.of(Span(series.interval.floor(now - PUBLISH_GRACE), now + DAY))
    too_recent = outcome.empty & recent | outcome.unusable & recent
    if not too_recent:
        return outcome
    unusable = outcome.unusable - recent
    return attrs.evolve(
        outcome,
        empty=outcome.empty - recent,
        unusable=unusable,
        rejected=tuple(row for row in outcome.rejected if row.time in unusable),
        given_up=outcome.given_up | too_recent,
        reason=outcome.reason or "the exchange has not published it yet; run again in a few minutes",
        kind=outcome.kind if outcome.reason else MissingReason.NOT_PUBLISHED,
    )


def defer_unproven_absence(
    state: SeriesState, endpoint: Endpoint, page: Page, outcome: PageOutcome, now: int
) -> PageOutcome:
    """Give up, as UNPROVEN_ABSENCE, what a page calls empty before the earliest row that this run has seen.

    The exchange may simply keep no older rows. Example: requested 00:00-10:00, first row 09:00: the time
    00:00-09:00 is given up until another request shows whether it is empty. Nothing is given up where the
    endpoint declares its `retention`.

    A page of events calls the time before its first row present. That is given up as well, except where

    1. the time is too short for an event to be due: less than twice the longest distance of two events, or
    2. it lies within the last day and the store has older events.
    """
    times, claimed = page.columns.times, outcome.present | outcome.empty
    if page.earliest is not None:  # a wrong row counts, too: it shows that the exchange keeps rows so old
        state.record_row_time(page.earliest)
    hull = claimed.hull
    if endpoint.retention is not None or hull is None:
        return outcome
    is_event, start = state.series.interval.is_event, hull.start
    if (
        is_event
        and state.first_stored is not None
        and state.first_stored < start
        and start > now - _MIN_RETENTION
    ):
        return outcome
    earliest_row = hull.end if state.earliest_row is None else state.earliest_row
    due_after = 2 * int(np.diff(times).max()) if is_event and len(times) > 1 else 0
    if earliest_row - due_after <= start:
        return outcome
    early = claimed & SpanSet.of(Span(start, earliest_row))
    state.give_up(early, UNPROVEN_ABSENCE)
    return attrs.evolve(outcome, present=outcome.present - early, empty=outcome.empty - early)
