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

from marketfetch.planning.batches import Gap, Means, Portions
from marketfetch.engine.state import Books
from marketfetch.engine.row_budget import Allowance
from marketfetch.engine.requester import Asker
from marketfetch.engine.history_bounds import Beginnings
from marketfetch.engine.composites import Derivation, Deriving
from marketfetch.engine.workers import Filling
from marketfetch.engine.writers import Done, Lanes, open_lanes
from marketfetch.engine.store_retry import Patience
from marketfetch.engine.query import BATCH_ROWS, Everything, Query, Settings
from marketfetch.engine.discovery import Enrolment, Roll, ServerTime, ask_listing, ask_time
from marketfetch.engine.instrument_index import Listing
from marketfetch.engine.blocking import call_back, on_thread
from marketfetch.engine.missing import aim, find_gaps
from marketfetch.errors import (
    ConfigurationError,
    FetchError,
    MarketfetchError,
    RowsRefused,
)
from marketfetch.exchange import Exchange
from marketfetch.protocols import (
    Batching,
    Fetcher,
    Partitioned,
    ProxyPool,
    Sharing,
    Sink,
    Store,
    SupportsSession,
    SupportsWaiting,
)
from marketfetch.events import (
    BatchWritten,
    Heartbeat,
    Listener,
    RoundPlanned,
    RunFinished,
    SeriesRefused,
)
from marketfetch.values.pages import Batch
from marketfetch.values.report import Report
from marketfetch.values.series import Series
from marketfetch.values.spans import Span

__all__ = ["Job", "Run"]


@attrs.frozen(eq=False)
class Job:
    """Everything a run needs; nothing is looked up elsewhere."""

    exchange: Exchange
    query: Query
    sink: Sink
    pool: ProxyPool
    fetcher: Fetcher
    settings: Settings
    emit: Listener
    deliver: Done
    """Receives every durable batch and may take its time: the sink waits for it."""
    sharing: Sharing = attrs.field(factory=Sharing)
    """With which other processes the pool's addresses are shared."""

    def check(self) -> None:
        """Refuse what is certain to fail, before anything is sent."""
        self.query.check(self.exchange, self.settings.clock())
        if self.query.composites and not isinstance(self.sink, Store):
            raise ConfigurationError(
                "composites: need a sink that can be read back, such as DuckDB or PostgreSQL"
            )


class Run:
    """One run of a Job; execute it once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._books = Books()
        self._roll = Roll()
        self._time = ServerTime()
        self._span: Span | None = None
        self._allowance = Allowance()
        self._patience = Patience(job.settings.retries, job.emit)
        self._started = monotonic()

    async def execute(self) -> Report:
        """Do the whole job and return the report.

        Raises the one error that made going on pointless, with `.report` telling what was done.
        """
        self._started = monotonic()
        # A clock that was made with the settings, weeks ago perhaps, may have lost what the machine slept.
        self._job = attrs.evolve(self._job, settings=self._job.settings.for_one_run())
        try:
            with _single_failure():
                async with self._heartbeat():
                    await self._everything()
        except MarketfetchError as error:
            error.report = attrs.evolve(self.report(str(error)), error=str(error))
            self._job.emit(RunFinished(error.report))
            raise
        report = self.report()
        self._job.emit(RunFinished(report))
        return report

    def report(self, stopped: str = "the run was stopped before this was asked") -> Report:
        """Say what was done so far; `stopped` is the reason for what was not even tried."""
        if not self._books.accounts and not self._books.requests:
            return attrs.evolve(Report.nothing(), error="nothing was asked yet")
        duration = monotonic() - self._started
        pool = self._job.pool
        return self._books.report(pool.statistics(), asked=self._span, duration=duration, stopped=stopped)

    async def _everything(self) -> None:
        job = self._job
        job.check()
        await self._patience.wait_for(partial(job.sink.prepare, job.query.datasets))
        if not await self._all_held():
            await self._fill()
        await self._derive()

    async def _all_held(self) -> bool:
        """Whether the store has everything already: then the exchange is not asked at all."""
        if isinstance(self._job.query.symbols, Everything):
            return False
        await self._enrol(Listing.of(()))
        self._aim()
        if any(not account.wanted and not account.held.covered for account in self._roll.fetched):
            return (
                False  # nothing has closed yet, and nothing is known that would show that the symbol exists
            )
        # A composite to compute is checked against the listing first: its name may be that of a symbol.
        return not self._gaps() and not any(account.missing for account, _ in self._roll.composites)

    async def _enrol(self, listing: Listing) -> None:
        job = self._job
        retry = job.settings.unusable == "retry"
        books, patience = self._books, self._patience
        enrolment = Enrolment(job.query, job.exchange, job.sink, books, patience, job.emit, retry)
        self._roll = await enrolment.enrol(listing)

    def _aim(self) -> None:
        """Set what is wanted, by the server's time."""
        now = self._now()
        span = self._job.query.span(self._job.settings.clock())
        if self._span is not None:
            # "20d" ago was 20 days before the run began; only a wanted "now" moves on.
            end = span.end if self._job.query.end == "now" else self._span.end
            span = Span(self._span.start, end)
        self._span = span
        for account in self._books.accounts.values():
            aim(account, self._job.exchange.endpoint(account.series.dataset), span, now)

    def _now(self) -> int:
        """The server's time, UTC milliseconds."""
        return self._job.settings.clock() + self._time.offset

    def _portions(self) -> Portions:
        """Batches as the sink wants them, unless the caller wants them otherwise."""
        rows, sink = self._job.settings.batch_rows, self._job.sink
        if rows is not None:
            return Portions(rows)
        rows = sink.batch_rows if isinstance(sink, Batching) else BATCH_ROWS
        return Portions(rows, sink.partition if isinstance(sink, Partitioned) else None)

    def _gaps(self) -> list[Gap]:
        pool = self._job.pool
        # Of what other processes share with us, only our part is at our disposal.
        egresses = pool.share() if isinstance(pool, SupportsSession) else max(1, len(pool.statistics()))
        means = Means(egresses, self._job.settings.concurrency, self._time.latency)
        return find_gaps(self._roll.fetched, self._job.exchange, means)

    async def _fill(self) -> None:
        """Fetch what is missing, then what has closed meanwhile, until nothing closed is missing."""
        job, failure = self._job, None
        async with _session(job), job.fetcher.session():
            asker = Asker(job.exchange, job.fetcher, job.pool, job.settings, self._books, job.emit)
            self._time = await ask_time(asker)
            await self._enrol(await ask_listing(asker, job.query))
            async with open_lanes(job.sink, self._patience, self._durable, self._dropped) as lanes:
                try:
                    with _single_failure():
                        await self._rounds(asker, lanes)
                except FetchError as error:
                    failure = error  # kept until the lanes have written all that was fetched
        if failure is not None:
            raise failure

    async def _rounds(self, asker: Asker, lanes: Lanes) -> None:
        self._aim()
        beginnings = Beginnings(asker, lanes, self._roll.instruments, self._now)
        await beginnings.find(self._roll.fetched)
        filling = Filling(asker, lanes, self._books, self._allowance, self._portions(), self._now)
        for number in range(1, self._job.settings.catch_ups + 1):
            gaps = self._gaps()
            if not gaps:
                return
            rows = sum(gap.rows for gap in gaps)
            self._books.rows_planned += rows
            self._job.emit(RoundPlanned(number, len(gaps), rows))
            await filling.fill(gaps)
            await beginnings.conclude(self._roll.fetched)
            if number < self._job.settings.catch_ups:
                self._aim()

    async def _derive(self) -> None:
        """Compute composite series from the store."""
        store = self._job.sink
        if not self._roll.composites or not isinstance(store, Store):
            return
        derivations = [
            Derivation(account.series, members, account.wanted) for account, members in self._roll.composites
        ]
        for account, members in self._roll.composites:
            account.failed = f"not known of every member ({', '.join(member.symbol for member in members)})"

        def done(batch: Batch) -> None:
            call_back(self._durable, batch)

        def refused(series: Series, error: RowsRefused) -> None:
            call_back(self._give_up, series, str(error))

        batch_rows = self._job.settings.batch_rows or BATCH_ROWS
        deriving = Deriving(store, self._patience, done, refused, batch_rows)
        await on_thread(partial(deriving.derive, derivations), interrupt=deriving.in_use.interrupt)

    async def _durable(self, batch: Batch) -> None:
        self._books.accounts[batch.series].written(batch)
        self._allowance.give_back(batch.rows)
        self._job.emit(BatchWritten(batch))
        await self._job.deliver(batch)

    def _dropped(self, batch: Batch, error: RowsRefused) -> None:
        self._allowance.give_back(batch.rows)
        self._refuse(batch.series, str(error))

    async def _give_up(self, series: Series, reason: str) -> None:
        self._refuse(series, reason)

    def _refuse(self, series: Series, reason: str) -> None:
        """Give a series up whose rows the store refuses; the others go on."""
        if self._books.accounts[series].fail(reason):
            self._job.emit(SeriesRefused(series, reason))

    @asynccontextmanager
    async def _heartbeat(self) -> AsyncIterator[None]:
        """Tell every few seconds how far the run is, and at once when it has to wait."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._beat)
            yield
            group.cancel_scope.cancel()

    async def _beat(self) -> None:
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


def _session(job: Job) -> AbstractAsyncContextManager[object]:
    """Share the pool's addresses for as long as the exchange is asked, if the pool knows how."""
    return job.pool.session(job.sharing) if isinstance(job.pool, SupportsSession) else nullcontext()


@contextmanager
def _single_failure() -> Iterator[None]:
    """Let a failure out of nested task groups as itself; further ones go along as notes."""
    try:
        yield
    except BaseExceptionGroup as group:
        failures = list(_leaves(group))
        chosen = next((failure for failure in failures if isinstance(failure, MarketfetchError)), failures[0])
        for other in failures:
            if other is not chosen:
                chosen.add_note(f"at the same time: {type(other).__name__}: {other}")
        raise chosen from chosen.__cause__


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for inner in group.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _leaves(inner)
        else:
            yield inner
