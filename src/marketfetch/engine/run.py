"""One run from beginning to end.

    wanted − covered = missing → requests → pages → rows + coverage, one transaction

1. Prepare the sink. If the store covers everything that is wanted, skip to step 4: no request is made.
2. Request the exchange's clock and its listing of symbols.
3. Fetch what is missing and has closed: from files of the archive where those are sooner, else from the API.
4. Compute the derived series from the rows in the store.

An error or a cancellation may end the run at any moment: what was committed by then is valid, and the report
says what is missing and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic

import attrs

from marketfetch.common.exception_groups import raising_one_error
from marketfetch.common.local_resources import raising_resource_errors
from marketfetch.engine.archives.files import ArchiveFiles
from marketfetch.engine.archives.waves import ArchiveWaves, want_from_files
from marketfetch.engine.blocking import StoreRetrier
from marketfetch.engine.derivation import Derivation
from marketfetch.engine.discovery import (
    ResolvedSeries,
    SeriesResolver,
    load_instrument_index,
    sync_server_clock,
)
from marketfetch.engine.missing import update_wanted
from marketfetch.engine.pages.batch_builder import RowBudget
from marketfetch.engine.pages.history_bounds import HistoryBounds
from marketfetch.engine.pages.shared_work import CoverageRefresher
from marketfetch.engine.pages.tasks import plan_tasks
from marketfetch.engine.pages.workers import FetchWorkers
from marketfetch.engine.planner import Planner
from marketfetch.engine.requester import RequestExecutor
from marketfetch.engine.run_config import RunConfig
from marketfetch.engine.state import RunState, SeriesState, sending_heartbeats
from marketfetch.engine.writers import OnWritten, WriterPool, open_writers
from marketfetch.errors import FetchError, MarketfetchError, RowsRefused
from marketfetch.events import (
    BatchWritten,
    Heartbeat,
    RoundStarted,
    RunFinished,
    SeriesRefused,
    of_new_run,
)
from marketfetch.planning.batches import DEFAULT_BATCH_ROWS, BatchSizing, Capacity, FetchTask
from marketfetch.planning.estimates import TaskEstimate, estimate_remaining
from marketfetch.planning.instrument_index import InstrumentIndex
from marketfetch.plans import Plan, PlanComparison
from marketfetch.protocols import (
    Store,
    SupportsBatchSize,
    SupportsBudgets,
    SupportsPartitions,
    SupportsProcessRank,
    SupportsProvenance,
    SupportsServerClock,
    SupportsSession,
)
from marketfetch.ratelimit.server_clock import ServerClock
from marketfetch.redaction import redact
from marketfetch.reports import Report
from marketfetch.values.archives import Provenance
from marketfetch.values.coverage import MissingReason, Reason
from marketfetch.values.http import Cost
from marketfetch.values.pages import Batch
from marketfetch.values.query import AllSymbols
from marketfetch.values.series import Series
from marketfetch.values.spans import Span

__all__ = ["STOPPED", "Run"]

STOPPED = "the run was stopped before this was requested"
"""The reason for what was not tried."""
_MAX_ESTIMATED_EGRESSES = 20
"""With more egresses a heartbeat estimates no remaining time: each takes 0.1 to 1 ms of the event loop."""


class Run:
    """One run of a query; execute it once."""

    def __init__(self, config: RunConfig, plan: Plan | None = None) -> None:
        config = self._config = attrs.evolve(config, emit=of_new_run(config.emit, config.exchange.name))
        self._plan = plan
        self._state = RunState()
        self._retrier = StoreRetrier(config.settings.retries, config.emit)
        self._resolver = SeriesResolver(
            config.query,
            config.exchange,
            config.sink,
            self._state,
            self._retrier,
            config.emit,
            retry_unusable=config.settings.unusable == "retry",
        )
        self._resolved = ResolvedSeries()
        self._row_budget = RowBudget()
        self._refresher: CoverageRefresher | None = None
        self._server_clock = ServerClock()
        self._clock_offset = 0
        self._clock_cost = Counter[Cost]()
        self._wanted_span: Span | None = None
        self._started = monotonic()

    async def execute(self) -> Report:
        """Run to the end and return the report.

        An error that ends the run is raised; a MarketfetchError has the report in its `report`. The last
        event is RunFinished, unless the run is cancelled.
        """
        self._started = monotonic()
        # A clock that was made with the settings long ago has not counted the time that the machine slept.
        self._config = config = attrs.evolve(self._config, settings=self._config.settings.for_one_run())
        beats = sending_heartbeats(self._make_heartbeat, config.emit, config.pool, config.settings.heartbeat)
        try:
            with raising_resource_errors(), raising_one_error():
                async with beats:
                    await self._run()
        except MarketfetchError as error:
            error.report = self._finish_with(str(error))
            raise
        except Exception as error:
            self._finish_with(redact(f"{type(error).__name__}: {error}"))
            raise
        report = self.report()
        config.emit(RunFinished(report))
        return report

    def _finish_with(self, error: str) -> Report:
        report = attrs.evolve(self.report(error), error=error)
        self._config.emit(RunFinished(report))
        return report

    def report(self, stopped: str = STOPPED) -> Report:
        """Report what was done so far; `stopped` is the reason for what was not tried."""
        if not self._state.series and not self._state.requests:
            return attrs.evolve(Report.empty(), error="nothing was requested yet")
        duration = monotonic() - self._started
        report = self._state.report(
            self._config.pool.statistics(), requested=self._wanted_span, duration=duration, stopped=stopped
        )
        if self._plan is None:
            return report
        return attrs.evolve(report, plan=PlanComparison(self._plan, self._state.work, duration))

    async def plan(self) -> Plan:
        """Return what a run would request. The clock and listings are requested, and nothing is written."""
        config = self._config = attrs.evolve(self._config, settings=self._config.settings.for_one_run())
        config.check()
        with raising_resource_errors(), raising_one_error():
            if await self._store_is_complete():
                return Plan()
            async with self._open_exchange() as executor:
                self._update_wanted()
                requests_clock_again = not isinstance(config.pool, SupportsServerClock)
                overhead = self._state.spent if requests_clock_again else self._state.spent - self._clock_cost
                if config.session.persistent:
                    overhead = Counter()  # what was requested now is known when the run begins
                planner = Planner(
                    executor,
                    self._resolved,
                    self._capacity(),
                    self._batch_sizing(),
                    self._now,
                    self._server_clock,
                    self._read_provenance,
                )
                return await planner.plan(Counter(overhead), config.query.sources)
        raise AssertionError  # neither context swallows an error

    async def _run(self) -> None:
        config = self._config
        config.check()
        await self._retrier.call_in_thread(partial(config.sink.prepare, config.query.datasets))
        if not await self._store_is_complete():
            try:
                await self._fetch_missing()
            except BaseException:
                self._row_budget.clear()
                raise
        await self._derive()

    # --- what is wanted, and what is missing ---

    async def _store_is_complete(self) -> bool:
        """Whether the store covers everything that is wanted: then the exchange is not asked at all."""
        if isinstance(self._config.query.symbols, AllSymbols):
            return False  # only the listing knows the symbols
        # An empty listing takes every name as it is written.
        self._resolved = await self._resolver.resolve(InstrumentIndex.of(()))
        self._update_wanted()
        if self._config.query.sources != "rest":
            want_from_files(self._resolved.fetched, self._config.exchange)
        # Where nothing is stored, only the listing knows whether the name is one of a symbol: derived series
        # may not have such a name, and all others must.
        return all(
            not state.missing and (state.wanted or state.stored_before.covered)
            for state in self._resolved.states
        )

    def _update_wanted(self) -> None:
        """Set what is wanted of every series, by the server's time."""
        now = self._now()
        span = self._config.query.span(self._config.settings.clock())
        if self._wanted_span is not None:
            # Times such as "20d" are relative to the beginning of the run; only the end "now" moves on.
            end = span.end if self._config.query.end == "now" else self._wanted_span.end
            span = Span(self._wanted_span.start, end)
        self._wanted_span = span
        for series, state in self._state.series.items():
            part = span.intersect(self._config.spans.get(series, span))
            if part is not None:
                update_wanted(state, self._config.exchange.endpoint(series.dataset), part, now)

    def _now(self) -> int:
        """Return the moment up to which rows count as closed: the earlier of the two clocks."""
        return self._config.settings.clock() + min(0, self._clock_offset)

    def _plan_tasks(self) -> list[FetchTask]:
        return plan_tasks(self._resolved.fetched, self._config.exchange, self._capacity())

    def _start_round(self, number: int, tasks: Sequence[FetchTask]) -> None:
        """Count and tell what is missing; events are counted by their usual distance, if it is known."""
        counts = Counter[bool]()
        for task in tasks:
            spacing = self._config.exchange.endpoint(task.series.dataset).event_spacing
            is_event = task.series.interval.is_event
            guess = sum(-(-span.length // spacing) for span in task.missing) if spacing else task.rows
            counts[is_event] += guess if is_event else task.rows
        self._state.rows_planned += counts.total()
        self._config.emit(RoundStarted(number, len(tasks), counts.total(), counts[True]))

    def _capacity(self) -> Capacity:
        pool = self._config.pool
        # Of addresses that are shared with other processes, the pool counts this process's share.
        egresses = pool.share() if isinstance(pool, SupportsSession) else max(1, len(pool.statistics()))
        return Capacity(egresses, self._config.settings.concurrency, self._server_clock.latency)

    # --- fetching ---

    async def _fetch_missing(self) -> None:
        """Fetch what is missing, then what has closed meanwhile, until nothing that has closed is missing."""
        config, failure = self._config, None
        async with (
            self._open_exchange() as executor,
            open_writers(config.sink, self._retrier, self._on_written) as writers,
        ):
            try:
                with raising_one_error():
                    await self._fetch_rounds(executor, writers)
            except FetchError as error:
                failure = error  # raised below: the writers first write every submitted batch
        if failure is not None:
            raise failure

    @asynccontextmanager
    async def _open_exchange(self) -> AsyncIterator[RequestExecutor]:
        """Open the connections, ask for the clock and the listing, and resolve the series."""
        config = self._config
        async with config.session.connected(config.sharing):
            executor = RequestExecutor(
                config.exchange, config.fetcher, config.pool, config.settings, self._state, config.emit
            )
            self._server_clock = config.session.server_clock(config.exchange.base_url)
            self._clock_offset = await sync_server_clock(executor, self._server_clock)
            self._clock_cost = Counter(self._state.spent)
            index = await load_instrument_index(config.session, executor, config.query)
            self._resolved = await self._resolver.resolve(index)
            yield executor

    async def _fetch_rounds(self, executor: RequestExecutor, writers: WriterPool) -> None:
        self._update_wanted()
        bounds = HistoryBounds(executor, writers, self._resolved.instruments, self._now)
        listed = [state for state in self._resolved.fetched if not state.delisted]
        with self._state.timing("rest"):
            await bounds.find_bounds(listed)
        refresher = self._refresher = self._make_refresher()
        if self._config.query.sources != "rest":
            await self._fetch_files(executor, writers, self._resolved.fetched)
        if self._config.query.sources == "archive":
            self._give_up_what_no_file_has()
            return
        state, sizing = self._state, self._batch_sizing()
        workers = FetchWorkers(
            executor, writers, state, self._row_budget, sizing, self._now, bounds, refresher, self._capacity
        )
        for number in range(1, self._config.settings.max_rounds + 1):
            if refresher is not None:
                await refresher.renew()
            share, tasks = self._capacity().egresses, self._plan_tasks()
            if not tasks:
                return
            self._start_round(number, tasks)
            with self._state.timing("rest"):
                await bounds.find_gaps(tasks, self._state.series)
                await workers.run(tasks, share)
                await bounds.decide_unproven(listed)
            await self._fetch_files_of_refused(executor, writers)
            if number < self._config.settings.max_rounds:
                self._update_wanted()

    def _make_refresher(self) -> CoverageRefresher | None:
        store, pool = self._config.sink, self._config.pool
        if not isinstance(store, Store) or not isinstance(pool, SupportsProcessRank):
            return None
        return CoverageRefresher(store, self._retrier, pool.process_rank, self._state.series, self._started)

    async def _fetch_files(
        self, executor: RequestExecutor, writers: WriterPool, states: Sequence[SeriesState]
    ) -> None:
        always, refresher = self._config.query.sources == "archive", self._refresher
        files = ArchiveFiles(executor, writers, self._state, self._row_budget)
        waves = ArchiveWaves(files, self._capacity(), self._now, self._read_provenance, always, refresher)
        with self._state.timing("archive"):
            await waves.run(states)

    async def _fetch_files_of_refused(self, executor: RequestExecutor, writers: WriterPool) -> None:
        """Read files of symbols that are listed, are not traded, and that the API refuses all the same."""
        exchange, instruments = self._config.exchange, self._resolved.instruments
        refused = [
            state
            for state in self._resolved.fetched
            if state.is_refused and not state.delisted and not instruments[state.series.symbol].active
        ]
        with_files = want_from_files(refused, exchange) if self._config.query.sources != "rest" else ()
        for state in with_files:
            state.take_from_files()
        if with_files:
            await self._fetch_files(executor, writers, with_files)

    async def _read_provenance(self, series: Series) -> Sequence[Provenance]:
        store = self._config.sink
        if not isinstance(store, SupportsProvenance):
            return ()
        return await self._retrier.call_in_thread(partial(store.provenance, series))

    def _give_up_what_no_file_has(self) -> None:
        for state in self._resolved.fetched:
            if missing := state.missing:
                failed = state.files_rejected or self._state.archive_blocked
                kind = MissingReason.FILE_UNUSABLE if failed else MissingReason.NOT_IN_FILES
                text = "a file or a listing could not be used" if failed else "no file has it"
                state.give_up(missing, Reason(kind, f"{text}; with sources='auto' the API is asked"))

    def _batch_sizing(self) -> BatchSizing:
        """The size of batches: the setting if there is one, else what the sink prefers."""
        sink = self._config.sink
        if (rows := self._config.settings.batch_rows) is not None:
            return BatchSizing(rows)
        rows = sink.batch_rows if isinstance(sink, SupportsBatchSize) else DEFAULT_BATCH_ROWS
        return BatchSizing(rows, sink.partition if isinstance(sink, SupportsPartitions) else None)

    async def _derive(self) -> None:
        """Compute the derived series; all others are durable."""
        derived, store = self._resolved.derived, self._config.sink
        if derived and isinstance(store, Store):
            rows = self._config.settings.batch_rows or DEFAULT_BATCH_ROWS
            derivation = Derivation(store, self._retrier, self._on_written, rows)
            with self._state.timing("derived"):
                await derivation.run(derived)

    # --- what the writers report ---

    @property
    def _on_written(self) -> OnWritten:
        return OnWritten(self._record_durable, self._record_refused, self._deliver, self._row_budget.split)

    def _record_durable(self, batch: Batch) -> None:
        self._state.record_written(batch)
        self._config.emit(BatchWritten(batch))

    async def _deliver(self, batch: Batch) -> None:
        self._row_budget.release(batch)
        await self._config.deliver(batch)

    def _record_refused(self, batch: Batch, error: RowsRefused) -> None:
        """Stop a series whose rows the store refuses; the other series go on."""
        self._row_budget.release(batch)
        if self._state.series[batch.series].stop(Reason(MissingReason.STORE_REFUSED, str(error))):
            self._config.emit(SeriesRefused(batch.series, str(error)))

    def _make_heartbeat(self) -> Heartbeat:
        beat = self._state.heartbeat(self._config.pool, monotonic() - self._started)
        pool, host, capacity = self._config.pool, self._config.exchange.base_url, self._capacity()
        if not isinstance(pool, SupportsBudgets) or capacity.egresses > _MAX_ESTIMATED_EGRESSES:
            return beat
        done = TaskEstimate(beat.rows_fetched, self._state.spent)
        remaining, now = self._state.rows_planned - beat.rows_fetched, self._server_clock.local()
        left = estimate_remaining(done, remaining, lambda each: pool.budgets(each, host), capacity, now)
        return attrs.evolve(beat, seconds_left=left)
