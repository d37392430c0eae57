"""Paginators: cutting a span into requests, and deciding what follows from a page. Pure functions.

Whether a moment without a row is empty is decided in `absence.py`. Whether a wrong row is believed is decided
here: *a wrong row is believed when three answers have it*, the same to the letter. Then its moment is
unusable. Where the answers differ, or have rows from outside the window, the moment is given up in this run
and the next run asks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from marketfetch.errors import PaginationError
from marketfetch.planning.absence import beyond_last_row, decide_absence, still_absent_once
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
"""A page that begins more than two of its own widest gaps after the start may have skipped rows there."""
_MAX_BAD_ANSWERS = 3
"""After so many bad answers about a moment no request asks for it any more: it is unusable or given up."""
_MAX_ANSWERS_WITHOUT_PROGRESS = 20
"""More than all bad answers and denials of one slice together: a server that gives so many is broken."""


def _ask_again(
    part: Slice,
    spans: Iterable[Span],
    *,
    absent_once: SpanSet,
    bad_answers: int,
    invalid_rows: tuple[RejectedRow, ...] = (),
) -> Iterator[Slice]:
    """Return one slice for each span; each takes over what is known of its own moments."""
    known = attrs.evolve(
        part, absent_once=absent_once, bad_answers=bad_answers, cursor=None, invalid_rows=invalid_rows
    )
    return map(known.within, spans)


def _reason(page: Page) -> str:
    counted = ", ".join(f"{count} {reason}" for reason, count in page.rejected.items())
    if page.may_become_right:
        return f"the exchange has no value yet: {counted}"
    return f"the exchange's rows could not be used: {counted or 'no row in the window'}"


def _bad_answer_outcome(part: Slice, page: Page, without_sound_row: SpanSet) -> PageOutcome:
    """Decide about moments for which a page has no sound row.

    1. There are none: nothing to do.
    2. It is the first or second bad answer: ask again, and remember the wrong rows that all answers had.
    3. It is the third one: moments whose wrong rows were the same three times are unusable, all others are
       given up.
    """
    if not without_sound_row:
        return PageOutcome(SpanSet())
    same = repeated_rows(part, page)
    bad_answers = part.bad_answers + 1
    if bad_answers < _MAX_BAD_ANSWERS:
        hull = SpanSet.of(without_sound_row.hull)
        retries = _ask_again(
            part, hull, absent_once=part.absent_once, bad_answers=bad_answers, invalid_rows=same
        )
        return PageOutcome(SpanSet(), remaining=tuple(retries))
    unusable = without_sound_row & cells_of(same, part.series.interval)
    rejected = tuple(row for row in same if row.time in unusable)
    given_up, reason = without_sound_row - unusable, _reason(page)
    if given_up & cells_of(page.invalid, part.series.interval):
        reason += "; its answers differ"
    return PageOutcome(SpanSet(), given_up=given_up, reason=reason, unusable=unusable, rejected=rejected)


def _span_or_none(start: int, end: int) -> Span | None:
    return Span(start, end) if start < end else None


def _edges(spans: SpanSet, interval: Interval) -> NDArray[np.int64]:
    """Return the first and the last open time of every span, sorted."""
    return np.unique([[span.start, interval.floor(span.end - 1)] for span in spans]).astype(np.int64)


@attrs.define
class ProgressGuard:
    """Counts the answers about a slice that decide nothing new, and ends a loop that leads nowhere."""

    _decided: RunningUnion[SpanSet] = attrs.field(factory=span_sets, init=False)
    _answers_without_progress: int = attrs.field(default=0, init=False)

    def observe(self, outcome: PageOutcome) -> None:
        """Take in the outcome of a page; PaginationError after 20 in a row that decided nothing new.

        An outcome that leaves nothing to request ends by itself and is not counted.

        >>> from marketfetch.adapter import Series
        >>> part = Slice(Series.of("okx", "ohlcv", "BTC-USDT", "1m"), Span(0, 60_000), rows=1)
        >>> guard = ProgressGuard()
        >>> for _ in range(100):
        ...     guard.observe(PageOutcome(SpanSet.of(part.span), remaining=(part,)))
        Traceback (most recent call last):
        marketfetch.errors.PaginationError: 20 answers in a row decided nothing new
        """
        if not outcome.remaining:
            return
        new = decided = outcome.decided
        for before in self._decided:
            new -= before
        self._decided.add(decided)
        self._answers_without_progress = 0 if new else self._answers_without_progress + 1
        if self._answers_without_progress >= _MAX_ANSWERS_WITHOUT_PROGRESS:
            raise PaginationError(f"{_MAX_ANSWERS_WITHOUT_PROGRESS} answers in a row decided nothing new")


@attrs.frozen
class TimeWindowPaginator:
    """Windows of a fixed number of open times, all known in advance and fetched side by side.

    `anchor` is the end from which the exchange fills a page when the window holds more rows than fit.
    `skips_empty_candles` is for exchanges that leave out candles without trades: one answer without a row is
    then enough. `max_span` is the longest window that the exchange answers, in milliseconds.

    Example: 00:00-00:10 of 1m candles is missing, and a page has 5 rows: 00:00-00:05 and 00:05-00:10 are
    asked for. What follows from the first answer:

    | asked | rows that come | what follows |
    |---|---|---|
    | 00:00-00:05 | 00:00, 00:01, 00:03 | 00:02 is absent once, 00:04 may have been cut off: ask for both |
    | 00:04-00:05 | 00:04 | present |
    | 00:02-00:03 | none | absent for the second time: empty |

    >>> from marketfetch.adapter import Columns, Series
    >>> minutes = Series.of("binance-usdm", "mark_price", "BTCUSDT", "1m")
    >>> windows = list(TimeWindowPaginator().split(Slice(minutes, Span(0, 600_000), rows=5)))
    >>> [str(part.span) for part in windows][0]
    '[1970-01-01T00:00:00Z, 1970-01-01T00:05:00Z)'
    >>> page = Page(Columns(np.array([0, 60_000, 180_000]), np.ones((4, 3))), received=3)
    >>> outcome = TimeWindowPaginator().outcome(windows[0], page)
    >>> [(part.span.start // 60_000, part.span.end // 60_000) for part in outcome.remaining]
    [(4, 5), (2, 3)]
    """

    anchor: Literal["start", "end"] = "start"
    skips_empty_candles: bool = False
    max_span: int | None = None

    @property
    def sequential(self) -> bool:
        """False: all windows are known in advance."""
        return False

    def split(self, whole: Slice) -> Iterator[Slice]:
        """Cut a slice into windows of at most `whole.rows` open times and `max_span` milliseconds."""
        interval, end = whole.series.interval, whole.span.end
        start = whole.span.start
        while start < end:
            stop = min(interval.shift(interval.floor(start), whole.rows), end)
            if self.max_span is not None and stop - start > self.max_span:
                # A candle that is longer than `max_span` is requested alone.
                one = interval.shift(interval.floor(start), 1)
                stop = max(interval.floor(start + self.max_span), one)
            yield whole.within(Span(start, stop))
            start = stop

    def outcome(self, part: Slice, page: Page) -> PageOutcome:
        """Decide about each moment of a window.

        1. It has a sound row: present.
        2. It has wrong rows only: see `_bad_answer_outcome`. If the page has rows from outside the window,
           moments without a row are treated alike: the page may be the answer to another request.
        3. It has no row and lies beyond the last row: the page is silent about it; ask again.
        4. It has no row and lies before the last row: denied; `absence.py` says whether it is empty.
        """
        present = part.series.interval.cover(page.columns.times)
        without_sound_row = page.without_sound_row - present
        absent = SpanSet.of(part.span) - present - without_sound_row
        if page.has_rows_outside:
            without_sound_row, absent = without_sound_row | absent, SpanSet()
        if not (absent or without_sound_row):
            return PageOutcome(present)
        bad = _bad_answer_outcome(part, page, without_sound_row)
        silent = absent & beyond_last_row(part.span, present | without_sound_row, self.anchor)
        denied = absent - silent
        absence = decide_absence(
            still_absent_once(part.absent_once, present), denied, silent, at_once=self.skips_empty_candles
        )
        # One request for all denied moments that are not yet confirmed: from the first to the last of them.
        to_confirm = SpanSet.of((denied - absence.empty).hull) - silent
        once = absence.absent_once
        remaining = (
            # The page got further: bad answers about the moments before its last row say nothing of these.
            *_ask_again(part, silent, absent_once=once, bad_answers=0),
            *_ask_again(part, to_confirm, absent_once=once, bad_answers=part.bad_answers),
            *bad.remaining,
        )
        return attrs.evolve(bad, present=present, empty=absence.empty, remaining=remaining)


@attrs.frozen
class CursorPaginator:
    """A chain of pages: where the next request begins is known only after the page before it.

    For events, and for endpoints that page by `after`/`before` or by token. With `newest_first` the pages
    come from the end of the span.

    Example: funding events of 1 and 2 June are missing, and a page has 3 rows.

    | asked | rows that come | what follows |
    |---|---|---|
    | 1 June 00:00 to 3 June | 1 June 00:00, 08:00, 16:00 | full page: at 16:00 may be more, ask from there |
    | 1 June 16:00 to 3 June | 1 June 16:00, 2 June 00:00, 08:00 | full page: ask from 2 June 08:00 |
    | 2 June 08:00 to 3 June | 2 June 08:00, 16:00 | short page: ask from 1 ms after 16:00 |
    | 2 June 16:00:00.001 to 3 June | none | absent once: ask again |
    | the same | none | absent for the second time: empty |

    >>> from marketfetch.adapter import Columns, Series
    >>> events = Series.of("binance-usdm", "funding_rate", "BTCUSDT", "event")
    >>> hour = 3_600_000
    >>> page = Page(Columns(np.array([0, 8, 16]) * hour, np.ones((3, 3))), received=3)
    >>> outcome = CursorPaginator().outcome(Slice(events, Span(0, 48 * hour), rows=3), page)
    >>> [(part.span.start // hour, part.span.end // hour) for part in outcome.remaining]
    [(16, 48)]
    """

    newest_first: bool = False

    @property
    def sequential(self) -> bool:
        """True: each page tells where the next one begins."""
        return True

    def split(self, whole: Slice) -> Iterator[Slice]:
        """Yield the slice itself: a chain begins with the whole of it."""
        yield whole

    def outcome(self, part: Slice, page: Page) -> PageOutcome:
        """Decide how far a page reached, and what the next request asks for.

        The page decides about the moments from the near end of the span to its last row (`reached`). The
        moments behind that (`ahead`) are the next request. Within `reached`:

        1. The page skipped a long stretch at its near end: ask for the stretch again (`skipped`).
        2. It did so in three answers with rows from outside the span: give the stretch up. The server ignores
           the far end of the span; its rows are sound all the same.
        3. Moments have wrong rows only: see `_bad_answer_outcome`.
        4. All other moments are present: between two events there is nothing to ask for.
        """
        interval, times = part.series.interval, page.columns.times
        if not len(times):
            if not self._can_continue_behind_wrong_rows(part, page):
                return self._outcome_without_rows(part, page)
            times = _edges(page.without_sound_row, interval)
        absent_once = still_absent_once(part.absent_once, interval.cover(times))
        part = attrs.evolve(part, absent_once=absent_once)
        reached, ahead = self._progress(part, page, times)
        skipped, given_up = self._skipped_range(part, page, times), SpanSet()
        if page.has_rows_outside and part.bad_answers + 1 >= _MAX_BAD_ANSWERS:
            skipped, given_up = SpanSet(), skipped - interval.cover(times)
        bad = _bad_answer_outcome(part, page, page.without_sound_row & reached - skipped - given_up)
        # Without a sound row on the page the bad answers belong to the wrong rows, not to the stretch.
        bad_answers = part.bad_answers + page.has_rows_outside if len(page.columns) else 0
        remaining = (
            *bad.remaining,
            *_ask_again(part, skipped, absent_once=absent_once, bad_answers=bad_answers),
        )
        if ahead is not None:
            next_part = attrs.evolve(
                part,
                span=ahead,
                absent_once=absent_once & SpanSet.of(ahead),
                bad_answers=0,
                invalid_rows=(),
                cursor=page.cursor,
            )
            remaining = (*remaining, next_part)
        present = reached - page.without_sound_row - skipped - given_up
        given_up |= bad.given_up
        reason = bad.reason or (_reason(page) if given_up else "")
        return attrs.evolve(bad, present=present, remaining=remaining, given_up=given_up, reason=reason)

    def _progress(self, part: Slice, page: Page, times: NDArray[np.int64]) -> tuple[SpanSet, Span | None]:
        """Return the moments from the near end of the span to the last row of the page, and the rest.

        Several rows may share one moment. On a full page the rest of them may still come, so the moment of
        its last row belongs to the rest; unless it is the only one, or the chain would not move.
        """
        span = part.span
        with_last = page.received < part.rows or len(times) == 1
        if self.newest_first:
            border = int(times[0]) if with_last else self._next_possible_open(part, times[0])
            return SpanSet.of(_span_or_none(border, span.end)), _span_or_none(span.start, border)
        border = self._next_possible_open(part, times[-1]) if with_last else int(times[-1])
        return SpanSet.of(_span_or_none(span.start, border)), _span_or_none(border, span.end)

    @staticmethod
    def _next_possible_open(part: Slice, time: int) -> int:
        """Return where the next row may open at the earliest; candles in a chain lie on a grid."""
        return min(part.series.interval.ceil(int(time) + 1), part.span.end)

    def _can_continue_behind_wrong_rows(self, part: Slice, page: Page) -> bool:
        """Tell whether the chain goes on behind a page with wrong rows only.

        It does so after the third bad answer: the moments between and behind the wrong rows are asked for.
        """
        final = (
            bool(page.without_sound_row)
            and not page.has_rows_outside
            and part.bad_answers + 1 >= _MAX_BAD_ANSWERS
        )
        return final and page.without_sound_row != SpanSet.of(part.span)

    def _skipped_range(self, part: Slice, page: Page, times: NDArray[np.int64]) -> SpanSet:
        """Return the stretch between the near end of the span and the nearest row, if rows may lie in it.

        Example: asked from 1 June on, rows of 20 June, 8 hours apart, came: 1 to 20 June is asked again. A
        server that ignores the start gives its newest rows instead: sound rows, but not the next ones.

        A stretch of up to two of the page's widest gaps is believed, unless rows from outside the span show
        that the server misread the request. The moment of the nearest row belongs to the stretch: of several
        rows in one moment the page may have the last ones only. A stretch that an earlier answer denied is
        not asked again.
        """
        span = part.span
        nearest = int(times[-1] if self.newest_first else times[0])
        start, end = (
            (nearest, span.end)
            if self.newest_first
            else (span.start, self._next_possible_open(part, nearest))
        )
        widest = int(np.diff(times).max()) if len(times) > 1 else span.length
        believed = 0 if page.has_rows_outside else _SKIPPED_GAPS * widest
        if end - start <= self._next_possible_open(part, nearest) - nearest + believed:
            return SpanSet()
        stretch = SpanSet.of(Span(start, end))
        return stretch if stretch - part.absent_once else SpanSet()

    def _outcome_without_rows(self, part: Slice, page: Page) -> PageOutcome:
        """Decide about a page without a sound row: a bad answer, or the whole span is denied.

        A chain is asked again as a whole until two answers have denied all of it.
        """
        whole = SpanSet.of(part.span)
        if page.has_rows_outside or page.without_sound_row:
            return _bad_answer_outcome(part, page, whole)
        if decide_absence(part.absent_once, whole, SpanSet()).empty == whole:
            return PageOutcome(SpanSet(), whole)
        return PageOutcome(SpanSet(), remaining=(attrs.evolve(part, absent_once=whole),))
