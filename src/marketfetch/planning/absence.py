"""When a moment without a row is believed to be empty. Pure functions; no I/O, no clock.

The absence rule: *a moment without a row is believed empty when two answers deny it.* One answer may lack a
row by mistake. For each moment, an answer has a row, or denies the moment, or is silent about it. An answer
is silent about the moments beyond its last row, where the server may have cut the page, and about every
moment if it has rows from outside the asked window.

| first answer | second answer | verdict |
|---|---|---|
| row | (not asked again) | present |
| denied | row | present, and all that the first answer denied counts as not denied |
| denied | denied | confirmed empty |
| denied | silent | absent once: asked again |
| silent | denied | absent once: asked again |
| silent | silent | unknown: asked again |

Example: asked 00:00-00:05, rows 00:00, 00:01 and 00:03 came. 00:02 is absent once; 00:04 lies beyond the last
row. Both are asked again. Where 00:02 is denied once more, it is empty.

A long stretch is denied as a whole, by windows that hold all of it: see `engine/pages/history_bounds.py`.

Before the first row of a series two answers are not enough: an exchange that keeps only its newest rows
denies everything older as often as it is asked. Such a stretch needs one more piece of evidence:

| what else is known | verdict |
|---|---|
| the adapter's request for the first row skips the stretch | empty |
| the exchange has a row from before the stretch: it keeps rows that are so old | empty |
| the endpoint declares its `retention`, so that older moments are not asked for | empty |
| the first row came when the listing says that the instrument was listed | empty |
| no row came at all, and the listing says that the instrument had ended before | empty |
| nothing of these | missing, with the reason |
"""

from __future__ import annotations

from typing import Literal

import attrs

from marketfetch.values.instruments import Instrument
from marketfetch.values.intervals import Interval
from marketfetch.values.spans import DAY, HOUR, Span, SpanSet, format_utc

__all__ = [
    "Absence",
    "Evidence",
    "beyond_last_row",
    "decide_absence",
    "listing_grace",
    "still_absent_once",
    "unproven_absence_text",
]


@attrs.frozen
class Absence:
    """The moments without a row after an answer: `empty` is confirmed, `absent_once` has one answer."""

    empty: SpanSet
    absent_once: SpanSet


def decide_absence(
    absent_once: SpanSet, denied: SpanSet, silent: SpanSet, *, at_once: bool = False
) -> Absence:
    """Decide which moments are empty, from the denials of earlier answers and those of this answer.

    `silent` are the moments that this answer does not mention: a denial of theirs is kept.

    With `at_once` a single answer is enough: the exchange is known to leave out candles without trades.

    >>> absence = decide_absence(
    ...     SpanSet.of(Span(0, 10)), denied=SpanSet.of(Span(0, 20)), silent=SpanSet()
    ... )
    >>> absence.empty.spans, absence.absent_once.spans
    ((Span(start=0, end=10),), (Span(start=10, end=20),))
    """
    empty = denied if at_once else denied & absent_once
    return Absence(empty, denied - empty | silent & absent_once)


def still_absent_once(absent_once: SpanSet, present: SpanSet) -> SpanSet:
    """Return the denials that still count beside the rows of this answer.

    A row in a denied moment shows that the earlier answer was wrong: nothing that it denied counts any more.

    >>> denied = SpanSet.of(Span(0, 10))
    >>> still_absent_once(denied, present=SpanSet.of(Span(9, 12)))
    SpanSet(spans=())
    """
    return SpanSet() if absent_once & present else absent_once


def beyond_last_row(span: Span, rows: SpanSet, anchor: Literal["start", "end"]) -> SpanSet:
    """Return the moments of a window about which a page is silent: those beyond its last row.

    `anchor` is the end of the window from which the exchange fills a page. A page without rows denies the
    whole window.

    >>> beyond_last_row(Span(0, 5), SpanSet.of(Span(0, 2), Span(3, 4)), anchor="start").spans
    (Span(start=4, end=5),)
    """
    hull = rows.hull
    if hull is None:
        return SpanSet()
    if anchor == "start":
        return SpanSet.of(Span(hull.end, span.end)) if hull.end < span.end else SpanSet()
    return SpanSet.of(Span(span.start, hull.start)) if span.start < hull.start else SpanSet()


@attrs.frozen
class Evidence:
    """What answers with rows have shown about a stretch before the first row that two answers denied.

    `first` is the first row that was seen, which lies after the stretch; None if there was no row at all.
    """

    first: int | None
    first_row_request: bool = False
    """Whether the answer to `Endpoint.first_row_request` skips the stretch."""
    row_before: bool = False
    """Whether the exchange has a row from before the stretch."""

    def proves_empty(
        self, interval: Interval, stretch: Span, instrument: Instrument, *, retention: int | None
    ) -> bool:
        """Tell whether the stretch is confirmed empty, by the second table above.

        `retention` is that of the endpoint.

        >>> stretch, minutes = Span(0, DAY), Interval.parse("1m")
        >>> listed = Instrument("A", "A", "B", listed_at=DAY)
        >>> Evidence(first=DAY).proves_empty(minutes, stretch, listed, retention=None)
        True
        >>> Evidence(first=2 * DAY).proves_empty(minutes, stretch, listed, retention=None)
        False
        """
        if self.first_row_request or self.row_before or retention is not None:
            return True
        listed, ended = instrument.listed_at, instrument.delisted_at
        if self.first is not None:
            return listed is not None and abs(self.first - interval.floor(listed)) <= listing_grace(interval)
        return ended is not None and ended <= stretch.start


def listing_grace(interval: Interval) -> int:
    """Return how far the first row may be from the listing (ms): trade begins later than announced."""
    return DAY if interval.is_event else max(HOUR, interval.typical)


def unproven_absence_text(first: int | None) -> str:
    """Say why moments that two answers denied are missing all the same.

    >>> unproven_absence_text(1_780_272_000_000)
    'the exchange serves nothing before 2026-06-01T00:00:00Z; it may keep no more: start there'
    """
    if first is None:
        return "the exchange serves no row here and none before; it may keep no more: start later"
    return f"the exchange serves nothing before {format_utc(first)}; it may keep no more: start there"
