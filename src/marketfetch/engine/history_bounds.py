"""Where series begin and end: long spans without rows are found in a few requests, and proved empty.

The listing is a hint for where to look, never a proof: responses with rows decide what is empty. The cases
are in `planning/absence.py` and in decision 27.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import attrs
from anyio import CancelScope, CapacityLimiter

from marketfetch.engine.missing import PUBLISH_GRACE, UNPROVEN_ABSENCE
from marketfetch.engine.requester import RequestExecutor
from marketfetch.engine.state import SeriesState
from marketfetch.engine.writers import WriterPool
from marketfetch.errors import FetchError, RestrictedLocation
from marketfetch.planning.absence import Evidence, listing_grace, reason
from marketfetch.planning.first_row_search import seek_first
from marketfetch.sources import Endpoint
from marketfetch.values.coverage import Coverage
from marketfetch.values.http import Request, Response
from marketfetch.values.instruments import Instrument
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet, format_utc
from marketfetch.values.times import Clock

__all__ = ["HistoryBounds"]

_DAY = 86_400_000
_PAGES = 4
"""A series of at most so many pages is fetched page by page: searching its first row would cost as much."""
_MAX_SEARCH_REQUESTS = 60
"""Limit of a search; it takes about twice as many requests as the number of pages has binary digits."""
_ATTEMPTS = 5
"""How often a decision is tried: it takes fewer requests, and each of them may get one bad response."""


class _Undecided(Exception):
    """No response, or a contradiction: the pages that are fetched afterwards decide."""


class _UnusableAnswer(_Undecided):
    """A response that cannot be decoded, or has rows from outside the window: the next one may be better."""


@attrs.frozen(eq=False)
class HistoryBounds:
    """Finds the first row of series that were listed late, and the end of those that were delisted."""

    executor: RequestExecutor
    writers: WriterPool
    instruments: Mapping[str, Instrument]
    now: Clock
    """The server's time, UTC milliseconds."""

    async def detect(self, states: Sequence[SeriesState]) -> None:
        """Find the empty spans before the first and after the last row of every incomplete series."""
        await self._for_each([state for state in states if state.missing], self._detect)

    async def decide_unproven(self, states: Sequence[SeriesState]) -> None:
        """Decide about moments that pages called empty before any row of the series was seen."""
        unproven = [state for state in states if UNPROVEN_ABSENCE in state.given_up]
        await self._for_each(unproven, self._decide_with_retries)

    async def _for_each(
        self, states: Sequence[SeriesState], work: Callable[[SeriesState, Instrument], Awaitable[None]]
    ) -> None:
        limiter = CapacityLimiter(self.executor.settings.concurrency)

        async def work_on(state: SeriesState, all_tasks: CancelScope) -> None:
            async with limiter:
                try:
                    await work(state, self.instruments[state.series.symbol])
                except _Undecided:
                    return
                except RestrictedLocation:
                    all_tasks.cancel()  # before the limiter admits the next task
                    raise

        async with anyio.create_task_group() as group:
            for state in states:
                group.start_soon(work_on, state, group.cancel_scope)

    async def _detect(self, state: SeriesState, instrument: Instrument) -> None:
        for detect in (self._detect_end, self._detect_beginning):
            try:
                await detect(state, instrument)
            except _Undecided:
                continue

    async def _detect_end(self, state: SeriesState, instrument: Instrument) -> None:
        """Skip the span from the announced delisting to the next row, or to the end of what is missing."""
        missing, delisted, interval = state.missing.hull, instrument.delisted_at, state.series.interval
        if missing is None or delisted is None:
            return
        # A day of grace: the last rows may be later than announced.
        end = max(missing.start, interval.ceil(delisted + _DAY))
        if end < missing.end:
            await self._skip_empty(state, instrument, Span(end, missing.end), last_row=min(end, delisted))

    async def _detect_beginning(self, state: SeriesState, instrument: Instrument) -> None:
        """Skip the span from the start of what is missing to the first row of the series.

        1. A search would cost as much as the pages: there are few of them, or they form a chain.
        2. The series began earlier, by the store or by the listing: the first page most likely has rows.
           Where the endpoint has a request for the first row, `decide_unproven` can make it later. Elsewhere
           the first page is requested here: if it is empty, a search is cheaper than all empty pages, twice.
        3. Else the first row is searched.
        """
        series, missing, listed = state.series, state.missing.hull, instrument.listed_at
        if missing is None:
            return
        endpoint, interval = self._endpoint(state), series.interval
        size = endpoint.page_sizes[-1]
        must_search = endpoint.first_row_request(series, missing.start) is None
        # The store's older rows do not show where rows begin now: the exchange may have dropped some since.
        began_earlier = state.first_stored is not None and state.first_stored < missing.start
        if (must_search or began_earlier) and (
            endpoint.paginator.sequential or interval.count(missing) <= _PAGES * size
        ):
            return
        if began_earlier or (listed is not None and listed <= missing.start):
            page = Span(missing.start, interval.shift(interval.floor(missing.start), size))
            if not must_search or await self._row_times(state, page, 1):
                return
        await self._skip_empty(state, instrument, missing, last_row=missing.start)

    async def _skip_empty(
        self, state: SeriesState, instrument: Instrument, span: Span, *, last_row: int
    ) -> None:
        """Find the first row of a span, and decide about the time before it.

        A row before `last_row` would show that the exchange keeps rows that are so old.
        """
        first = await self._find_first_row(state, span, instrument.listed_at)
        # Rows of the last minutes may not be published yet.
        published = state.series.interval.floor(self.now() - PUBLISH_GRACE)
        end = min(span.end if first is None else first, span.end, published)
        if end <= span.start:
            return
        before = Span(span.start, end)
        evidence = await self._confirm_empty(state, before, first, last_row)
        await self._judge(state, instrument, SpanSet.of(before), evidence)

    async def _decide_with_retries(self, state: SeriesState, instrument: Instrument) -> None:
        for _ in range(_ATTEMPTS):
            try:
                await self._decide(state, instrument)
                return
            except _UnusableAnswer:
                continue  # no page is fetched after this one, so the decision is tried again

    async def _decide(self, state: SeriesState, instrument: Instrument) -> None:
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
            await self._judge(state, instrument, before, Evidence(earliest))
            return
        first = await self._request_first_row(state, request, hull.start)
        if first is not None and first < hull.end:
            disputed = before & SpanSet.of(Span(first, hull.end))
            state.ask_again_for(disputed, UNPROVEN_ABSENCE)
            state.give_up(
                disputed, f"the exchange denies rows here, and gives one at {format_utc(first)}; run again"
            )
            before -= disputed
        await self._judge(state, instrument, before, Evidence(earliest, first_row_request=True))

    async def _judge(
        self, state: SeriesState, instrument: Instrument, spans: SpanSet, evidence: Evidence
    ) -> None:
        """Record moments as empty if the evidence proves it, else give them up with the reason."""
        endpoint, interval, hull = self._endpoint(state), state.series.interval, spans.hull
        if hull is None:
            return
        listed = instrument.listed_at
        if evidence.first is None and listed is not None and listed >= hull.end:
            # The span ends before the listing. Rows at the time of the listing show whether that is right.
            near = Span(interval.floor(listed), interval.ceil(listed + listing_grace(interval) + 1))
            times = await self._row_times(state, near, 1)
            evidence = attrs.evolve(evidence, first=min(times, default=None))
        if not evidence.proves_empty(interval, hull, instrument, reach=endpoint.retention):
            evidence = attrs.evolve(evidence, row_before=await self._has_rows_before(state, hull.start))
        if evidence.proves_empty(interval, hull, instrument, reach=endpoint.retention):
            await self._record_empty(state, spans)
        else:
            state.given_up.pop(UNPROVEN_ABSENCE, None)
            state.give_up(spans, reason(evidence.first))

    # --- requests ---

    async def _find_first_row(self, state: SeriesState, span: Span, hint: int | None) -> int | None:
        """Return the time of the first row at or after the start of a span; None if there is no row."""
        endpoint, interval = self._endpoint(state), state.series.interval
        if (request := endpoint.first_row_request(state.series, span.start)) is not None:
            return await self._request_first_row(state, request, span.start)
        paginator = endpoint.paginator
        newest = getattr(paginator, "newest_first", getattr(paginator, "anchor", None) == "end")
        search = seek_first(
            interval,
            span,
            endpoint.page_sizes[-1],
            anchor="end" if newest else "start",
            hint=None if hint is None else interval.floor(hint),
        )
        question = next(search)
        for _ in range(_MAX_SEARCH_REQUESTS):
            times = await self._row_times(state, question.span, question.rows)
            try:
                question = search.send(times)
            except StopIteration as found:
                first: int | None = found.value
                return first
        raise _Undecided

    async def _request_first_row(self, state: SeriesState, request: Request, start: int) -> int | None:
        times = await self._times_in_answer(state, request, Slice(state.series, Span(0, 1), rows=1))
        first = min(times, default=None)
        if first is not None and (first < start or first != state.series.interval.floor(first)):
            raise _UnusableAnswer
        return first

    async def _confirm_empty(
        self, state: SeriesState, span: Span, first: int | None, last_row: int
    ) -> Evidence:
        """Request a span in two ways, and return what the responses show; _Undecided if it has a row."""
        endpoint, series = self._endpoint(state), state.series
        has_first = endpoint.first_row_request(series, span.start) is not None
        for _ in range(2 if has_first else 1):  # twice, because years may depend on it
            if await self._row_times(state, span, 1):
                raise _Undecided
        if has_first:
            return Evidence(first, first_row_request=True)
        # The second window is wider: it must show the first row after the span, and may show one before it.
        end = span.end if first is None else series.interval.shift(first, 1)
        window = Span(self._half_a_page_before(state, last_row), end)
        times = await self._row_times(state, window, endpoint.page_sizes[-1])
        if any(time in span for time in times) or (first is not None and first not in times):
            raise _Undecided
        return Evidence(first, row_before=any(time < span.start for time in times))

    async def _has_rows_before(self, state: SeriesState, moment: int) -> bool:
        """Whether the exchange has a row within half a page or 30 days before a moment."""
        start = state.series.interval.floor(moment - 30 * _DAY)
        window = Span(min(start, self._half_a_page_before(state, moment)), moment)
        return bool(await self._row_times(state, window, 1))

    def _half_a_page_before(self, state: SeriesState, moment: int) -> int:
        """Return the time half a page before a moment; 30 days before it for events."""
        interval = state.series.interval
        if interval.is_event:
            return moment - 30 * _DAY
        steps = max(1, self._endpoint(state).page_sizes[-1] // 2)
        return interval.shift(interval.floor(moment), -steps)

    async def _row_times(self, state: SeriesState, span: Span, rows: int) -> list[int]:
        """Return the times of a window's rows; _UnusableAnswer for rows outside of it or off the grid."""
        part = Slice(state.series, span, rows)
        times = await self._times_in_answer(state, self._endpoint(state).request(part), part)
        interval = state.series.interval
        if any(time not in span or time != interval.floor(time) for time in times):
            raise _UnusableAnswer
        return times

    async def _times_in_answer(self, state: SeriesState, request: Request, part: Slice) -> list[int]:
        """Return the times of a response's rows, valid or not.

        Raises _UnusableAnswer for a row without a readable time, _Undecided if every attempt fails.
        """

        def read(response: Response) -> list[int]:
            decoded = self.executor.exchange.decoded(response.body, part)
            if decoded.undecodable > len(decoded.broken):
                raise _UnusableAnswer
            # An invalid row counts, too: it shows that the exchange keeps rows from that time.
            return [*map(int, decoded.columns.times), *(row.time for row in decoded.broken)]

        try:
            times, _ = await self.executor.send(request, read)
        except RestrictedLocation:
            raise
        except FetchError as error:
            raise _Undecided from error
        return times

    # --- results ---

    async def _record_empty(self, state: SeriesState, spans: SpanSet) -> None:
        """Record moments as empty, except those that are covered or given up by now."""
        state.ask_again_for(spans, UNPROVEN_ABSENCE)
        if empty := spans & state.missing:
            coverage = Coverage(empty, empty)
            state.record_coverage(coverage)
            await self.writers.submit(Batch(state.series, Columns.empty(state.series.dataset), coverage))

    def _endpoint(self, state: SeriesState) -> Endpoint:
        return self.executor.exchange.endpoint(state.series.dataset)
