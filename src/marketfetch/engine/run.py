"""The loop: everything that happens in a run, from top to bottom.

    wanted − covered = missing → requests → pages → rows + coverage, one transaction

A run prepares the sink, asks the exchange for its clock and its listing, and then fills what is missing,
round after round, until nothing closed is missing. Composite series follow from the store. Whatever ends a
run early, everything committed is right, and the report says what is not there and why.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from time import monotonic

import anyio
import attrs

from marketfetch.engine.batch_builder import RowBudget
from marketfetch.engine.blocking import StoreRetrier, call_from_thread, run_in_thread
from marketfetch.engine.composites import CompositeBuilder, CompositeTask
from marketfetch.engine.discovery import (
    ClockOffset,
    ResolvedSeries,
    SeriesResolver,
    check_query,
    fetch_instruments,
    fetch_server_time,
)
from marketfetch.engine.history_bounds import HistoryBounds
from marketfetch.engine.instrument_index import InstrumentIndex
from marketfetch.engine.missing import plan_tasks, update_wanted
from marketfetch.engine.requester import RequestExecutor
from marketfetch.engine.state import RunState
from marketfetch.engine.workers import FetchWorkers
from marketfetch.engine.writers import OnDurable, WriterPool, open_writers
from marketfetch.errors import (
    ConfigurationError,
    FetchError,
    MarketfetchError,
    RowsRefused,
)
from marketfetch.events import (
    BatchWritten,
    Heartbeat,
    Listener,
    RoundStarted,
    RunFinished,
    SeriesRefused,
)
from marketfetch.exchange import Exchange
from marketfetch.planning.batches import DEFAULT_BATCH_ROWS, BatchSizing, Capacity, FetchTask
from marketfetch.protocols import (
    Fetcher,
    ProxyPool,
    Sharing,
    Sink,
    Store,
    SupportsBatchSize,
    SupportsPartitions,
    SupportsSession,
    SupportsWaiting,
)
from marketfetch.reports import Report
from marketfetch.values.pages import Batch
from marketfetch.values.query import AllSymbols, Query
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span

__all__ = ["Run", "RunConfig"]


@attrs.frozen(eq=False)
class RunConfig:
    """Everything a run needs; nothing is looked up elsewhere."""

    exchange: Exchange
    query: Query
    sink: Sink
    pool: ProxyPool
    fetcher: Fetcher
    settings: Settings
    emit: Listener
    deliver: OnDurable
    """Receives every durable batch and may take its time: the sink waits for it."""
    sharing: Sharing = attrs.field(factory=Sharing)
    """With which other processes the pool's addresses are shared."""

    def check(self) -> None:
        """Refuse what is certain to fail, before anything is sent."""
        check_query(self.query, self.exchange, self.settings.clock())
        if self.query.composites and not isinstance(self.sink, Store):
            raise ConfigurationError(
                "composites: need a sink that can be read back, such as DuckDB or PostgreSQL"
            )


class Run:
    """One run of a Job; execute it once."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._state = RunState()
        self._resolved = ResolvedSeries()
        self._time = ClockOffset()
        self._span: Span | None = None
        self._row_budget = RowBudget()
        self._retrier = StoreRetrier(config.settings.retries, config.emit)
        self._started = monotonic()

    async def execute(self) -> Report:
        """Do the whole job and return the report.

        Raises the one error that made going on pointless, with `.report` telling what was done.
        """
        self._started = monotonic()
        # A clock that was made with the settings, weeks ago perhaps, may have lost what the machine slept.
        self._config = attrs.evolve(self._config, settings=self._config.settings.for_one_run())
        try:
            with _first_error():
                async with self._heartbeat():
                    await self._run()
        except MarketfetchError as error:
            error.report = attrs.evolve(self.report(str(error)), error=str(error))
            self._config.emit(RunFinished(error.report))
            raise
        report = self.report()
        self._config.emit(RunFinished(report))
        return report

    def report(self, stopped: str = "the run was stopped before this was asked") -> Report:
        """Say what was done so far; `stopped` is the reason for what was not even tried."""
        if not self._state.series and not self._state.requests:
            return attrs.evolve(Report.empty(), error="nothing was asked yet")
        duration = monotonic() - self._started
        pool = self._config.pool
        return self._state.report(pool.statistics(), asked=self._span, duration=duration, stopped=stopped)

    async def _run(self) -> None:
        config = self._config
        config.check()
        await self._retrier.call_in_thread(partial(config.sink.prepare, config.query.datasets))
        if not await self._store_is_complete():
            await self._fetch_missing()
        await self._derive()

    async def _store_is_complete(self) -> bool:
        """Whether the store has everything already: then the exchange is not asked at all."""
        if isinstance(self._config.query.symbols, AllSymbols):
            return False
        await self._resolve_series(InstrumentIndex.of(()))
        self._update_wanted()
        if any(not state.wanted and not state.stored_before.covered for state in self._resolved.fetched):
            return (
                False  # nothing has closed yet, and nothing is known that would show that the symbol exists
            )
        # A composite to compute is checked against the listing first: its name may be that of a symbol.
        return not self._plan_tasks() and not any(state.missing for state, _ in self._resolved.composites)

    async def _resolve_series(self, listing: InstrumentIndex) -> None:
        config = self._config
        retry = config.settings.unusable == "retry"
        run_state, retrier = self._state, self._retrier
        enrolment = SeriesResolver(
            config.query, config.exchange, config.sink, run_state, retrier, config.emit, retry
        )
        self._resolved = await enrolment.resolve(listing)

    def _update_wanted(self) -> None:
        """Set what is wanted, by the server's time."""
        now = self._now()
        span = self._config.query.span(self._config.settings.clock())
        if self._span is not None:
            # "20d" ago was 20 days before the run began; only a wanted "now" moves on.
            end = span.end if self._config.query.end == "now" else self._span.end
            span = Span(self._span.start, end)
        self._span = span
        for state in self._state.series.values():
            update_wanted(state, self._config.exchange.endpoint(state.series.dataset), span, now)

    def _now(self) -> int:
        """The server's time, UTC milliseconds."""
        return self._config.settings.clock() + self._time.offset

    def _batch_sizing(self) -> BatchSizing:
        """Batches as the sink wants them, unless the caller wants them otherwise."""
        rows, sink = self._config.settings.batch_rows, self._config.sink
        if rows is not None:
            return BatchSizing(rows)
        rows = sink.batch_rows if isinstance(sink, SupportsBatchSize) else DEFAULT_BATCH_ROWS
        return BatchSizing(rows, sink.partition if isinstance(sink, SupportsPartitions) else None)

    def _plan_tasks(self) -> list[FetchTask]:
        pool = self._config.pool
        # Of what other processes share with us, only our part is at our disposal.
        egresses = pool.share() if isinstance(pool, SupportsSession) else max(1, len(pool.statistics()))
        capacity = Capacity(egresses, self._config.settings.concurrency, self._time.latency)
        return plan_tasks(self._resolved.fetched, self._config.exchange, capacity)

    async def _fetch_missing(self) -> None:
        """Fetch what is missing, then what has closed meanwhile, until nothing closed is missing."""
        config, failure = self._config, None
        async with _session(config), config.fetcher.session():
            executor = RequestExecutor(
                config.exchange, config.fetcher, config.pool, config.settings, self._state, config.emit
            )
            self._time = await fetch_server_time(executor)
            await self._resolve_series(await fetch_instruments(executor, config.query))
            async with open_writers(
                config.sink, self._retrier, self._on_durable, self._on_refused
            ) as writers:
                try:
                    with _first_error():
                        await self._rounds(executor, writers)
                except FetchError as error:
                    failure = error  # kept until the lanes have written all that was fetched
        if failure is not None:
            raise failure

    async def _rounds(self, executor: RequestExecutor, writers: WriterPool) -> None:
        self._update_wanted()
        bounds = HistoryBounds(executor, writers, self._resolved.instruments, self._now)
        await bounds.detect(self._resolved.fetched)
        workers = FetchWorkers(
            executor, writers, self._state, self._row_budget, self._batch_sizing(), self._now
        )
        for number in range(1, self._config.settings.max_rounds + 1):
            tasks = self._plan_tasks()
            if not tasks:
                return
            rows = sum(task.rows for task in tasks)
            self._state.rows_planned += rows
            self._config.emit(RoundStarted(number, len(tasks), rows))
            await workers.run(tasks)
            await bounds.decide_unproven(self._resolved.fetched)
            if number < self._config.settings.max_rounds:
                self._update_wanted()

    async def _derive(self) -> None:
        """Compute composite series from the store."""
        store = self._config.sink
        if not self._resolved.composites or not isinstance(store, Store):
            return
        derivations = [
            CompositeTask(state.series, members, state.wanted) for state, members in self._resolved.composites
        ]
        for state, members in self._resolved.composites:
            state.terminal_error = (
                f"not known of every member ({', '.join(member.symbol for member in members)})"
            )

        def done(batch: Batch) -> None:
            call_from_thread(self._on_durable, batch)

        def refused(series: Series, error: RowsRefused) -> None:
            call_from_thread(self._give_up, series, str(error))

        batch_rows = self._config.settings.batch_rows or DEFAULT_BATCH_ROWS
        deriving = CompositeBuilder(store, self._retrier, done, refused, batch_rows)
        await run_in_thread(partial(deriving.build, derivations), interrupt=deriving.current.interrupt)

    async def _on_durable(self, batch: Batch) -> None:
        self._state.series[batch.series].record_written(batch)
        self._row_budget.release(batch.rows)
        self._config.emit(BatchWritten(batch))
        await self._config.deliver(batch)

    def _on_refused(self, batch: Batch, error: RowsRefused) -> None:
        self._row_budget.release(batch.rows)
        self._refuse(batch.series, str(error))

    async def _give_up(self, series: Series, reason: str) -> None:
        self._refuse(series, reason)

    def _refuse(self, series: Series, reason: str) -> None:
        """Give a series up whose rows the store refuses; the others go on."""
        if self._state.series[series].stop(reason):
            self._config.emit(SeriesRefused(series, reason))

    @asynccontextmanager
    async def _heartbeat(self) -> AsyncIterator[None]:
        """Tell every few seconds how far the run is, and at once when it has to wait."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._send_heartbeats)
            yield
            group.cancel_scope.cancel()

    async def _send_heartbeats(self) -> None:
        run_state, pool = self._state, self._config.pool
        changed = pool.waiting_changed if isinstance(pool, SupportsWaiting) else anyio.sleep_forever
        while True:
            with anyio.move_on_after(self._config.settings.heartbeat):
                await changed()
            self._config.emit(
                Heartbeat(
                    elapsed=monotonic() - self._started,
                    rows_fetched=run_state.rows_fetched,
                    rows_written=run_state.rows_written,
                    rows_planned=run_state.rows_planned,
                    requests=run_state.requests,
                    egresses=run_state.egresses(pool.statistics()),
                    waiting=pool.waiting() if isinstance(pool, SupportsWaiting) else "",
                )
            )


def _session(config: RunConfig) -> AbstractAsyncContextManager[object]:
    """Share the pool's addresses for as long as the exchange is asked, if the pool knows how."""
    return config.pool.session(config.sharing) if isinstance(config.pool, SupportsSession) else nullcontext()


@contextmanager
def _first_error() -> Iterator[None]:
    """Let a failure out of nested task groups as itself; further ones go along as notes."""
    try:
        yield
    except BaseExceptionGroup as group:
        failures = list(_flatten(group))
        chosen = next((failure for failure in failures if isinstance(failure, MarketfetchError)), failures[0])
        for other in failures:
            if other is not chosen:
                chosen.add_note(f"at the same time: {type(other).__name__}: {other}")
        raise chosen from chosen.__cause__


def _flatten(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for inner in group.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _flatten(inner)
        else:
            yield inner
