"""Plans a run: the same choices that the run makes, about rows that are assumed to be there.

The choices change the state of each series, as fetching would. So a planner has a RunState of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import attrs
from anyio.lowlevel import checkpoint

from marketfetch.engine.archives.files import ArchiveFiles, FileTask
from marketfetch.engine.archives.waves import GRAINS, ArchiveWaves, want_from_files
from marketfetch.engine.blocking import run_in_thread
from marketfetch.engine.discovery import ResolvedSeries
from marketfetch.engine.missing import PUBLISH_GRACE, give_up_beyond_retention
from marketfetch.engine.pages.batch_builder import RowBudget
from marketfetch.engine.pages.gap_turns import is_gap_search_worthwhile
from marketfetch.engine.pages.history_bounds import choose_beginning, first_page, span_after
from marketfetch.engine.pages.row_finder import begin_first_row_search, begin_gap_search, question_windows
from marketfetch.engine.pages.tasks import plan_tasks
from marketfetch.engine.processing_cost import measure_processing_cost
from marketfetch.engine.requester import RequestExecutor
from marketfetch.engine.state import SeriesState
from marketfetch.engine.writers import WriterPool
from marketfetch.planning.archive_periods import needed_periods
from marketfetch.planning.batches import BatchSizing, Capacity, FetchTask
from marketfetch.planning.estimates import TaskEstimate, estimate_limit, estimate_task, workload
from marketfetch.plans import LimitPlan, Plan, SeriesPlan, Workload
from marketfetch.protocols import SupportsBudgets
from marketfetch.ratelimit.budget import RateBudget
from marketfetch.ratelimit.server_clock import ServerClock
from marketfetch.sources import Endpoint
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import Coverage, MissingReason, Reason
from marketfetch.values.http import Cost, LimitPool
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet
from marketfetch.values.times import Clock

__all__ = ["Planner"]

_ASSUMED_EMPTY = Reason(MissingReason.UNPROVEN_ABSENCE, "by the listing the symbol was not traded")
_CHECKSUM_BYTES = 100
"""Bytes of a published checksum, about."""
_BYTES_PER_FILE_ROW = 40
"""Bytes of a row in a zip file, about: the size of a file that no listing shows is not known."""


@attrs.define(eq=False)
class _Draft:
    """The plan of one series, as far as it is drawn up."""

    state: SeriesState
    missing: SpanSet
    before: SpanSet = attrs.field(factory=SpanSet)
    """The part of `missing` that is before the listing."""
    known: bool = True
    rest: Counter[Cost] = attrs.field(factory=Counter)
    rest_rows: int = 0
    archive: Counter[Cost] = attrs.field(factory=Counter)
    archive_rows: int = 0
    archive_size: int = 0
    archive_host: str = ""
    unlisted_files: int = 0
    """How many files no listing shows; they are planned as if all of them were there."""
    instead: Counter[Cost] = attrs.field(factory=Counter)
    """The requests that come on top if none of these is there."""


@attrs.frozen(eq=False)
class Planner:
    """Estimates the requests of a run whose series are resolved, and asks the archive for its listings."""

    executor: RequestExecutor
    resolved: ResolvedSeries
    capacity: Capacity
    sizing: BatchSizing
    now: Clock
    """The moment up to which rows count as closed (the earlier of both clocks), UTC milliseconds."""
    clock: ServerClock
    """The server's clock, as far as the local clock knows it."""
    read_provenance: Callable[[Series], Awaitable[Sequence[Provenance]]]
    """Returns from which files the stored rows of a series came."""
    _estimates: dict[FetchTask, TaskEstimate] = attrs.field(factory=dict, init=False)
    """By task without its symbol: many symbols lack the same span."""

    async def plan(self, overhead: Counter[Cost], sources: Literal["auto", "rest", "archive"]) -> Plan:
        """Return the plan; `overhead` are the requests that the run makes before it knows the series."""
        states = self.resolved.fetched
        drafts = {state.series: _Draft(state, state.missing) for state in states}
        for draft in drafts.values():
            if not draft.state.delisted:
                self._find_bounds(draft)
        listings = Counter[Cost]()
        if sources != "rest":
            listings = await self._plan_files(drafts, always=sources == "archive")
        in_a_row = 1
        if sources != "archive":
            listed = [state for state in states if not state.delisted]
            tasks = plan_tasks(listed, self.executor.exchange, self.capacity)
            for task in {task.series: task for task in tasks}.values():
                drafts[task.series].rest += self._gap_search_requests(task)
            for task in tasks:
                found = self._estimate(task)
                draft = drafts[task.series]
                draft.rest += found.requests
                draft.rest_rows += found.rows
                in_a_row = max(in_a_row, found.in_a_row)
                await checkpoint()  # years of minutes of many spans take a while
        incomplete = [draft for draft in drafts.values() if draft.missing]
        return await self._finish(incomplete, overhead, listings, in_a_row)

    # --- the first and the last row ---

    def _find_bounds(self, draft: _Draft) -> None:
        """Count the questions about the first and the last row, and give up what they will show as empty."""
        state, endpoint = draft.state, self._endpoint(draft.state.series)
        instrument = self.resolved.instruments.get(state.series.symbol)
        listed = None if instrument is None else instrument.listed_at
        if instrument is not None and instrument.delisted_at is not None:
            after = span_after(state, instrument.delisted_at)
            if after is not None:
                draft.rest += self._first_row_requests(state.series, endpoint, after, None)
                state.give_up(SpanSet.of(after), _ASSUMED_EMPTY)
        missing, beginning = state.missing.hull, choose_beginning(state, endpoint, listed)
        if missing is None:
            return
        if beginning == "first page":
            page = first_page(state.series, endpoint, missing)
            draft.rest += self._windows(state.series, endpoint, page, 1)
        elif beginning == "search":
            draft.known = listed is not None
            first = max(missing.start, state.series.interval.ceil(listed or 0))
            draft.rest += self._first_row_requests(state.series, endpoint, missing, min(first, missing.end))
            if first > missing.start:
                draft.before = state.missing & SpanSet.of(Span(missing.start, min(first, missing.end)))
                state.give_up(draft.before, _ASSUMED_EMPTY)

    def _first_row_requests(
        self, series: Series, endpoint: Endpoint, span: Span, first: int | None
    ) -> Counter[Cost]:
        """Return the requests of a search that finds `first`, and of the proof that nothing is before it."""
        requests, interval = Counter[Cost](), series.interval
        request = endpoint.first_row_request(series, span.start)
        row = span.end if first is None else first
        if request is not None:
            requests[request.cost] += 1
        else:
            search = begin_first_row_search(endpoint, series, span, first)
            question = next(search)
            while True:
                requests += self._windows(
                    attrs.evolve(series, interval=question.interval), endpoint, question.span, question.rows
                )
                at = max(question.interval.floor(row), question.interval.ceil(question.span.start))
                try:
                    question = search.send([at] if row < span.end and at < question.span.end else [])
                except StopIteration:
                    break
        if row > span.start:
            # Two answers have to deny what lies before the row; the second one may be of a wider window.
            requests += self._windows(series, endpoint, Span(span.start, row), 1)
            second = 1 if request is not None else endpoint.page_sizes[-1]
            requests += self._windows(series, endpoint, Span(span.start, interval.shift(row, 1)), second)
        return requests

    def _gap_search_requests(self, task: FetchTask) -> Counter[Cost]:
        """Return the requests for longer candles that show gaps; there are more where a gap is found."""
        series, endpoint = task.series, self._endpoint(task.series)
        missing = (task.missing & SpanSet.of(Span(0, self.now() - PUBLISH_GRACE))).hull
        if missing is None or not is_gap_search_worthwhile(task, self.executor.settings.concurrency):
            return Counter()
        question = next(begin_gap_search(endpoint, series, missing, task.page_size), None)
        if question is None:
            return Counter()
        longer = attrs.evolve(series, interval=question.interval)
        return self._windows(longer, endpoint, question.span, question.rows)

    @staticmethod
    def _windows(series: Series, endpoint: Endpoint, span: Span, rows: int) -> Counter[Cost]:
        return Counter(endpoint.cost(part.rows) for part in question_windows(endpoint, series, span, rows))

    # --- files ---

    async def _plan_files(self, drafts: Mapping[Series, _Draft], *, always: bool) -> Counter[Cost]:
        """Choose the files by the listings of the archive; return the requests for these listings."""
        executor = self.executor
        files = ArchiveFiles(executor, WriterPool([], 0), executor.state, RowBudget())
        waves = ArchiveWaves(files, self.capacity, self.now, self.read_provenance, always)
        with_files = want_from_files(self.resolved.fetched, executor.exchange)
        for state in with_files:
            drafts[state.series].missing |= state.missing
        spent = Counter(executor.state.spent)
        for grain in GRAINS:
            tasks = await waves.choose(with_files, grain)
            for task in tasks:
                draft = drafts[task.state.series]
                self._add_file(draft, task)
                if task.listed is None:
                    draft.unlisted_files += 1
                    draft.instead += self._instead(task, pages=not always)
                if task.newest and task.compared_rows:
                    self._add_comparison(drafts[task.state.series], task)
        for state in with_files:
            left = state.missing
            give_up_beyond_retention(state, self._endpoint(state.series), self.now())
            drafts[state.series].missing -= left - state.missing
        return Counter(executor.state.spent) - spent

    @staticmethod
    def _add_file(draft: _Draft, task: FileTask) -> None:
        """Count a file and its checksum, if there are any, and note that its rows will be known."""
        has_checksum = task.archive.checksum_request(task.key) is not None
        draft.archive[task.archive.cost()] += 1 + has_checksum
        draft.archive_host = task.archive.file_request(task.key).base_url
        draft.archive_rows += task.need.rows
        size = _BYTES_PER_FILE_ROW * task.need.rows if task.listed is None else task.listed.size
        draft.archive_size += size + has_checksum * _CHECKSUM_BYTES
        draft.state.record_coverage(Coverage(task.need.missing))

    def _instead(self, task: FileTask, *, pages: bool) -> Counter[Cost]:
        """Return the requests in place of an absent file: for the days of a month, and for pages."""
        series, archive, need = task.state.series, task.archive, task.need
        requests = Counter(self._pages(series, need.missing).requests) if pages else Counter[Cost]()
        if need.period.grain == "month" and "day" in archive.grains(series.interval):
            days = needed_periods(need.missing, series.interval, "day", utc_offset=archive.utc_offset)
            requests[archive.cost()] += len(list(days))
        return requests

    def _add_comparison(self, draft: _Draft, newest: FileTask) -> None:
        """Count the page of the API with which the newest file of a series is compared."""
        endpoint = self._endpoint(draft.state.series)
        rows = min(newest.compared_rows, newest.need.rows, endpoint.page_sizes[-1])
        draft.rest[endpoint.cost(rows)] += 1

    # --- totals ---

    async def _finish(
        self, drafts: Sequence[_Draft], overhead: Counter[Cost], listings: Counter[Cost], in_a_row: int
    ) -> Plan:
        rest = sum((draft.rest for draft in drafts), overhead)
        archive = sum((draft.archive for draft in drafts), listings)
        rest_rows, archive_rows = (
            sum(draft.rest_rows for draft in drafts),
            sum(draft.archive_rows for draft in drafts),
        )
        files_host = max((draft.archive_host for draft in drafts), default="")
        host = self.executor.exchange.base_url
        capacity = self.capacity
        if drafts:
            capacity = attrs.evolve(capacity, processing_cost=await run_in_thread(measure_processing_cost))
        rest_limits = await self._limits(TaskEstimate(rest_rows, rest, in_a_row), host, capacity)
        archive_limits = await self._limits(TaskEstimate(archive_rows, archive), files_host, capacity)
        return Plan(
            series=tuple(map(self._line, drafts)),
            limits=(*rest_limits, *archive_limits),
            overhead=workload(overhead + listings, 0),
            rest_seconds=max((limit.seconds for limit in rest_limits), default=0.0),
            archive_seconds=max((limit.seconds for limit in archive_limits), default=0.0),
            unknown=dict(self.executor.state.unknown),
        )

    def _line(self, draft: _Draft) -> SeriesPlan:
        series = draft.state.series
        rest = workload(draft.rest, draft.rest_rows, series.dataset)
        archive = attrs.evolve(workload(draft.archive, draft.archive_rows), size=draft.archive_size)
        earlier = Workload()
        if draft.before:
            found = self._pages(series, draft.before)
            earlier = workload(found.requests, found.rows, series.dataset)
        return SeriesPlan(
            series,
            draft.missing,
            rest,
            archive,
            rest + archive + earlier + workload(draft.instead, 0),
            "unknown" if not draft.known else "listed" if draft.before else "known",
            draft.unlisted_files,
        )

    def _pages(self, series: Series, missing: SpanSet) -> TaskEstimate:
        """Return what the largest pages with some moments take."""
        endpoint = self._endpoint(series)
        return self._estimate(FetchTask(series, missing, endpoint.paginator, endpoint.page_sizes[-1]))

    def _estimate(self, task: FetchTask) -> TaskEstimate:
        endpoint = self._endpoint(task.series)
        of_any = attrs.evolve(task, series=attrs.evolve(task.series, symbol=""))
        if of_any not in self._estimates:
            self._estimates[of_any] = estimate_task(
                of_any, self.sizing, endpoint.cost, endpoint.event_spacing
            )
        return self._estimates[of_any]

    async def _limits(self, estimate: TaskEstimate, host: str, capacity: Capacity) -> list[LimitPlan]:
        """Return the plan for each limit pool, computed on a thread: following the requests takes a while."""
        pools = dict.fromkeys(cost.pool for cost in estimate.requests)
        now = self.clock.local()
        return [
            await run_in_thread(
                partial(estimate_limit, pool, estimate, self._budgets(pool, host), capacity, now)
            )
            for pool in pools
        ]

    def _budgets(self, pool: LimitPool, host: str) -> Mapping[str, RateBudget]:
        """Return what is left of a limit, as far as the pool tells."""
        if isinstance(self.executor.pool, SupportsBudgets):
            return self.executor.pool.budgets(pool, host)
        return {line.name: RateBudget(pool, self.clock) for line in self.executor.pool.statistics()}

    def _endpoint(self, series: Series) -> Endpoint:
        return self.executor.exchange.endpoint(series.dataset)
