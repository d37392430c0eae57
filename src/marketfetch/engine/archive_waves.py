"""Fetching from an archive: months first, then the days that the months do not have.

What the files lack is left to the API. A file proves that moments are present, never that they are empty.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from io import BytesIO
from typing import TypeVar

import anyio
import attrs
from anyio import CancelScope, CapacityLimiter

from marketfetch.archives.checksums import Checksum, parse_checksum
from marketfetch.archives.file_reader import PIECE_ROWS, FileContent, FileReader
from marketfetch.archives.listing import ListingPage, parse_listing
from marketfetch.archives.periods import Grain
from marketfetch.decoding.validation import validate_page
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
from marketfetch.planning.archive_periods import NeededPeriod, differing_columns, needed_periods
from marketfetch.planning.batches import Capacity, choose_page_size, files_end_sooner
from marketfetch.sources import Archive
from marketfetch.values.archives import ArchiveFile, Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.http import Request, Response
from marketfetch.values.pages import Batch, Columns, Page
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet
from marketfetch.values.times import Clock

__all__ = ["ArchiveWaves"]

_T = TypeVar("_T")
_GRAINS: tuple[Grain, ...] = ("month", "day")
_WORTH_PAGES = 2
"""A file of which fewer pages are missing is not worth its requests."""
_MAX_FILE = 16 * 2**20
"""Bytes of a file, at most: a month of candles of 1s is larger, and its days are read instead."""
_MAX_DECODING = 4
"""Files that are decoded side by side, at most: each needs memory for a piece of 100,000 rows."""


@attrs.frozen
class _FileTask:
    """A file, the period that it covers, and what is missing there."""

    state: SeriesState
    archive: Archive
    need: NeededPeriod
    file: ArchiveFile
    seam: _Seam
    newest: bool
    """Whether it is the newest file of its series, for which the others wait."""


@attrs.define(eq=False)
class _Seam:
    """The verdict about the files of one series in one wave: does one of them agree with the API?

    It is the newest one; if that cannot be read, the next one that can be.
    """

    newest_done: anyio.Event = attrs.field(factory=anyio.Event)
    comparing: anyio.Lock = attrs.field(factory=anyio.Lock)
    compared: bool = False
    _differs: bool = False

    def differ(self) -> None:
        """Note that a file has other values than the API: the files are not used."""
        self._differs = True

    def agrees(self) -> bool:
        """Whether nothing speaks against the files so far."""
        return not self._differs


@attrs.frozen(eq=False)
class ArchiveWaves:
    """Reads files of the exchange's archive where that is sooner than the API.

    With `always`, files are read wherever something is missing, however little.
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
    _requests: set[CancelScope] = attrs.field(factory=set, init=False)
    """The requests to the archive that wait for an egress or an answer."""
    _decoding: CapacityLimiter = attrs.field(
        factory=lambda: CapacityLimiter(min(_MAX_DECODING, os.cpu_count() or 1)), init=False
    )

    async def run(self, states: Sequence[SeriesState]) -> None:
        """Fetch what is missing of the series, as far as files have it, and submit it to the writers.

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

    async def _plan(self, states: Sequence[SeriesState], grain: Grain) -> list[_FileTask]:
        """List the files of one grain that are worth their requests."""
        needs = [(state, needed) for state in states if (needed := self._needs(state, grain))]
        if not needs or not self._are_sooner(needs):
            return []
        tasks: list[_FileTask] = []

        async def list_files(of: tuple[SeriesState, list[NeededPeriod]]) -> None:
            tasks.extend(await self._list(*of))

        await self._for_each(needs, list_files)
        # The newest file of each series comes first: the others wait for it.
        return sorted(tasks, key=lambda task: (not task.newest, task.need.period.start))

    def _needs(self, state: SeriesState, grain: Grain) -> list[NeededPeriod]:
        """Return the periods of a series that are over, and of which more than a few pages are missing."""
        series, archive = state.series, self.executor.exchange.archive(state.series.dataset)
        if archive is None or grain not in archive.grains(series.interval):
            return []
        least = 1 if self.always else _WORTH_PAGES * self._page_size(state)
        now, offset = self.now(), archive.utc_offset
        needed = needed_periods(state.missing, series.interval, grain, utc_offset=offset)
        return [need for need in needed if need.rows >= least and need.period.span.end <= now]

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
        listing, last = archive.listing(state.series, needed[0].period), max(by_period)
        files: list[tuple[NeededPeriod, ArchiveFile]] = []
        try:
            while True:
                request = archive.listing_request(listing)
                page, _ = await self._send(archive, request, _listing_page)
                found = [(archive.period_of(state.series, file.name), file) for file in page.files]
                files += [
                    (by_period.pop(period), file)
                    for period, file in found
                    if period in by_period and file.size <= _MAX_FILE
                ]
                following = listing.following(page)
                if following is None or any(period is not None and period >= last for period, _ in found):
                    break
                listing = following
        except (FetchError, PaginationError) as error:
            self._reject(state, listing.prefix, error)
            return []
        seam, newest = _Seam(), max((need.period for need, _ in files), default=None)
        return [_FileTask(state, archive, need, file, seam, need.period == newest) for need, file in files]

    async def _fetch_file(self, task: _FileTask) -> None:
        """Store the missing rows of a file; after damage it is fetched once more, past caches."""
        try:
            await self._fetch_at_most_twice(task)
        finally:
            if task.newest:
                task.seam.newest_done.set()

    async def _fetch_at_most_twice(self, task: _FileTask) -> None:
        for fresh in (False, True):
            if self._blocked.is_set() or not task.seam.agrees():
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

    async def _send(
        self, archive: Archive, request: Request, read: Callable[[Response], _T]
    ) -> tuple[_T, str]:
        """Send a request to the archive; Banned as soon as another request finds it blocked.

        Otherwise a request that has no egress yet waits until the ban is over.
        """
        with CancelScope() as scope:
            self._requests.add(scope)
            try:
                return await self.executor.send(request, read, _policy(archive))
            finally:
                self._requests.discard(scope)
        raise Banned("the archive has refused another request")

    def _reject(self, state: SeriesState, key: str, error: FetchError | PaginationError) -> None:
        """Report a file or a listing that cannot be used; raise RestrictedLocation."""
        if isinstance(error, RestrictedLocation):
            raise error
        no_egress_left = isinstance(error, FetchError) and error.egress is None
        if no_egress_left or isinstance(error, Banned | RateLimitExceeded):
            self._blocked.set()
            for scope in self._requests:
                scope.cancel()
        self.state.files_rejected += 1
        self.executor.emit(FileRejected(state.series, key, f"{type(error).__name__}: {error}"))

    async def _store_file(self, task: _FileTask, *, fresh: bool) -> None:
        if task.state.terminal_error is not None:
            return
        archive, key = task.archive, task.file.key
        checksum = await self._fetch_checksum(task, fresh=fresh)
        request = archive.file_request(key, fresh=fresh)
        body, egress = await self._send(archive, request, _body)
        content = FileContent(
            task.state.series,
            task.need.period,
            archive.layout,
            member=f"{task.file.name.removesuffix('.zip')}.csv",
            published=task.file.modified,
        )
        reader = FileReader(BytesIO(body), content, checksum)
        if not task.newest:  # before a thread is taken, which the newest file may need
            await task.seam.newest_done.wait()
        if not task.seam.agrees():
            return
        try:
            rows, denied = await run_in_thread(partial(self._read_file, task, reader), limiter=self._decoding)
        except DecodeError as error:
            error.egress = egress
            raise
        if not task.seam.agrees():
            return
        # A row that was rejected denies nothing, and without a checksum the file may be cut.
        if reader.summary.verified and not reader.summary.rejected:
            task.state.denied_by_files |= denied
        self.state.rows_by_egress[egress] += rows
        self.state.record_file(reader.summary, rows)
        task.state.rejected.update(reader.summary.rejected)
        verified = reader.summary.verified
        self.executor.emit(FileFetched(task.state.series, egress, key, rows, len(body), verified=verified))

    async def _fetch_checksum(self, task: _FileTask, *, fresh: bool) -> Checksum | None:
        """Return the published checksum of a file; None for one of the few files that have none."""
        request = task.archive.checksum_request(task.file.key, fresh=fresh)
        try:
            body, egress = await self._send(task.archive, request, _body)
        except BadRequest:
            return None
        try:
            return parse_checksum(body, task.file.name)
        except DecodeError as error:
            error.egress = egress
            raise

    def _read_file(self, task: _FileTask, reader: FileReader) -> tuple[int, SpanSet]:
        """Submit the missing rows of a file; return their number, and what the file lacks; on a thread."""
        pieces = list(reader)  # no row is certain before the last one has been read
        provenance = Provenance(
            task.file.key,
            task.need.period.span,
            reader.summary.size,
            task.file.modified,
            reader.summary.digest,
            verified=reader.summary.verified,
        )
        series, missing = task.state.series, task.need.missing
        needed = [columns for piece in pieces if len(columns := piece.within(missing))]
        if needed and not self.always:
            call_on_loop(self._compare_with_api, task, needed[-1])
            if not task.seam.agrees():
                return 0, SpanSet()
        for columns in needed:
            coverage = Coverage(series.interval.cover(columns.times))
            call_on_loop(self._submit, task.state, Batch(series, columns, coverage, (), provenance))
        there = SpanSet.of(*(span for piece in pieces for span in series.interval.cover(piece.times)))
        return sum(map(len, needed)), missing - there

    async def _compare_with_api(self, task: _FileTask, columns: Columns) -> None:
        """Compare the last rows of the first file with a page of the API; note whether they agree.

        A file with a right checksum may have wrong values. Where the newest month of a series differs, its
        days are read instead, which are made apart; where the newest day differs, the API is asked for
        everything. An API that does not answer says nothing against a file.
        """
        async with task.seam.comparing:
            if task.seam.compared:
                return
            task.seam.compared = True
            fields, span = await self._difference(task.state, columns)
        if fields:
            task.seam.differ()
            self.state.files_rejected += 1
            reason = f"{', '.join(fields)} differ from what the API says about {span}"
            self.executor.emit(FileRejected(task.state.series, task.file.key, reason))

    async def _difference(self, state: SeriesState, columns: Columns) -> tuple[list[str], Span]:
        """Return the columns in which the last rows differ from a page of the API, and the span of both."""
        series, exchange = state.series, self.executor.exchange
        endpoint = exchange.endpoint(series.dataset)
        size = min(self._page_size(state), len(columns))
        last = columns.take(slice(len(columns) - size, None))
        span = Span(int(last.times[0]), series.interval.shift(int(last.times[-1]), 1))
        part = Slice(series, span, size)

        def read(response: Response) -> Page:
            return validate_page(exchange.decoded(response.body, part), part)

        try:
            page, _ = await self.executor.send(endpoint.request(part), read)
        except RestrictedLocation:
            raise
        except FetchError:
            return [], span
        return differing_columns(last, page.columns, series.dataset), span

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


def _policy(archive: Archive) -> ResponsePolicy:
    return ResponsePolicy(archive.raise_for_error, waits_for_bans=False)


def _body(response: Response) -> bytes:
    return response.body


def _listing_page(response: Response) -> ListingPage:
    return parse_listing(response.body)
