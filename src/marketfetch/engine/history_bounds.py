"""Where series begin and end: long stretches without rows are crossed in a few requests, and proved empty.

A listing is a hint for where to look and never a proof: what is empty is decided by answers about rows. The
cases are in `planning/absence.py`, and in decision 27.
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
from marketfetch.exchange import Endpoint
from marketfetch.planning.absence import Evidence, listing_grace, reason
from marketfetch.planning.first_row_search import seek_first
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
"""A series of so few pages is asked page by page: seeking its first row would cost as much."""
_QUESTIONS = 60
"""Seeking a first row takes about twice as many questions as the number of pages has binary digits."""


_ATTEMPTS = 5
"""So often a series is decided about at the end: it takes fewer questions, each with a bad answer once."""


class _Undecided(Exception):
    """No answer, or one that contradicts another one: the pages themselves decide."""


class _UnusableAnswer(_Undecided):
    """An answer with rows from elsewhere, or that cannot be read: the next one may be better."""


@attrs.frozen(eq=False)
class HistoryBounds:
    """Finds the first row of series that were listed late, and the end of those that were delisted."""

    executor: RequestExecutor
    writers: WriterPool
    instruments: Mapping[str, Instrument]
    now: Clock
    """The server's time, UTC milliseconds."""

    async def detect(self, states: Sequence[SeriesState]) -> None:
        """Note for every incomplete series what lies before its first and after its last row."""
        await self._for_each([state for state in states if state.missing], self._detect)

    async def decide_unproven(self, states: Sequence[SeriesState]) -> None:
        """Decide about the moments that pages denied before any row of the series was seen."""
        unproven = [state for state in states if UNPROVEN_ABSENCE in state.given_up]
        await self._for_each(unproven, self._decide_with_retries)

    async def _for_each(
        self, states: Sequence[SeriesState], work: Callable[[SeriesState, Instrument], Awaitable[None]]
    ) -> None:
        limiter = CapacityLimiter(self.executor.settings.concurrency)

        async def one(state: SeriesState, everybody: CancelScope) -> None:
            async with limiter:
                try:
                    await work(state, self.instruments[state.series.symbol])
                except _Undecided:
                    return  # the pages themselves will say what is there, and what is wrong
                except RestrictedLocation:
                    everybody.cancel()  # before the limiter lets the next one in
                    raise

        async with anyio.create_task_group() as group:
            for state in states:
                group.start_soon(one, state, group.cancel_scope)

    async def _detect(self, state: SeriesState, instrument: Instrument) -> None:
        for work in (self._cross_after_delisting, self._cross_before_listing):
            try:
                await work(state, instrument)
            except _Undecided:
                continue

    async def _cross_after_delisting(self, state: SeriesState, instrument: Instrument) -> None:
        """Cross what lies after the announced end, to the first row after all or to the end."""
        hull, gone, interval = state.missing.hull, instrument.delisted_at, state.series.interval
        if hull is None or gone is None:
            return
        # A day of grace: the last rows come in after the announced hour.
        end = max(hull.start, interval.ceil(gone + _DAY))
        if end < hull.end:
            await self._cross(state, instrument, Span(end, hull.end), last=min(end, gone))

    async def _cross_before_listing(self, state: SeriesState, instrument: Instrument) -> None:
        series, hull, listed = state.series, state.missing.hull, instrument.listed_at
        if hull is None:
            return
        endpoint, interval = self._endpoint(state), series.interval
        seeks, size = endpoint.first_row_request(series, hull.start) is None, endpoint.page_sizes[-1]
        # A series that has begun before, in the store, may have a hole all the same: the exchange may have
        # dropped since what it had then.
        begun = state.first_stored is not None and state.first_stored < hull.start
        if (seeks or begun) and (endpoint.paginator.sequential or interval.count(hull) <= _PAGES * size):
            return  # its pages say so as cheaply
        if begun or (listed is not None and listed <= hull.start):
            # Most likely the first page has rows. If not, `conclude` sees to what the pages deny; where every
            # one of them would be asked for twice, a question beforehand is cheaper.
            page = Span(hull.start, interval.shift(interval.floor(hull.start), size))
            if not seeks or await self._row_times(state, page, 1):
                return
        await self._cross(state, instrument, hull, last=hull.start)

    async def _cross(self, state: SeriesState, instrument: Instrument, span: Span, *, last: int) -> None:
        """Find the first row of a span, prove that nothing lies before it, and note that.

        `last` is the moment before which a row would show that the exchange keeps rows that are so old.
        """
        first = await self._find_first_row(state, span, instrument.listed_at)
        # What is younger than a few minutes may only be late.
        end = min(
            span.end if first is None else first,
            span.end,
            state.series.interval.floor(self.now() - PUBLISH_GRACE),
        )
        if end <= span.start:
            return
        stretch = Span(span.start, end)
        evidence = await self._confirm_empty(state, stretch, first, last)
        await self._judge(state, instrument, SpanSet.of(stretch), evidence)

    async def _decide_with_retries(self, state: SeriesState, instrument: Instrument) -> None:
        for _ in range(_ATTEMPTS):
            try:
                await self._decide(state, instrument)
                return
            except _UnusableAnswer:
                continue  # no page asks after this one

    async def _decide(self, state: SeriesState, instrument: Instrument) -> None:
        denied, earliest = state.given_up[UNPROVEN_ABSENCE].value, state.earliest_row
        if state.terminal_error is not None or denied.hull is None:
            return
        # What came in after them may show that these moments lie between rows: two pages denied them.
        between = SpanSet()
        if earliest is not None and earliest < denied.hull.end:
            between = denied & SpanSet.of(Span(earliest, denied.hull.end))
            await self._record_empty(state, between)
        before = denied - between
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
        """Write down that moments are empty, or give them up for this run with the reason."""
        endpoint, interval, hull = self._endpoint(state), state.series.interval, spans.hull
        if hull is None:
            return
        listed = instrument.listed_at
        if evidence.first is None and listed is not None and listed >= hull.end:
            # The span ends before the listing: whether that is right, rows at that time must show.
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

    # --- questions ---

    async def _find_first_row(self, state: SeriesState, span: Span, hint: int | None) -> int | None:
        """Return the first row at or after the start of a span; None if there is none."""
        endpoint, interval = self._endpoint(state), state.series.interval
        if (request := endpoint.first_row_request(state.series, span.start)) is not None:
            return await self._request_first_row(state, request, span.start)
        paginator = endpoint.paginator
        newest = getattr(paginator, "newest_first", getattr(paginator, "anchor", None) == "end")
        seeking = seek_first(
            interval,
            span,
            endpoint.page_sizes[-1],
            anchor="end" if newest else "start",
            hint=None if hint is None else interval.floor(hint),
        )
        question = next(seeking)
        for _ in range(_QUESTIONS):
            times = await self._row_times(state, question.span, question.rows)
            try:
                question = seeking.send(times)
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
        self, state: SeriesState, stretch: Span, first: int | None, last: int
    ) -> Evidence:
        """Ask until two different questions have denied a stretch; _Undecided if there is a row after all."""
        endpoint, series = self._endpoint(state), state.series
        has_first = endpoint.first_row_request(series, stretch.start) is not None
        for _ in range(2 if has_first else 1):  # years hang on it
            if await self._row_times(state, stretch, 1):
                raise _Undecided
        if has_first:
            return Evidence(first, first_row_request=True)
        # The other question is wider at both ends: there are rows to be seen on its far side, and perhaps on
        # the near one.
        end = stretch.end if first is None else series.interval.shift(first, 1)
        times = await self._row_times(state, Span(self._margin(state, last), end), endpoint.page_sizes[-1])
        if any(time in stretch for time in times) or (first is not None and first not in times):
            raise _Undecided
        return Evidence(first, row_before=any(time < stretch.start for time in times))

    async def _has_rows_before(self, state: SeriesState, moment: int) -> bool:
        """Whether the exchange has a row from the month before a moment, or from half a page before it."""
        start = state.series.interval.floor(moment - 30 * _DAY)
        return bool(await self._row_times(state, Span(min(start, self._margin(state, moment)), moment), 1))

    def _margin(self, state: SeriesState, moment: int) -> int:
        """Return the moment that lies half a page before another one; a month of events."""
        interval = state.series.interval
        if interval.is_event:
            return moment - 30 * _DAY
        steps = max(1, self._endpoint(state).page_sizes[-1] // 2)
        return interval.shift(interval.floor(moment), -steps)

    async def _row_times(self, state: SeriesState, span: Span, rows: int) -> list[int]:
        """Return the times of a window's rows; _UnusableAnswer if there are others, or some off the grid."""
        part = Slice(state.series, span, rows)
        times = await self._times_in_answer(state, self._endpoint(state).request(part), part)
        interval = state.series.interval
        if any(time not in span or time != interval.floor(time) for time in times):
            raise _UnusableAnswer
        return times

    async def _times_in_answer(self, state: SeriesState, request: Request, part: Slice) -> list[int]:
        """Return the times of an answer's rows.

        Raises _UnusableAnswer if they cannot be read, _Undecided if no answer comes.
        """

        def read(response: Response) -> list[int]:
            decoded = self.executor.exchange.decoded(response.body, part)
            if decoded.undecodable > len(decoded.broken):
                raise _UnusableAnswer
            # A row that is wrong is a row all the same: it shows what the exchange keeps.
            return [*map(int, decoded.columns.times), *(row.time for row in decoded.broken)]

        try:
            times, _ = await self.executor.send(request, read)
        except RestrictedLocation:
            raise
        except FetchError as error:
            raise _Undecided from error
        return times

    # --- answers ---

    async def _record_empty(self, state: SeriesState, spans: SpanSet) -> None:
        """Note that moments are empty, unless they are covered by now."""
        state.ask_again_for(spans, UNPROVEN_ABSENCE)
        if empty := spans & state.missing:
            coverage = Coverage(empty, empty)
            state.record_coverage(coverage)
            await self.writers.submit(Batch(state.series, Columns.empty(state.series.dataset), coverage))

    def _endpoint(self, state: SeriesState) -> Endpoint:
        return self.executor.exchange.endpoint(state.series.dataset)
