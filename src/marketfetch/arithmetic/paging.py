"""Paginators: cutting a span into requests, and what a page leaves over. Pure functions of their input.

One rule decides about absence, for every exchange: *absence is believed when it is said twice*. A moment
without a row in an answer is denied; a moment denied by two answers is confirmed empty. What lies beyond
the last row of a page is not denied by it: a server may cap lower than it documents, and a short page is
never taken for the end. A row in a moment that was denied refutes whoever denied it: nothing that was said
along with it counts any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import attrs
import numpy as np

from marketfetch.errors import PaginationError
from marketfetch.protocols import Settlement
from marketfetch.values.pages import Page
from marketfetch.values.series import Slice
from marketfetch.values.spans import Span, SpanSet

__all__ = ["Cursor", "Headway", "TimeWindows"]

_LEAP = 2
"""A page that begins further away than so many of its own widest gaps may not begin where it was asked to."""
_STRIKES = 3
"""After so many answers of unusable content the moments concerned are given up and reported."""
_IDLE = 20
"""So many answers in a row may settle nothing: strikes and denials together are fewer."""


def _again(part: Slice, spans: Iterable[Span], *, denied: SpanSet, strikes: int) -> Iterator[Slice]:
    interval = part.series.interval
    for span in spans:
        rows = part.rows if interval.is_event else min(part.rows, interval.count(span))
        inside = denied & SpanSet.of(span)
        yield attrs.evolve(part, span=span, rows=rows, denied=inside, strikes=strikes, cursor=None)


def _unrefuted(denied: SpanSet, present: SpanSet) -> SpanSet:
    """What still counts of earlier denials, in the light of rows that are present."""
    return SpanSet() if denied & present else denied


def _blame(page: Page) -> str:
    counted = ", ".join(f"{count} {reason}" for reason, count in page.rejected.items())
    return f"the exchange's rows could not be used: {counted or 'no row in the window'}"


def _strike(part: Slice, page: Page, unusable: SpanSet) -> tuple[tuple[Slice, ...], SpanSet, str]:
    """Ask unusable moments again, or give them up after too many strikes."""
    if not unusable:
        return (), SpanSet(), ""
    if part.strikes + 1 >= _STRIKES:
        return (), unusable, _blame(page)
    hull = SpanSet.of(unusable.hull)
    return tuple(_again(part, hull, denied=part.denied, strikes=part.strikes + 1)), SpanSet(), ""


@attrs.define
class Headway:
    """Watches a slice being asked for, and notices when asking on leads nowhere."""

    _settled: SpanSet = attrs.field(factory=SpanSet, init=False)
    _idle: int = attrs.field(default=0, init=False)

    def note(self, settlement: Settlement) -> None:
        """Take in what an answer settled; PaginationError after too many in a row that settled nothing new.

        >>> headway = Headway()
        >>> for _ in range(100):
        ...     headway.note(Settlement(SpanSet.of(Span(0, 1))))
        Traceback (most recent call last):
        marketfetch.errors.PaginationError: 20 answers in a row settled nothing new
        """
        settled = settlement.present | settlement.empty | settlement.lost
        self._idle = 0 if settled - self._settled else self._idle + 1
        self._settled |= settled
        if self._idle >= _IDLE:
            raise PaginationError(f"{_IDLE} answers in a row settled nothing new")


@attrs.frozen
class TimeWindows:
    """Windows of a fixed number of open times, all known in advance and fetched side by side.

    `anchor` says from which end the exchange fills a page when the window holds more rows than fit.
    `omits_empty` is for exchanges that leave out candles without trades: there one denial is enough.

    >>> from marketfetch.values.series import Series
    >>> series = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")
    >>> [part.span.length for part in TimeWindows().split(Slice(series, Span(0, 300_000), rows=2))]
    [120000, 120000, 60000]
    """

    anchor: Literal["start", "end"] = "start"
    omits_empty: bool = False

    @property
    def chained(self) -> bool:
        """All windows are known in advance."""
        return False

    def split(self, whole: Slice) -> Iterator[Slice]:
        """Cut a slice into windows of at most `whole.rows` open times."""
        interval, end = whole.series.interval, whole.span.end
        start = whole.span.start
        while start < end:
            stop = min(interval.shift(interval.floor(start), whole.rows), end)
            span = Span(start, stop)
            denied = whole.denied & SpanSet.of(span)
            yield attrs.evolve(whole, span=span, rows=interval.count(span), denied=denied)
            start = stop

    def settle(self, part: Slice, page: Page) -> Settlement:
        """Say what a page proves about its window; see the module for the rule about absence."""
        present = part.series.interval.cover(page.columns.times)
        spoiled = page.spoiled - present
        denied_before = _unrefuted(part.denied, present)
        absent = SpanSet.of(part.span) - present - spoiled
        if page.stray:
            # A page with rows from elsewhere proves nothing absent: it may be the answer to something else.
            spoiled, absent = spoiled | absent, SpanSet()
        again, lost, reason = _strike(part, page, spoiled)
        far = absent & self._far_side(part.span, present)
        certain = absent - far
        confirmed = certain if self.omits_empty else certain & denied_before
        doubted = (certain - confirmed).hull
        # The far side was not spoken of; what earlier answers said about it stands.
        denied = certain - confirmed | far & denied_before
        doubtful = SpanSet.of(doubted) - far if doubted else SpanSet()
        remaining = (
            # A page with rows makes headway: what is wrong with the next one is another matter.
            *_again(part, far, denied=denied, strikes=0),
            *_again(part, doubtful, denied=denied, strikes=part.strikes),
            *again,
        )
        return Settlement(present, confirmed, remaining, lost, reason)

    def _far_side(self, span: Span, present: SpanSet) -> SpanSet:
        """The stretch beyond the last row of a page, where the server may have cut it off."""
        hull = present.hull
        if hull is None:
            return SpanSet()
        if self.anchor == "start":
            return SpanSet.of(Span(hull.end, span.end)) if hull.end < span.end else SpanSet()
        return SpanSet.of(Span(span.start, hull.start)) if span.start < hull.start else SpanSet()


@attrs.frozen
class Cursor:
    """Pages that follow one another: the next request is known only after the page before it.

    For events and for endpoints that page by `after`/`before` or by token. `newest_first` tells from
    which end of the span the pages come.
    """

    newest_first: bool = False

    @property
    def chained(self) -> bool:
        """Each page tells where the next one begins."""
        return True

    def split(self, whole: Slice) -> Iterator[Slice]:
        """A chain begins with the whole slice."""
        yield whole

    def settle(self, part: Slice, page: Page) -> Settlement:
        """Say how far a page reached; the rest of the chain is asked until it is denied twice."""
        span, times = part.span, page.columns.times
        if not len(times):
            return self._settle_empty(part, page)
        part = attrs.evolve(part, denied=_unrefuted(part.denied, part.series.interval.cover(times)))
        short = page.received < part.rows
        # Several rows may share one moment: at the edge of a full page the rest of them is still to come.
        edge = 1 if short or len(times) == 1 else 0
        if self.newest_first:
            seen, rest = Span(int(times[0]) + 1 - edge, span.end), (span.start, int(times[0]) + 1 - edge)
        else:
            after = int(times[-1]) + edge
            seen, rest = Span(span.start, after), (after, span.end)
        leap, skipped = self._leap(part, page), SpanSet()
        if page.stray and part.strikes + 1 >= _STRIKES:
            # A server that ignores the far end never answers without strays: its rows are sound all the same.
            leap, skipped = SpanSet(), leap - part.series.interval.cover(times)
        unusable = page.spoiled & SpanSet.of(seen) - leap - skipped
        again, lost, _ = _strike(part, page, unusable)
        lost |= skipped
        follow = tuple(_again(part, leap, denied=part.denied, strikes=part.strikes + page.stray))
        if rest[0] < rest[1]:
            left = Span(*rest)
            denied = part.denied & SpanSet.of(left)
            follow = (*follow, attrs.evolve(part, span=left, denied=denied, strikes=0, cursor=page.cursor))
        present = SpanSet.of(seen) - unusable - leap - skipped
        return Settlement(present, SpanSet(), (*again, *follow), lost, _blame(page) if lost else "")

    def _leap(self, part: Slice, page: Page) -> SpanSet:
        """The stretch that a page skipped at its near end, if that is so much that it is asked once more.

        A server that ignores the start gives its newest rows instead: sound, but not the next ones. Where
        rows from outside the span show that, no stretch is too short, and such an answer is a strike. The row
        nearest to it is asked for once more, too: of several in one moment the page may have the last ones
        only.
        """
        span, times = part.span, page.columns.times
        start, end = (int(times[-1]), span.end) if self.newest_first else (span.start, int(times[0]) + 1)
        widest = int(np.diff(times).max()) if len(times) > 1 else span.length
        if end - start <= (1 if page.stray else 1 + _LEAP * widest):
            return SpanSet()
        stretch = SpanSet.of(Span(start, end))
        return stretch if stretch - part.denied else SpanSet()

    def _settle_empty(self, part: Slice, page: Page) -> Settlement:
        whole = SpanSet.of(part.span)
        if page.stray or page.spoiled:
            again, lost, reason = _strike(part, page, whole)
            return Settlement(SpanSet(), SpanSet(), again, lost, reason)
        if not whole - part.denied:
            return Settlement(SpanSet(), whole)
        return Settlement(SpanSet(), SpanSet(), (attrs.evolve(part, denied=whole),))
