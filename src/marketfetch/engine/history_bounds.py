"""Where series begin and end: long stretches without rows are crossed in a few requests, and proved empty.

A listing is a hint for where to look and never a proof: what is empty is decided by answers about rows. The
cases are in `planning/history_evidence.py`, and in decision 27.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import attrs
from anyio import CancelScope, CapacityLimiter

from marketfetch.planning.history_evidence import Evidence, grace, reason
from marketfetch.planning.first_row_search import seek_first
from marketfetch.engine.state import Account
from marketfetch.engine.requester import Asker
from marketfetch.engine.writers import Lanes
from marketfetch.engine.missing import LATE, UNPROVEN
from marketfetch.errors import FetchError, RestrictedLocation
from marketfetch.exchange import Endpoint
from marketfetch.values.http import Request, Response
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Coverage, Instrument, Slice
from marketfetch.values.spans import Span, SpanSet, utc
from marketfetch.values.times import Clock

__all__ = ["Beginnings"]

_DAY = 86_400_000
_PAGES = 4
"""A series of so few pages is asked page by page: seeking its first row would cost as much."""
_QUESTIONS = 60
"""Seeking a first row takes about twice as many questions as the number of pages has binary digits."""


_ATTEMPTS = 5
"""So often a series is decided about at the end: it takes fewer questions, each with a bad answer once."""


class _Unclear(Exception):
    """No answer, or one that contradicts another one: the pages themselves decide."""


class _Spoiled(_Unclear):
    """An answer with rows from elsewhere, or that cannot be read: the next one may be better."""


@attrs.frozen(eq=False)
class Beginnings:
    """Finds the first row of series that were listed late, and the end of those that were delisted."""

    asker: Asker
    lanes: Lanes
    instruments: Mapping[str, Instrument]
    now: Clock
    """The server's time, UTC milliseconds."""

    async def find(self, accounts: Sequence[Account]) -> None:
        """Note for every incomplete series what lies before its first and after its last row."""
        await self._for_each([account for account in accounts if account.missing], self._find)

    async def conclude(self, accounts: Sequence[Account]) -> None:
        """Decide about the moments that pages denied before any row of the series was seen."""
        unproven = [account for account in accounts if UNPROVEN in account.lost]
        await self._for_each(unproven, self._conclude_in_the_end)

    async def _for_each(
        self, accounts: Sequence[Account], work: Callable[[Account, Instrument], Awaitable[None]]
    ) -> None:
        limiter = CapacityLimiter(self.asker.settings.concurrency)

        async def one(account: Account, everybody: CancelScope) -> None:
            async with limiter:
                try:
                    await work(account, self.instruments[account.series.symbol])
                except _Unclear:
                    return  # the pages themselves will say what is there, and what is wrong
                except RestrictedLocation:
                    everybody.cancel()  # before the limiter lets the next one in
                    raise

        async with anyio.create_task_group() as group:
            for account in accounts:
                group.start_soon(one, account, group.cancel_scope)

    async def _find(self, account: Account, instrument: Instrument) -> None:
        for work in (self._after_the_end, self._before_the_beginning):
            try:
                await work(account, instrument)
            except _Unclear:
                continue

    async def _after_the_end(self, account: Account, instrument: Instrument) -> None:
        """Cross what lies after the announced end, to the first row after all or to the end."""
        hull, gone, interval = account.missing.hull, instrument.delisted_at, account.series.interval
        if hull is None or gone is None:
            return
        # A day of grace: the last rows come in after the announced hour.
        end = max(hull.start, interval.ceil(gone + _DAY))
        if end < hull.end:
            await self._cross(account, instrument, Span(end, hull.end), last=min(end, gone))

    async def _before_the_beginning(self, account: Account, instrument: Instrument) -> None:
        series, hull, listed = account.series, account.missing.hull, instrument.listed_at
        if hull is None:
            return
        endpoint, interval = self._endpoint(account), series.interval
        seeks, size = endpoint.first(series, hull.start) is None, endpoint.page_sizes[-1]
        # A series that has begun before, in the store, may have a hole all the same: the exchange may have
        # dropped since what it had then.
        begun = account.began is not None and account.began < hull.start
        if (seeks or begun) and (endpoint.paginator.chained or interval.count(hull) <= _PAGES * size):
            return  # its pages say so as cheaply
        if begun or (listed is not None and listed <= hull.start):
            # Most likely the first page has rows. If not, `conclude` sees to what the pages deny; where every
            # one of them would be asked for twice, a question beforehand is cheaper.
            page = Span(hull.start, interval.shift(interval.floor(hull.start), size))
            if not seeks or await self._rows(account, page, 1):
                return
        await self._cross(account, instrument, hull, last=hull.start)

    async def _cross(self, account: Account, instrument: Instrument, span: Span, *, last: int) -> None:
        """Find the first row of a span, prove that nothing lies before it, and note that.

        `last` is the moment before which a row would show that the exchange keeps rows that are so old.
        """
        first = await self._first(account, span, instrument.listed_at)
        # What is younger than a few minutes may only be late.
        end = min(
            span.end if first is None else first, span.end, account.series.interval.floor(self.now() - LATE)
        )
        if end <= span.start:
            return
        stretch = Span(span.start, end)
        evidence = await self._deny(account, stretch, first, last)
        await self._judge(account, instrument, SpanSet.of(stretch), evidence)

    async def _conclude_in_the_end(self, account: Account, instrument: Instrument) -> None:
        for _ in range(_ATTEMPTS):
            try:
                await self._conclude(account, instrument)
                return
            except _Spoiled:
                continue  # no page asks after this one

    async def _conclude(self, account: Account, instrument: Instrument) -> None:
        denied, earliest = account.lost[UNPROVEN].value, account.earliest
        if account.failed is not None or denied.hull is None:
            return
        # What came in after them may show that these moments lie between rows: two pages denied them.
        between = SpanSet()
        if earliest is not None and earliest < denied.hull.end:
            between = denied & SpanSet.of(Span(earliest, denied.hull.end))
            await self._nothing_in(account, between)
        before = denied - between
        if before.hull is None:
            return
        endpoint, hull = self._endpoint(account), before.hull
        if (request := endpoint.first(account.series, hull.start)) is None:
            await self._judge(account, instrument, before, Evidence(earliest))
            return
        first = await self._asked_first(account, request, hull.start)
        if first is not None and first < hull.end:
            disputed = before & SpanSet.of(Span(first, hull.end))
            account.regain(disputed, UNPROVEN)
            account.lose(disputed, f"the exchange denies rows here, and gives one at {utc(first)}; run again")
            before -= disputed
        await self._judge(account, instrument, before, Evidence(earliest, first_row_request=True))

    async def _judge(
        self, account: Account, instrument: Instrument, spans: SpanSet, evidence: Evidence
    ) -> None:
        """Write down that moments are empty, or give them up for this run with the reason."""
        endpoint, interval, hull = self._endpoint(account), account.series.interval, spans.hull
        if hull is None:
            return
        listed = instrument.listed_at
        if evidence.first is None and listed is not None and listed >= hull.end:
            # The span ends before the listing: whether that is right, rows at that time must show.
            near = Span(interval.floor(listed), interval.ceil(listed + grace(interval) + 1))
            times = await self._rows(account, near, 1)
            evidence = attrs.evolve(evidence, first=min(times, default=None))
        if not evidence.proves_empty(interval, hull, instrument, reach=endpoint.reach):
            evidence = attrs.evolve(evidence, row_before=await self._has_rows_before(account, hull.start))
        if evidence.proves_empty(interval, hull, instrument, reach=endpoint.reach):
            await self._nothing_in(account, spans)
        else:
            account.lost.pop(UNPROVEN, None)
            account.lose(spans, reason(evidence.first))

    # --- questions ---

    async def _first(self, account: Account, span: Span, hint: int | None) -> int | None:
        """Return the first row at or after the start of a span; None if there is none."""
        endpoint, interval = self._endpoint(account), account.series.interval
        if (request := endpoint.first(account.series, span.start)) is not None:
            return await self._asked_first(account, request, span.start)
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
            times = await self._rows(account, question.span, question.rows)
            try:
                question = seeking.send(times)
            except StopIteration as found:
                first: int | None = found.value
                return first
        raise _Unclear

    async def _asked_first(self, account: Account, request: Request, start: int) -> int | None:
        times = await self._times(account, request, Slice(account.series, Span(0, 1), rows=1))
        first = min(times, default=None)
        if first is not None and (first < start or first != account.series.interval.floor(first)):
            raise _Spoiled
        return first

    async def _deny(self, account: Account, stretch: Span, first: int | None, last: int) -> Evidence:
        """Ask until two different questions have denied a stretch; _Unclear if there is a row after all."""
        endpoint, series = self._endpoint(account), account.series
        has_first = endpoint.first(series, stretch.start) is not None
        for _ in range(2 if has_first else 1):  # years hang on it
            if await self._rows(account, stretch, 1):
                raise _Unclear
        if has_first:
            return Evidence(first, first_row_request=True)
        # The other question is wider at both ends: there are rows to be seen on its far side, and perhaps on
        # the near one.
        end = stretch.end if first is None else series.interval.shift(first, 1)
        times = await self._rows(account, Span(self._margin(account, last), end), endpoint.page_sizes[-1])
        if any(time in stretch for time in times) or (first is not None and first not in times):
            raise _Unclear
        return Evidence(first, row_before=any(time < stretch.start for time in times))

    async def _has_rows_before(self, account: Account, moment: int) -> bool:
        """Whether the exchange has a row from the month before a moment, or from half a page before it."""
        start = account.series.interval.floor(moment - 30 * _DAY)
        return bool(await self._rows(account, Span(min(start, self._margin(account, moment)), moment), 1))

    def _margin(self, account: Account, moment: int) -> int:
        """Return the moment that lies half a page before another one; a month of events."""
        interval = account.series.interval
        if interval.is_event:
            return moment - 30 * _DAY
        steps = max(1, self._endpoint(account).page_sizes[-1] // 2)
        return interval.shift(interval.floor(moment), -steps)

    async def _rows(self, account: Account, span: Span, rows: int) -> list[int]:
        """Return the times of a window's rows; _Spoiled if there are others, or some off the grid."""
        part = Slice(account.series, span, rows)
        times = await self._times(account, self._endpoint(account).request(part), part)
        interval = account.series.interval
        if any(time not in span or time != interval.floor(time) for time in times):
            raise _Spoiled
        return times

    async def _times(self, account: Account, request: Request, part: Slice) -> list[int]:
        """Return the times of an answer's rows; _Spoiled if they cannot be read, _Unclear if none comes."""

        def read(response: Response) -> list[int]:
            decoded = self.asker.exchange.decoded(response.body, part)
            if decoded.undecodable > len(decoded.broken):
                raise _Spoiled
            # A row that is wrong is a row all the same: it shows what the exchange keeps.
            return [*map(int, decoded.columns.times), *(row.time for row in decoded.broken)]

        try:
            times, _ = await self.asker.ask(request, read)
        except RestrictedLocation:
            raise
        except FetchError as error:
            raise _Unclear from error
        return times

    # --- answers ---

    async def _nothing_in(self, account: Account, spans: SpanSet) -> None:
        """Note that moments are empty, unless they are covered by now."""
        account.regain(spans, UNPROVEN)
        if empty := spans & account.missing:
            coverage = Coverage(empty, empty)
            account.learn(coverage)
            await self.lanes.put(Batch(account.series, Columns.empty(account.series.dataset), coverage))

    def _endpoint(self, account: Account) -> Endpoint:
        return self.asker.exchange.endpoint(account.series.dataset)
