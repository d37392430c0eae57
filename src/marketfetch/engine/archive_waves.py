"""Fetching from an archive: months first, then the days that the months do not have.

What the files lack is left to the API. A file proves that moments are present, never that they are empty.
Of a delisted symbol there are files alone: see `planning/archive_absence.py`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from io import BytesIO
from typing import TypeVar

import anyio
import attrs
from anyio import CapacityLimiter

from marketfetch.archives.checksums import Checksum, parse_checksum
from marketfetch.archives.file_reader import PIECE_ROWS, FileContent, FileReader
from marketfetch.archives.listing import ListingPage, ListingRequest, parse_listing
from marketfetch.archives.periods import CalendarPeriod, Grain
from marketfetch.engine.batch_builder import RowBudget
from marketfetch.engine.blocking import call_on_loop, run_in_thread
from marketfetch.engine.requester import RequestExecutor, ResponsePolicy
from marketfetch.engine.state import RunState, SeriesState
from marketfetch.engine.writers import WriterPool
from marketfetch.errors import (
    BadRequest,
    Banned,
    DecodeError,
    FetchError,
    PaginationError,
    RateLimitExceeded,
    RestrictedLocation,
)
from marketfetch.events import FileFetched, FileRejected
from marketfetch.planning.archive_absence import FilesRead
from marketfetch.planning.archive_periods import NeededPeriod, needed_periods
from marketfetch.planning.batches import Capacity, choose_page_size, files_end_sooner
from marketfetch.sources import Archive
from marketfetch.values.archives import ArchiveFile, Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.http import Response
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import MAX_TIMESTAMP, Span, SpanSet, format_utc
from marketfetch.values.times import Clock

__all__ = ["ArchiveWaves", "list_pages"]

_T = TypeVar("_T")
_GRAINS: tuple[Grain, ...] = ("month", "day")
_WORTH_PAGES = 2
"""A file of which fewer pages are missing is not worth its requests."""
_MAX_FILE = 16 * 2**20
"""Bytes of a file, at most: a month of candles of 1s is larger, and its days are read instead."""
_MAX_DECODING = 4
"""Files that are decoded side by side, at most: each needs memory for a piece of 100,000 rows."""
_IN_NO_FILE = "neither a monthly nor a daily file has it, and the exchange no longer lists the symbol"


@attrs.frozen
class _FileTask:
    """A file, the period that it covers, and what is missing there."""

    state: SeriesState
    archive: Archive
    need: NeededPeriod
    file: ArchiveFile


@attrs.frozen(eq=False)
class ArchiveWaves:
    """Reads files of the exchange's archive where that is sooner than the API.

    With `always`, files are read wherever something is missing, however little. So are those of delisted
    symbols: there is nothing else to ask.
    """

    executor: RequestExecutor
    writers: WriterPool
    state: RunState
    row_budget: RowBudget
    capacity: Capacity
    now: Clock
    """The server's time, UTC milliseconds."""
    always: bool = False
    _blocked: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    """Set once the archive has refused an address, or none reaches it: then no further file is requested."""
    _decoding: CapacityLimiter = attrs.field(
        factory=lambda: CapacityLimiter(min(_MAX_DECODING, os.cpu_count() or 1)), init=False
    )

    _files: dict[Series, FilesRead] = attrs.field(factory=dict, init=False)
    """The files of each delisted series."""

    async def run(self, states: Sequence[SeriesState]) -> None:
        """Fetch what is missing of the series, as far as files have it, and submit it to the writers.

        What remains of a delisted series is empty where its files prove it, and given up elsewhere.

        Raises RestrictedLocation. Any other error of a listing or a file is reported, and the API is asked
        for the rows.
        """
        decoded = self._decoding.total_tokens * PIECE_ROWS
        for_writer = max(PIECE_ROWS, 2 * self.writers.transaction_rows)
        self.row_budget.limit = round(decoded) + for_writer * len(self.writers)
        for grain in _GRAINS:
            tasks = await self._plan(states, grain)
            self.state.rows_planned += sum(task.need.rows for task in tasks)
            await self._for_each(tasks, self._fetch_file)
        for state in states:
            if state.delisted and state.missing:
                await self._conclude(state)

    async def _plan(self, states: Sequence[SeriesState], grain: Grain) -> list[_FileTask]:
        """List the files of one grain that are worth their requests."""
        needs = [(state, needed) for state in states if (needed := self._needs(state, grain))]
        by_choice = [need for need in needs if not need[0].delisted]
        if by_choice and not self._are_sooner(by_choice):
            needs = [need for need in needs if need[0].delisted]
        tasks: list[_FileTask] = []

        async def list_files(of: tuple[SeriesState, list[NeededPeriod]]) -> None:
            tasks.extend(await self._list(*of))

        await self._for_each(needs, list_files)
        return sorted(tasks, key=lambda task: task.need.period.start)

    def _needs(self, state: SeriesState, grain: Grain) -> list[NeededPeriod]:
        """Return the periods of a series that are over, and of which more than a few pages are missing."""
        series, archive = state.series, self.executor.exchange.archive(state.series.dataset)
        if archive is None or grain not in archive.grains(series.interval):
            return []
        least = 1 if self.always or state.delisted else _WORTH_PAGES * self._page_size(state)
        now, offset = self.now(), archive.utc_offset
        # The API alone knows what the listed instrument had earlier.
        missing = state.missing & SpanSet.of(Span(_begins(state, archive), MAX_TIMESTAMP))
        needed = needed_periods(missing, series.interval, grain, utc_offset=offset)
        return [
            need for need in needed if need.rows >= least and (need.period.span.end <= now or state.delisted)
        ]

    def _page_size(self, state: SeriesState) -> int:
        endpoint = self.executor.exchange.endpoint(state.series.dataset)
        rows = state.series.interval.count_rows(state.missing)
        return choose_page_size(endpoint.page_sizes, endpoint.cost, rows, self.capacity)

    def _are_sooner(self, needs: Sequence[tuple[SeriesState, list[NeededPeriod]]]) -> bool:
        """Whether the files of all series are read sooner than the pages that they replace."""
        if self.always:
            return True
        files = sum(len(needed) for _, needed in needs)
        rows = sum(need.rows for _, needed in needs for need in needed)
        pages = sum(-(-need.rows // self._page_size(state)) for state, needed in needs for need in needed)
        state = needs[0][0]
        page = self.executor.exchange.endpoint(state.series.dataset).cost(self._page_size(state))
        return files_end_sooner(files, rows, pages, page, self.capacity)

    async def _list(self, state: SeriesState, needed: Sequence[NeededPeriod]) -> list[_FileTask]:
        """List the files of a series from the first needed period on; none if the listing fails."""
        archive = self.executor.exchange.archive(state.series.dataset)
        if archive is None or self._blocked.is_set():
            return []
        by_period = {need.period: need for need in needed}
        first, last, files = needed[0].period, max(by_period), None
        if state.delisted:
            files = self._files.setdefault(state.series, FilesRead(state.series.interval))
            first = files.list_from(first)
        elif first.grain == "month":
            first = _month_of_start(state, first)
        listing = archive.listing(state.series, first)
        tasks: list[_FileTask] = []
        older, begins = list[str](), _begins(state, archive)
        try:
            async with aclosing(list_pages(self.executor, archive, listing)) as pages:
                async for page in pages:
                    found = [(archive.period_of(state.series, file.name), file) for file in page.files]
                    tasks += [
                        _FileTask(state, archive, by_period.pop(period), file)
                        for period, file in found
                        if period in by_period and file.size <= _MAX_FILE
                    ]
                    older += [file.key for period, file in found if period and period.span.end <= begins]
                    known = {period for period, _ in found if period is not None}
                    if files is not None:
                        files.listed |= known
                    elif any(period >= last for period in known):
                        break
        except (FetchError, PaginationError) as error:
            self._reject(state, listing.prefix, error)
            if files is not None:
                files.listing_failed = True
            return []
        if older:
            self._reject_older(state, older, begins)
        return tasks

    async def _fetch_file(self, task: _FileTask) -> None:
        """Store the missing rows of a file; after damage it is fetched once more, past caches."""
        for fresh in (False, True):
            if self._blocked.is_set():
                return
            try:
                await self._store_file(task, fresh=fresh)
            except DecodeError as error:
                if fresh:
                    self._reject(task.state, task.file.key, error)
            except FetchError as error:
                self._reject(task.state, task.file.key, error)
                return
            else:
                return

    def _reject(self, state: SeriesState, key: str, error: FetchError | PaginationError) -> None:
        """Report a file or a listing that cannot be used; raise RestrictedLocation."""
        if isinstance(error, RestrictedLocation):
            raise error
        no_egress_left = isinstance(error, FetchError) and error.egress is None
        if no_egress_left or isinstance(error, Banned | RateLimitExceeded):
            self._blocked.set()
        self.state.files_rejected += 1
        self.executor.emit(FileRejected(state.series, key, f"{type(error).__name__}: {error}"))

    def _reject_older(self, state: SeriesState, keys: Sequence[str], begins: int) -> None:
        """Report files of an older instrument of the same name."""
        self.state.files_rejected += len(keys)
        reason = f"is older than the listing of {format_utc(begins)}: of another instrument of that name"
        self.executor.emit(FileRejected(state.series, keys[0], f"{reason} ({len(keys)} such files)"))

    async def _store_file(self, task: _FileTask, *, fresh: bool) -> None:
        if task.state.terminal_error is not None:
            return
        archive, key = task.archive, task.file.key
        checksum = await self._fetch_checksum(task, fresh=fresh)
        request = archive.file_request(key, fresh=fresh)
        body, egress = await self.executor.send(request, _body, _policy(archive))
        content = FileContent(
            task.state.series,
            task.need.period,
            archive.layout,
            member=f"{task.file.name.removesuffix('.zip')}.csv",
            published=task.file.modified,
        )
        reader = FileReader(BytesIO(body), content, checksum)
        try:
            rows, span = await run_in_thread(partial(self._read_file, task, reader), limiter=self._decoding)
        except DecodeError as error:
            error.egress = egress
            raise
        self.state.rows_by_egress[egress] += rows
        self.state.record_file(reader.summary, rows)
        task.state.rejected.update(reader.summary.rejected)
        if files := self._files.get(task.state.series):
            # An exact copy of a row hides nothing.
            files.record(task.need.period, span, complete=not reader.summary.rejected.keys() - {"duplicate"})
        verified = reader.summary.verified
        self.executor.emit(FileFetched(task.state.series, egress, key, rows, len(body), verified=verified))

    async def _fetch_checksum(self, task: _FileTask, *, fresh: bool) -> Checksum | None:
        """Return the published checksum of a file; None for one of the few files that have none."""
        request = task.archive.checksum_request(task.file.key, fresh=fresh)
        try:
            body, egress = await self.executor.send(request, _body, _policy(task.archive))
        except BadRequest:
            return None
        try:
            return parse_checksum(body, task.file.name)
        except DecodeError as error:
            error.egress = egress
            raise

    def _read_file(self, task: _FileTask, reader: FileReader) -> tuple[int, Span | None]:
        """Submit the missing rows of a file; return their number and the span of all rows; on a thread."""
        pieces = list(reader)  # no row is certain before the last one has been read
        provenance = Provenance(
            task.file.key,
            task.need.period.span,
            reader.summary.size,
            task.file.modified,
            reader.summary.digest,
            verified=reader.summary.verified,
        )
        series, rows = task.state.series, 0
        for piece in pieces:
            columns = piece.within(task.need.missing)
            if len(columns):
                coverage = Coverage(series.interval.cover(columns.times))
                call_on_loop(self._submit, task.state, Batch(series, columns, coverage, (), provenance))
                rows += len(columns)
        if not pieces:
            return rows, None
        return rows, Span(int(pieces[0].times[0]), series.interval.shift(int(pieces[-1].times[-1]), 1))

    async def _conclude(self, state: SeriesState) -> None:
        """Record as empty what the files of a delisted series prove to be, and give up the rest."""
        series, now = state.series, self.now()
        files = self._files.get(series, FilesRead(series.interval))
        if empty := files.empty(state.missing, now):
            coverage = Coverage(empty, empty)
            state.record_coverage(coverage)
            await self.writers.submit(Batch(series, Columns.empty(series.dataset), coverage))
        if files.listed and not files.is_over(now):
            after = state.missing & SpanSet.of(Span(files.end, MAX_TIMESTAMP))
            state.give_up(after, f"its files end at {format_utc(files.end)}, and another may follow")
        state.give_up(state.missing, _IN_NO_FILE)

    async def _submit(self, state: SeriesState, batch: Batch) -> None:
        await self.row_budget.acquire(batch, batch.rows)
        state.record_coverage(batch.coverage)
        state.record_row_time(int(batch.columns.times[0]))
        await self.writers.submit(batch)

    async def _for_each(self, items: Sequence[_T], work: Callable[[_T], Awaitable[None]]) -> None:
        """Do the work for all items, in order, `concurrency` of them at a time."""
        rest = iter(items)

        async def work_off() -> None:
            for item in rest:
                await work(item)

        async with anyio.create_task_group() as group:
            for _ in range(min(len(items), self.executor.settings.concurrency)):
                group.start_soon(work_off)


async def list_pages(
    executor: RequestExecutor, archive: Archive, listing: ListingRequest
) -> AsyncGenerator[ListingPage]:
    """Yield the pages of a listing; FetchError or PaginationError if it cannot be read to its end."""
    following: ListingRequest | None = listing
    while following is not None:
        request = archive.listing_request(following)
        page, _ = await executor.send(request, _listing_page, _policy(archive))
        following = following.following(page)
        yield page


def _begins(state: SeriesState, archive: Archive) -> int:
    """Return from when on files are of the listed instrument: its ticker may have been used before.

    Files of an index may be older. They are named after the pair, and belong to all its contracts.
    """
    is_named = state.series.symbol in archive.stem(state.series)
    return state.series.interval.floor(state.listed_at or 0) if is_named else 0


def _month_of_start(state: SeriesState, month: CalendarPeriod) -> CalendarPeriod:
    """Return the month in which the query begins: its files show whether the ticker was used before."""
    start = month.span.start if state.wanted.hull is None else state.wanted.hull.start
    return CalendarPeriod.containing(start, "month", utc_offset=month.utc_offset)


def _policy(archive: Archive) -> ResponsePolicy:
    return ResponsePolicy(archive.raise_for_error, waits_for_bans=False)


def _body(response: Response) -> bytes:
    return response.body


def _listing_page(response: Response) -> ListingPage:
    return parse_listing(response.body)
