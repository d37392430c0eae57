"""Long spans without rows, before, amid and after the rows of a series: crossed in a few requests.

The listing is a hint for where to look, never a proof: responses with rows decide what is empty. The cases
are in `planning/absence.py` and in decision 27.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Literal

import attrs
from anyio import Lock

from marketfetch.common.event_loop import in_parallel
from marketfetch.engine.missing import PUBLISH_GRACE, UNPROVEN_ABSENCE
from marketfetch.engine.pages.gap_turns import GapTurns, is_gap_search_worthwhile
from marketfetch.engine.pages.row_finder import RowFinder, UndecidedError, UnusableAnswer, fills_from_end
from marketfetch.engine.requester import RequestExecutor
from marketfetch.engine.state import SeriesState
from marketfetch.engine.writers import WriterPool
from marketfetch.errors import BadSymbol
from marketfetch.planning.absence import Evidence, listing_grace, unproven_absence_text
from marketfetch.planning.batches import FetchTask
from marketfetch.sources import Endpoint
from marketfetch.values.coverage import Coverage, MissingReason, Reason
from marketfetch.values.instruments import Instrument
from marketfetch.values.pages import Batch
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import DAY, Span, SpanSet, format_utc
from marketfetch.values.times import Clock

__all__ = ["Beginning", "HistoryBounds", "choose_beginning", "first_page", "span_after"]

Beginning = Literal["pages", "first page", "search"]
"""Where fetching a series begins: with its pages, with a question about the first page, or with a search."""

_MAX_UNSEARCHED_PAGES = 4
"""A series of at most this many pages is fetched page by page: a search would cost as much."""
_MAX_ATTEMPTS = 5
"""Attempts at a decision: it takes fewer requests, and each of them may get one bad response."""


def _contradiction(row: int) -> Reason:
    text = f"the exchange denies rows here, and gives one at {format_utc(row)}; run again"
    return Reason(MissingReason.CONTRADICTION, text)


@attrs.frozen(eq=False)
class HistoryBounds:
    """Crosses spans without rows: before the first row, after the last one, and between rows."""

    executor: RequestExecutor
    writers: WriterPool
    instruments: Mapping[str, Instrument]
    now: Clock
    """The moment up to which rows count as closed (as the run decides), UTC milliseconds."""
    _locks: dict[Series, Lock] = attrs.field(factory=dict, init=False)
    """Held while a stretch of a series is crossed: pages of the same stretch wait, and are not requested."""
    _failed: Counter[Series] = attrs.field(factory=Counter, init=False)
    """How often the crossing of a stretch came to no decision."""
    _denied_rows: defaultdict[Series, list[int]] = attrs.field(factory=lambda: defaultdict(list), init=False)
    """Rows that an answer had, and the page before it had not."""

    finder: RowFinder = attrs.field(
        default=attrs.Factory(lambda self: RowFinder(self.executor), takes_self=True), init=False
    )
    """Asks where rows are."""
    turns: GapTurns = attrs.field(
        default=attrs.Factory(lambda self: GapTurns(self.finder), takes_self=True), init=False
    )

    async def find_bounds(self, states: Sequence[SeriesState]) -> None:
        """Find the empty spans before the first and after the last row of every incomplete series."""
        await self._for_each([state for state in states if state.missing], self._find_bounds)

    async def find_gaps(self, tasks: Sequence[FetchTask], states: Mapping[Series, SeriesState]) -> None:
        """Ask longer candles of long series where these have gaps; `turns` lets one page go ahead there."""
        concurrency = self.executor.settings.concurrency
        long = {task.series: task for task in tasks if is_gap_search_worthwhile(task, concurrency)}
        published = self.now() - PUBLISH_GRACE
        await self._for_each(
            [states[series] for series in long],
            lambda state: self.turns.find_gaps(long[state.series], published),
        )

    async def decide_unproven(self, states: Sequence[SeriesState]) -> None:
        """Decide about moments that pages called empty before any row of the series was seen."""
        unproven = [state for state in states if UNPROVEN_ABSENCE in state.given_up]
        await self._for_each(unproven, self._decide_with_retries)

    async def cross(self, state: SeriesState, part: Slice) -> Slice | None:
        """Return what is left to request of a slice; None if nothing is.

        If one answer denied the whole slice and much more is missing after it, the next request is for the
        next row, and what lies before that row is decided as a whole. If that row lies in the slice, the
        slice is requested again; if it is denied again, it is given up.

        Example: the page of 3 June is empty, and the first row at or after 3 June is of the next June. A
        window of the whole year has no row: the year is empty, and none of its pages is requested any more.
        """
        if self._endpoint(state).paginator.sequential:
            return part  # a chain skips what is empty by itself
        lock, page = self._locks.get(state.series), part.span
        denied = part.absent_once == SpanSet.of(page) and self._failed[state.series] < _MAX_ATTEMPTS
        if denied or (lock is not None and lock.locked()):
            async with self._locks.setdefault(state.series, Lock()):
                if denied and state.missing_in(page) and await self._has_row_in(state, page):
                    part = attrs.evolve(part, absent_once=SpanSet())
                if denied and not state.missing_in(page):
                    return None
        if not state.crossed:
            return part
        uncrossed = (SpanSet.of(page) - state.crossed).hull
        if uncrossed is None or uncrossed == page:
            return None if uncrossed is None else part
        return part.within(uncrossed)

    async def _has_row_in(self, state: SeriesState, page: Span) -> bool:
        """Whether an answer has a row in an empty page; else the stretch that begins there is crossed."""
        for row in self._denied_rows[state.series]:
            if row in page:
                state.give_up(SpanSet.of(page), _contradiction(row))
                return False
        try:
            row_in_page = await self._cross(state, page)
        except UndecidedError:
            self._failed[state.series] += 1
            return False
        if row_in_page is not None:
            self._denied_rows[state.series].append(row_in_page)
        return row_in_page is not None

    async def _cross(self, state: SeriesState, page: Span) -> int | None:
        """Decide about the stretch from an empty page to the next row; return a row that lies in the page.

        1. Little is missing after the page: it is requested again, which costs no more.
        2. Pages are filled from the end, and the page before has rows: a window that begins half a page
           earlier shows them, and denies the page a second time.
        3. The next row is on the next page: two different answers have denied the page.
        4. It is far: two more answers have to deny the whole stretch.
        """
        series, endpoint, interval = state.series, self._endpoint(state), state.series.interval
        size, end = endpoint.page_sizes[-1], interval.floor(page.end)
        near, far = interval.shift(end, size), interval.shift(end, _MAX_UNSEARCHED_PAGES * size)
        published = interval.floor(self.now() - PUBLISH_GRACE)
        if published <= far:
            return None
        missing = state.missing_in(Span(page.start, published))
        if page.start not in missing or (stretch := missing.spans[0]).end <= far:
            return None
        if fills_from_end(endpoint) and not state.is_empty_at(page.start - 1):
            window = Span(self._half_a_page_before(state, page.start), page.end)
            if times := await self.finder.find_times(series, window, size):
                if max(times) in page:
                    return max(times)
                await self._judge(state, SpanSet.of(page), Evidence(None, row_before=True))
                return None
        first = await self._find_first_row(state, stretch)
        if first is not None and first < page.end:
            return first
        if first is not None and first <= near and endpoint.first_row_request(series, page.start) is not None:
            await self._judge(state, SpanSet.of(page), Evidence(first, first_row_request=True))
        elif crossed := await self._decide_before(state, stretch, first, last_row=page.start):
            state.crossed |= SpanSet.of(crossed)
            self.executor.state.rows_planned -= interval.count(crossed)
        return None

    async def _for_each(
        self, states: Sequence[SeriesState], work: Callable[[SeriesState], Awaitable[None]]
    ) -> None:
        async def work_on(state: SeriesState) -> None:
            # Pages are fetched next, and a refused symbol stops its series there.
            with suppress(UndecidedError, BadSymbol):
                await work(state)

        await in_parallel(states, work_on, self.executor.settings.concurrency)

    async def _find_bounds(self, state: SeriesState) -> None:
        for find in (self._find_end, self._find_beginning):
            try:
                await find(state)
            except UndecidedError:
                continue

    async def _find_end(self, state: SeriesState) -> None:
        """Skip the span from the announced delisting to the next row, or to the end of what is missing."""
        delisted = self._instrument(state).delisted_at
        if delisted is not None and (after := span_after(state, delisted)) is not None:
            await self._skip_empty(state, after, last_row=min(after.start, delisted))

    async def _find_beginning(self, state: SeriesState) -> None:
        """Skip the span from the start of what is missing to the first row of the series."""
        missing, endpoint = state.missing.hull, self._endpoint(state)
        if missing is None:
            return
        beginning = choose_beginning(state, endpoint, self._instrument(state).listed_at)
        if beginning == "pages" or (
            beginning == "first page"
            and await self.finder.find_times(state.series, first_page(state.series, endpoint, missing), 1)
        ):
            return
        await self._skip_empty(state, missing, last_row=missing.start)

    async def _skip_empty(self, state: SeriesState, span: Span, *, last_row: int) -> None:
        """Find the first row of a span, and decide about the time before it.

        A row before `last_row` would show that the exchange keeps rows that are so old.
        """
        await self._decide_before(state, span, await self._find_first_row(state, span), last_row=last_row)

    async def _decide_before(
        self, state: SeriesState, span: Span, first: int | None, *, last_row: int
    ) -> Span | None:
        """Decide about a span up to its first row, or about all of it if it has none; return this part."""
        # Rows of the last minutes may not be published yet.
        published = state.series.interval.floor(self.now() - PUBLISH_GRACE)
        end = min(span.end if first is None else first, span.end, published)
        if end <= span.start:
            return None
        before = Span(span.start, end)
        evidence = await self._confirm_empty(state, before, first, last_row)
        await self._judge(state, SpanSet.of(before), evidence)
        self.executor.state.rows_crossed += state.series.interval.count_rows([before])
        return before

    async def _decide_with_retries(self, state: SeriesState) -> None:
        for _ in range(_MAX_ATTEMPTS):
            try:
                await self._decide(state)
                return
            except UnusableAnswer:
                continue  # no page is fetched after this one, so the decision is tried again

    async def _decide(self, state: SeriesState) -> None:
        """Decide about the moments that two pages called empty before any row of the series was seen.

        1. After the earliest row that was seen since: the moments lie between rows and are empty.
        2. Before it, and a request for the first row gives a later row or none: that is judged as evidence.
        3. Before it, and that request gives a row among them: the exchange contradicts itself; given up.
        """
        unproven, earliest = state.given_up[UNPROVEN_ABSENCE].value, state.earliest_row
        if state.terminal_error is not None or unproven.hull is None:
            return
        between = SpanSet()
        if earliest is not None and earliest < unproven.hull.end:
            between = unproven & SpanSet.of(Span(earliest, unproven.hull.end))
            await self._record_empty(state, between)
        before = unproven - between
        if before.hull is None:
            return
        endpoint, hull = self._endpoint(state), before.hull
        if (request := endpoint.first_row_request(state.series, hull.start)) is None:
            await self._judge(state, before, Evidence(earliest))
            return
        first = await self.finder.find_first_row_by_request(state.series, request, hull.start)
        if first is not None and first < hull.end:
            disputed = before & SpanSet.of(Span(first, hull.end))
            state.want_again(disputed, UNPROVEN_ABSENCE)
            state.give_up(disputed, _contradiction(first))
            before -= disputed
        await self._judge(state, before, Evidence(earliest, first_row_request=True))

    async def _judge(self, state: SeriesState, spans: SpanSet, evidence: Evidence) -> None:
        """Record moments as empty if the evidence proves it, else give them up with the reason."""
        endpoint, interval, hull = self._endpoint(state), state.series.interval, spans.hull
        if hull is None:
            return
        instrument = self._instrument(state)
        listed = instrument.listed_at
        if state.earliest_row is not None and state.earliest_row < hull.start:
            evidence = attrs.evolve(evidence, row_before=True)
        if evidence.first is None and listed is not None and listed >= hull.end:
            # The span ends before the listing. Rows at the time of the listing show whether that is right.
            near = Span(interval.floor(listed), interval.ceil(listed + listing_grace(interval) + 1))
            times = await self.finder.find_times(state.series, near, 1)
            evidence = attrs.evolve(evidence, first=min(times, default=None))
        if not evidence.proves_empty(interval, hull, instrument, retention=endpoint.retention):
            evidence = attrs.evolve(evidence, row_before=await self._has_rows_before(state, hull.start))
        if evidence.proves_empty(interval, hull, instrument, retention=endpoint.retention):
            await self._record_empty(state, spans)
        else:
            state.want_again(spans, UNPROVEN_ABSENCE)
            state.give_up(
                spans, Reason(MissingReason.UNPROVEN_ABSENCE, unproven_absence_text(evidence.first))
            )

    # --- answers ---

    async def _confirm_empty(
        self, state: SeriesState, span: Span, first: int | None, last_row: int
    ) -> Evidence:
        """Request a span in two ways, and return what the responses show; UndecidedError if it has a row."""
        endpoint, series = self._endpoint(state), state.series
        has_first = endpoint.first_row_request(series, span.start) is not None
        for _ in range(2 if has_first else 1):  # twice, because years may depend on it
            if await self.finder.find_times(state.series, span, 1):
                raise UndecidedError
        if has_first:
            return Evidence(first, first_row_request=True)
        # The second window is wider: it must show the first row after the span, and may show one before it.
        end = span.end if first is None else series.interval.shift(first, 1)
        window = Span(self._half_a_page_before(state, last_row), end)
        times = await self.finder.find_times(state.series, window, endpoint.page_sizes[-1])
        if any(time in span for time in times) or (first is not None and first not in times):
            raise UndecidedError
        return Evidence(first, row_before=any(time < span.start for time in times))

    async def _has_rows_before(self, state: SeriesState, moment: int) -> bool:
        """Whether the exchange has a row within half a page or 30 days before a moment."""
        start = state.series.interval.floor(moment - 30 * DAY)
        window = Span(min(start, self._half_a_page_before(state, moment)), moment)
        return bool(await self.finder.find_times(state.series, window, 1))

    def _half_a_page_before(self, state: SeriesState, moment: int) -> int:
        """Return the time half a page before a moment; 30 days before it for events."""
        interval = state.series.interval
        if interval.is_event:
            return moment - 30 * DAY
        steps = max(1, self._endpoint(state).page_sizes[-1] // 2)
        return interval.shift(interval.floor(moment), -steps)

    # --- results ---

    async def _record_empty(self, state: SeriesState, spans: SpanSet) -> None:
        """Record moments as empty, except those that are covered or given up by now."""
        state.want_again(spans, UNPROVEN_ABSENCE)
        if spans.hull is not None and (empty := spans & state.missing_in(spans.hull)):
            coverage = Coverage(empty, empty)
            state.record_coverage(coverage)
            await self.writers.submit(Batch.of_coverage(state.series, coverage))

    async def _find_first_row(self, state: SeriesState, span: Span) -> int | None:
        near = self.turns.resumption(state.series, span)
        # A request for the first row is evidence only if it is for the first one of the whole span.
        if near is not None and self._endpoint(state).first_row_request(state.series, span.start) is None:
            first = await self.finder.find_first_row(state.series, near, None)
            if first is not None:
                return first
        return await self.finder.find_first_row(state.series, span, self._instrument(state).listed_at)

    def _instrument(self, state: SeriesState) -> Instrument:
        return self.instruments[state.series.symbol]

    def _endpoint(self, state: SeriesState) -> Endpoint:
        return self.executor.exchange.endpoint(state.series.dataset)


def choose_beginning(state: SeriesState, endpoint: Endpoint, listed: int | None) -> Beginning:
    """Choose how the beginning of what is missing is found.

    1. A search would cost as much as the pages: there are few of them, or they form a chain.
    2. The series began earlier, by the store or by the listing: the first page most likely has rows. Where
       the endpoint has a request for the first row, `decide_unproven` can make it later. Elsewhere the first
       page is requested: if it is empty, a search is cheaper than all empty pages, twice.
    3. Else the first row is searched.
    """
    series, missing = state.series, state.missing.hull
    if missing is None:
        return "pages"
    must_search = endpoint.first_row_request(series, missing.start) is None
    # The store's older rows do not show where rows begin now: the exchange may have dropped some since.
    began_earlier = state.first_stored is not None and state.first_stored < missing.start
    few = series.interval.count(missing) <= _MAX_UNSEARCHED_PAGES * endpoint.page_sizes[-1]
    if (must_search or began_earlier) and (endpoint.paginator.sequential or few):
        return "pages"
    if began_earlier or (listed is not None and listed <= missing.start):
        return "first page" if must_search else "pages"
    return "search"


def first_page(series: Series, endpoint: Endpoint, missing: Span) -> Span:
    """Return the span of the first page of what is missing."""
    interval = series.interval
    return Span(missing.start, interval.shift(interval.floor(missing.start), endpoint.page_sizes[-1]))


def span_after(state: SeriesState, delisted: int) -> Span | None:
    """Return what is missing after the announced end of a series; the last rows may be a day later."""
    missing = state.missing.hull
    if missing is None:
        return None
    end = max(missing.start, state.series.interval.ceil(delisted + DAY))
    return Span(end, missing.end) if end < missing.end else None
