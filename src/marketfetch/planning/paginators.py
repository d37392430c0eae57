"""Paginators: cutting a span into requests, and what a page leaves over. Pure functions of their input.

One rule decides about absence, for every exchange: *absence is believed when it is said twice*. A moment
without a row in an answer is denied; a moment denied by two answers is confirmed empty. What lies beyond
the last row of a page is not denied by it: a server may cap lower than it documents, and a short page is
never taken for the end. A row in a moment that was denied refutes whoever denied it: nothing that was said
along with it counts any more.

And one rule about rows that are wrong: *a wrong row is believed when it is said three times*, the same each
time. Then the moment is unusable. Where answers differ, or come with rows from elsewhere, it is lost in this
run and asked for by the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import PaginationError
from marketfetch.planning.running_union import RunningUnion, span_sets
from marketfetch.planning.unusable_rows import cells_of, repeated_rows
from marketfetch.protocols import PageOutcome
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Page
from marketfetch.values.rejected_rows import RejectedRow
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

__all__ = ["CursorPaginator", "ProgressGuard", "TimeWindowPaginator"]

_SKIPPED_GAPS = 2
"""A page that begins further away than so many of its own widest gaps may not begin where it was asked to."""
_MAX_BAD_ANSWERS = 3
"""After so many answers of unusable content the moments concerned are unusable, or given up and reported."""
_NOT_YET = frozenset({"unfinished", "without a value"})
_MAX_ANSWERS_WITHOUT_PROGRESS = 20
"""So many answers in a row may settle nothing: strikes and denials together are fewer."""


def _retry(
    part: Slice,
    spans: Iterable[Span],
    *,
    denied: SpanSet,
    strikes: int,
    suspects: tuple[RejectedRow, ...] = (),
) -> Iterator[Slice]:
    interval = part.series.interval
    for span in spans:
        yield attrs.evolve(
            part,
            span=span,
            rows=part.rows if interval.is_event else min(part.rows, interval.count(span)),
            absent_once=denied & SpanSet.of(span),
            bad_answers=strikes,
            cursor=None,
            invalid_rows=tuple(row for row in suspects if row.time in span),
        )


def _still_absent_once(denied: SpanSet, present: SpanSet) -> SpanSet:
    """What still counts of earlier denials, in the light of rows that are present."""
    return SpanSet() if denied & present else denied


def _reason(page: Page) -> str:
    counted = ", ".join(f"{count} {reason}" for reason, count in page.rejected.items())
    if page.rejected and _NOT_YET.issuperset(page.rejected):
        return f"the exchange has no value yet: {counted}"
    return f"the exchange's rows could not be used: {counted or 'no row in the window'}"


@attrs.frozen
class _BadAnswerOutcome:
    """What becomes of moments without a sound row: asked again, or unusable, or given up."""

    retries: tuple[Slice, ...] = ()
    unusable: SpanSet = attrs.field(factory=SpanSet)
    rejected: tuple[RejectedRow, ...] = ()
    given_up: SpanSet = attrs.field(factory=SpanSet)
    reason: str = ""


def _bad_answer_outcome(part: Slice, page: Page, spoiled: SpanSet) -> _BadAnswerOutcome:
    """Ask spoiled moments again; after too many strikes decide which are unusable and give up the others."""
    if not spoiled:
        return _BadAnswerOutcome()
    same = repeated_rows(part, page)
    if part.bad_answers + 1 < _MAX_BAD_ANSWERS:
        hull, strikes = SpanSet.of(spoiled.hull), part.bad_answers + 1
        return _BadAnswerOutcome(
            tuple(_retry(part, hull, denied=part.absent_once, strikes=strikes, suspects=same))
        )
    unusable = spoiled & cells_of(same, part.series.interval)
    rejected = tuple(row for row in same if row.time in unusable)
    lost, reason = spoiled - unusable, _reason(page)
    if lost & cells_of(page.invalid, part.series.interval):
        reason += "; its answers differ"
    return _BadAnswerOutcome((), unusable, rejected, lost, reason)


def _span_or_none(start: int, end: int) -> Span | None:
    return Span(start, end) if start < end else None


def _edges(spoiled: SpanSet, interval: Interval) -> NDArray[np.int64]:
    """Return the first and the last open time of every stretch, sorted."""
    return np.unique([[span.start, interval.floor(span.end - 1)] for span in spoiled]).astype(np.int64)


@attrs.define
class ProgressGuard:
    """Watches a slice being asked for, and notices when asking on leads nowhere."""

    _decided: RunningUnion[SpanSet] = attrs.field(factory=span_sets, init=False)
    _answers_without_progress: int = attrs.field(default=0, init=False)

    def observe(self, outcome: PageOutcome) -> None:
        """Take in what an answer settled; PaginationError after too many in a row that settled nothing new.

        >>> headway = ProgressGuard()
        >>> for _ in range(100):
        ...     headway.observe(PageOutcome(SpanSet.of(Span(0, 1))))
        Traceback (most recent call last):
        marketfetch.errors.PaginationError: 20 answers in a row settled nothing new
        """
        new = settled = outcome.decided
        for before in self._decided:
            new -= before
        self._decided.add(settled)
        self._answers_without_progress = 0 if new else self._answers_without_progress + 1
        if self._answers_without_progress >= _MAX_ANSWERS_WITHOUT_PROGRESS:
            raise PaginationError(f"{_MAX_ANSWERS_WITHOUT_PROGRESS} answers in a row settled nothing new")


@attrs.frozen
class TimeWindowPaginator:
    """Windows of a fixed number of open times, all known in advance and fetched side by side.

    `anchor` says from which end the exchange fills a page when the window holds more rows than fit.
    `skips_empty_candles` is for exchanges that leave out candles without trades: there one denial is enough.

    >>> from marketfetch.values.series import Series
    >>> series = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")
    >>> [part.span.length for part in TimeWindowPaginator().split(Slice(series, Span(0, 300_000), rows=2))]
    [120000, 120000, 60000]
    """

    anchor: Literal["start", "end"] = "start"
    skips_empty_candles: bool = False

    @property
    def sequential(self) -> bool:
        """All windows are known in advance."""
        return False

    def split(self, whole: Slice) -> Iterator[Slice]:
        """Cut a slice into windows of at most `whole.rows` open times."""
        interval, end = whole.series.interval, whole.span.end
        start = whole.span.start
        while start < end:
            stop = min(interval.shift(interval.floor(start), whole.rows), end)
            span = Span(start, stop)
            denied = whole.absent_once & SpanSet.of(span)
            yield attrs.evolve(whole, span=span, rows=interval.count(span), absent_once=denied)
            start = stop

    def outcome(self, part: Slice, page: Page) -> PageOutcome:
        """Say what a page proves about its window; see the module for the rule about absence."""
        present = part.series.interval.cover(page.columns.times)
        spoiled = page.without_sound_row - present
        denied_before = _still_absent_once(part.absent_once, present)
        absent = SpanSet.of(part.span) - present - spoiled
        if page.has_rows_outside:
            # A page with rows from elsewhere proves nothing absent: it may be the answer to something else.
            spoiled, absent = spoiled | absent, SpanSet()
        strike = _bad_answer_outcome(part, page, spoiled)
        far = absent & self._after_last_row(part.span, present | spoiled)
        certain = absent - far
        confirmed = certain if self.skips_empty_candles else certain & denied_before
        doubted = (certain - confirmed).hull
        # The far side was not spoken of; what earlier answers said about it stands.
        denied = certain - confirmed | far & denied_before
        doubtful = SpanSet.of(doubted) - far if doubted else SpanSet()
        remaining = (
            # A page with rows makes headway: what is wrong with the next one is another matter.
            *_retry(part, far, denied=denied, strikes=0),
            *_retry(part, doubtful, denied=denied, strikes=part.bad_answers),
            *strike.retries,
        )
        return PageOutcome(
            present, confirmed, remaining, strike.given_up, strike.reason, strike.unusable, strike.rejected
        )

    def _after_last_row(self, span: Span, present: SpanSet) -> SpanSet:
        """The stretch beyond the last row of a page, where the server may have cut it off."""
        hull = present.hull
        if hull is None:
            return SpanSet()
        if self.anchor == "start":
            return SpanSet.of(Span(hull.end, span.end)) if hull.end < span.end else SpanSet()
        return SpanSet.of(Span(span.start, hull.start)) if span.start < hull.start else SpanSet()


@attrs.frozen
class CursorPaginator:
    """Pages that follow one another: the next request is known only after the page before it.

    For events and for endpoints that page by `after`/`before` or by token. `newest_first` tells from
    which end of the span the pages come.
    """

    newest_first: bool = False

    @property
    def sequential(self) -> bool:
        """Each page tells where the next one begins."""
        return True

    def split(self, whole: Slice) -> Iterator[Slice]:
        """A chain begins with the whole slice."""
        yield whole

    def outcome(self, part: Slice, page: Page) -> PageOutcome:
        """Say how far a page reached; the rest of the chain is asked until it is denied twice."""
        span, times = part.span, page.columns.times
        if not len(times):
            if not self._can_go_on_behind(part, page):
                return self._outcome_of_empty_page(part, page)
            times = _edges(page.without_sound_row, part.series.interval)
        part = attrs.evolve(
            part, absent_once=_still_absent_once(part.absent_once, part.series.interval.cover(times))
        )
        short = page.received < part.rows
        # Several rows may share one moment: at the edge of a full page the rest of them is still to come.
        with_edge = short or len(times) == 1
        if self.newest_first:
            border = int(times[0]) if with_edge else self._next_possible_open(part, times[0])
            seen, rest = SpanSet.of(_span_or_none(border, span.end)), _span_or_none(span.start, border)
        else:
            border = self._next_possible_open(part, times[-1]) if with_edge else int(times[-1])
            seen, rest = SpanSet.of(_span_or_none(span.start, border)), _span_or_none(border, span.end)
        leap, skipped = self._skipped_range(part, page, times), SpanSet()
        if page.has_rows_outside and part.bad_answers + 1 >= _MAX_BAD_ANSWERS:
            # A server that ignores the far end never answers without strays: its rows are sound all the same.
            leap, skipped = SpanSet(), leap - part.series.interval.cover(times)
        spoiled = page.without_sound_row & seen - leap - skipped
        strike = _bad_answer_outcome(part, page, spoiled)
        # Where no row of the page is sound, its strikes belong to the rows that were wrong.
        strikes = part.bad_answers + page.has_rows_outside if len(page.columns) else 0
        follow = tuple(_retry(part, leap, denied=part.absent_once, strikes=strikes))
        if rest is not None:
            next_page = attrs.evolve(part, bad_answers=0, invalid_rows=(), cursor=page.cursor)
            follow = (
                *follow,
                attrs.evolve(next_page, span=rest, absent_once=part.absent_once & SpanSet.of(rest)),
            )
        present = seen - spoiled - leap - skipped
        lost = strike.given_up | skipped
        reason = strike.reason or (_reason(page) if lost else "")
        remaining = (*strike.retries, *follow)
        return PageOutcome(present, SpanSet(), remaining, lost, reason, strike.unusable, strike.rejected)

    @staticmethod
    def _next_possible_open(part: Slice, time: int) -> int:
        """Where the next row may open at the earliest: a chain may have a grid, too."""
        return min(part.series.interval.ceil(int(time) + 1), part.span.end)

    def _can_go_on_behind(self, part: Slice, page: Page) -> bool:
        """Tell whether the rest of a chain can be asked for behind rows that are all wrong.

        Once they have been wrong often enough: what lies between and behind them is no worse for it.
        """
        final = (
            bool(page.without_sound_row)
            and not page.has_rows_outside
            and part.bad_answers + 1 >= _MAX_BAD_ANSWERS
        )
        return final and page.without_sound_row != SpanSet.of(part.span)

    def _skipped_range(self, part: Slice, page: Page, times: NDArray[np.int64]) -> SpanSet:
        """The stretch that a page skipped at its near end, if that is so much that it is asked once more.

        A server that ignores the start gives its newest rows instead: sound, but not the next ones. Where
        rows from outside the span show that, no stretch is too short, and such an answer is a strike. The row
        nearest to it is asked for once more, too: of several in one moment the page may have the last ones
        only.
        """
        span = part.span
        nearest = int(times[-1] if self.newest_first else times[0])
        start, end = (
            (nearest, span.end)
            if self.newest_first
            else (span.start, self._next_possible_open(part, nearest))
        )
        widest = int(np.diff(times).max()) if len(times) > 1 else span.length
        if end - start <= self._next_possible_open(part, nearest) - nearest + (
            0 if page.has_rows_outside else _SKIPPED_GAPS * widest
        ):
            return SpanSet()
        stretch = SpanSet.of(Span(start, end))
        return stretch if stretch - part.absent_once else SpanSet()

    def _outcome_of_empty_page(self, part: Slice, page: Page) -> PageOutcome:
        whole = SpanSet.of(part.span)
        if page.has_rows_outside or page.without_sound_row:
            strike = _bad_answer_outcome(part, page, whole)
            lost, reason = strike.given_up, strike.reason
            return PageOutcome(
                SpanSet(), SpanSet(), strike.retries, lost, reason, strike.unusable, strike.rejected
            )
        if not whole - part.absent_once:
            return PageOutcome(SpanSet(), whole)
        return PageOutcome(SpanSet(), SpanSet(), (attrs.evolve(part, absent_once=whole),))
