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

    def __init__(self, job: RunConfig) -> None:
        self._job = job
        self._books = RunState()
        self._roll = ResolvedSeries()
        self._time = ClockOffset()
        self._span: Span | None = None
        self._allowance = RowBudget()
        self._patience = StoreRetrier(job.settings.retries, job.emit)
        self._started = monotonic()

    async def execute(self) -> Report:
        """Do the whole job and return the report.

        Raises the one error that made going on pointless, with `.report` telling what was done.
        """
        self._started = monotonic()
        # A clock that was made with the settings, weeks ago perhaps, may have lost what the machine slept.
        self._job = attrs.evolve(self._job, settings=self._job.settings.for_one_run())
        try:
            with _first_error():
                async with self._heartbeat():
                    await self._run()
        except MarketfetchError as error:
            error.report = attrs.evolve(self.report(str(error)), error=str(error))
            self._job.emit(RunFinished(error.report))
            raise
        report = self.report()
        self._job.emit(RunFinished(report))
        return report

    def report(self, stopped: str = "the run was stopped before this was asked") -> Report:
        """Say what was done so far; `stopped` is the reason for what was not even tried."""
        if not self._books.series and not self._books.requests:
            return attrs.evolve(Report.empty(), error="nothing was asked yet")
        duration = monotonic() - self._started
        pool = self._job.pool
        return self._books.report(pool.statistics(), asked=self._span, duration=duration, stopped=stopped)

    async def _run(self) -> None:
        job = self._job
        job.check()
        await self._patience.call_in_thread(partial(job.sink.prepare, job.query.datasets))
        if not await self._store_is_complete():
            await self._fetch_missing()
        await self._derive()

    async def _store_is_complete(self) -> bool:
        """Whether the store has everything already: then the exchange is not asked at all."""
        if isinstance(self._job.query.symbols, AllSymbols):
            return False
        await self._resolve_series(InstrumentIndex.of(()))
        self._update_wanted()
        if any(not account.wanted and not account.stored_before.covered for account in self._roll.fetched):
            return (
                False  # nothing has closed yet, and nothing is known that would show that the symbol exists
            )
        # A composite to compute is checked against the listing first: its name may be that of a symbol.
        return not self._plan_tasks() and not any(account.missing for account, _ in self._roll.composites)

    async def _resolve_series(self, listing: InstrumentIndex) -> None:
        job = self._job
        retry = job.settings.unusable == "retry"
        books, patience = self._books, self._patience
        enrolment = SeriesResolver(job.query, job.exchange, job.sink, books, patience, job.emit, retry)
        self._roll = await enrolment.resolve(listing)

    def _update_wanted(self) -> None:
        """Set what is wanted, by the server's time."""
        now = self._now()
        span = self._job.query.span(self._job.settings.clock())
        if self._span is not None:
            # "20d" ago was 20 days before the run began; only a wanted "now" moves on.
            end = span.end if self._job.query.end == "now" else self._span.end
            span = Span(self._span.start, end)
        self._span = span
        for account in self._books.series.values():
            update_wanted(account, self._job.exchange.endpoint(account.series.dataset), span, now)

    def _now(self) -> int:
        """The server's time, UTC milliseconds."""
        return self._job.settings.clock() + self._time.offset

    def _batch_sizing(self) -> BatchSizing:
        """Batches as the sink wants them, unless the caller wants them otherwise."""
        rows, sink = self._job.settings.batch_rows, self._job.sink
        if rows is not None:
            return BatchSizing(rows)
        rows = sink.batch_rows if isinstance(sink, SupportsBatchSize) else DEFAULT_BATCH_ROWS
        return BatchSizing(rows, sink.partition if isinstance(sink, SupportsPartitions) else None)

    def _plan_tasks(self) -> list[FetchTask]:
        pool = self._job.pool
        # Of what other processes share with us, only our part is at our disposal.
        egresses = pool.share() if isinstance(pool, SupportsSession) else max(1, len(pool.statistics()))
        means = Capacity(egresses, self._job.settings.concurrency, self._time.latency)
        return plan_tasks(self._roll.fetched, self._job.exchange, means)

    async def _fetch_missing(self) -> None:
        """Fetch what is missing, then what has closed meanwhile, until nothing closed is missing."""
        job, failure = self._job, None
        async with _session(job), job.fetcher.session():
            asker = RequestExecutor(job.exchange, job.fetcher, job.pool, job.settings, self._books, job.emit)
            self._time = await fetch_server_time(asker)
            await self._resolve_series(await fetch_instruments(asker, job.query))
            async with open_writers(job.sink, self._patience, self._on_durable, self._on_refused) as lanes:
                try:
                    with _first_error():
                        await self._rounds(asker, lanes)
                except FetchError as error:
                    failure = error  # kept until the lanes have written all that was fetched
        if failure is not None:
            raise failure

    async def _rounds(self, asker: RequestExecutor, lanes: WriterPool) -> None:
        self._update_wanted()
        beginnings = HistoryBounds(asker, lanes, self._roll.instruments, self._now)
        await beginnings.detect(self._roll.fetched)
        filling = FetchWorkers(asker, lanes, self._books, self._allowance, self._batch_sizing(), self._now)
        for number in range(1, self._job.settings.max_rounds + 1):
            gaps = self._plan_tasks()
            if not gaps:
                return
            rows = sum(gap.rows for gap in gaps)
            self._books.rows_planned += rows
            self._job.emit(RoundStarted(number, len(gaps), rows))
            await filling.run(gaps)
            await beginnings.decide_unproven(self._roll.fetched)
            if number < self._job.settings.max_rounds:
                self._update_wanted()

    async def _derive(self) -> None:
        """Compute composite series from the store."""
        store = self._job.sink
        if not self._roll.composites or not isinstance(store, Store):
            return
        derivations = [
            CompositeTask(account.series, members, account.wanted)
            for account, members in self._roll.composites
        ]
        for account, members in self._roll.composites:
            account.terminal_error = (
                f"not known of every member ({', '.join(member.symbol for member in members)})"
            )

        def done(batch: Batch) -> None:
            call_from_thread(self._on_durable, batch)

        def refused(series: Series, error: RowsRefused) -> None:
            call_from_thread(self._give_up, series, str(error))

        batch_rows = self._job.settings.batch_rows or DEFAULT_BATCH_ROWS
        deriving = CompositeBuilder(store, self._patience, done, refused, batch_rows)
        await run_in_thread(partial(deriving.build, derivations), interrupt=deriving.current.interrupt)

    async def _on_durable(self, batch: Batch) -> None:
        self._books.series[batch.series].record_written(batch)
        self._allowance.release(batch.rows)
        self._job.emit(BatchWritten(batch))
        await self._job.deliver(batch)

    def _on_refused(self, batch: Batch, error: RowsRefused) -> None:
        self._allowance.release(batch.rows)
        self._refuse(batch.series, str(error))

    async def _give_up(self, series: Series, reason: str) -> None:
        self._refuse(series, reason)

    def _refuse(self, series: Series, reason: str) -> None:
        """Give a series up whose rows the store refuses; the others go on."""
        if self._books.series[series].stop(reason):
            self._job.emit(SeriesRefused(series, reason))

    @asynccontextmanager
    async def _heartbeat(self) -> AsyncIterator[None]:
        """Tell every few seconds how far the run is, and at once when it has to wait."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._send_heartbeats)
            yield
            group.cancel_scope.cancel()

    async def _send_heartbeats(self) -> None:
        books, pool = self._books, self._job.pool
        changed = pool.waiting_changed if isinstance(pool, SupportsWaiting) else anyio.sleep_forever
        while True:
            with anyio.move_on_after(self._job.settings.heartbeat):
                await changed()
            self._job.emit(
                Heartbeat(
                    elapsed=monotonic() - self._started,
                    rows_fetched=books.rows_fetched,
                    rows_written=books.rows_written,
                    rows_planned=books.rows_planned,
                    requests=books.requests,
                    egresses=books.egresses(pool.statistics()),
                    waiting=pool.waiting() if isinstance(pool, SupportsWaiting) else "",
                )
            )


def _session(job: RunConfig) -> AbstractAsyncContextManager[object]:
    """Share the pool's addresses for as long as the exchange is asked, if the pool knows how."""
    return job.pool.session(job.sharing) if isinstance(job.pool, SupportsSession) else nullcontext()


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
