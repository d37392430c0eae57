"""Fetches single files of an archive, decodes them, and submits the rows that the store lacks."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Protocol, TypeVar

import anyio
import attrs
from anyio import CancelScope, CapacityLimiter, to_thread
from anyio.lowlevel import checkpoint

from marketfetch.archives.checksums import Checksum, parse_checksum
from marketfetch.archives.downloads import PART, Download, FilePart
from marketfetch.archives.file_reader import PIECE_ROWS, FileContent, FileReader
from marketfetch.archives.listing import ListingPage, ListingRequest, parse_listing
from marketfetch.decoding.validation import validate_page
from marketfetch.engine.blocking import call_on_loop, run_in_thread
from marketfetch.engine.pages.batch_builder import RowBudget
from marketfetch.engine.requester import RequestExecutor, ResponsePolicy
from marketfetch.engine.state import RunState, SeriesState
from marketfetch.engine.writers import WriterPool
from marketfetch.errors import (
    BadRequest,
    Banned,
    DecodeError,
    FetchError,
    NoSuchFile,
    PaginationError,
    ProxyError,
    RateLimitExceeded,
    RestrictedLocation,
)
from marketfetch.events import FileFetched, FileRejected
from marketfetch.planning.archive_absence import FilesRead
from marketfetch.planning.archive_periods import NeededPeriod, difference
from marketfetch.sources import Archive
from marketfetch.values.archives import ArchiveFile
from marketfetch.values.coverage import Coverage
from marketfetch.values.http import Request, Response
from marketfetch.values.pages import Batch, Columns, Page
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

__all__ = [
    "ApiComparison",
    "ArchiveFiles",
    "FileTask",
    "SendToArchive",
    "download",
    "fetch_checksum",
    "list_pages",
    "send_to_archive",
]

_T = TypeVar("_T")
_MAX_DECODING = 4
"""Files that are decoded side by side, at most: each needs memory for a piece of 100,000 rows."""
_MAX_LARGE = 2
"""Large files that are fetched or decoded side by side, at most: each is in a temporary file meanwhile."""
_HELD_ROWS = 2 * PIECE_ROWS
"""Missing rows of a file that are held until its end is known, at most; a file with more is read twice."""


class SendToArchive(Protocol):
    """Sends requests to an archive, such as `send_to_archive` does."""

    async def __call__(
        self, archive: Archive, request: Request, read: Callable[[Response], _T], /
    ) -> tuple[_T, str]:
        """Return what `read` makes of a good response, and the egress; FetchError without one."""
        ...


@attrs.define(eq=False)
class ApiComparison:
    """Compares the first readable file of a series in one wave, mostly the newest, with the API."""

    first_done: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    comparing: anyio.Lock = attrs.field(factory=anyio.Lock, init=False)
    compared: bool = attrs.field(default=False, init=False)
    _begun: bool = attrs.field(default=False, init=False)
    _differs: bool = attrs.field(default=False, init=False)

    def begin(self) -> bool:
        """Whether a file is the first one of its series, for which the others wait."""
        is_first, self._begun = not self._begun, True
        return is_first

    def record_difference(self) -> None:
        """Note that a file has other values than the API: the files are not used."""
        self._differs = True

    def agrees(self) -> bool:
        """Whether nothing speaks against the files so far."""
        return not self._differs


@attrs.frozen
class FileTask:
    """A file, the period that it covers, and what is missing there."""

    state: SeriesState
    archive: Archive
    need: NeededPeriod
    key: str
    comparison: ApiComparison
    newest: bool
    """Whether it is the newest file of its series."""
    listed: ArchiveFile | None = None
    """Its entry in the listing; None in an archive that has no listing."""
    compared_rows: int = 0
    """How many of the last rows may be compared with the API; 0 if the API does not have them."""
    files_read: FilesRead | None = None
    """What the files of a delisted series had; None for a listed one."""


@attrs.frozen(eq=False)
class ArchiveFiles:
    """Fetches files of an archive and submits the rows that are missing to the writers."""

    executor: RequestExecutor
    writers: WriterPool
    state: RunState
    row_budget: RowBudget
    _requests: set[CancelScope] = attrs.field(factory=set, init=False)
    """The requests to the archive that wait for an egress or an answer."""
    _decoding: CapacityLimiter = attrs.field(
        factory=lambda: CapacityLimiter(min(_MAX_DECODING, os.cpu_count() or 1)), init=False
    )
    _large: CapacityLimiter = attrs.field(factory=lambda: CapacityLimiter(_MAX_LARGE), init=False)

    @property
    def blocked(self) -> bool:
        """Whether the archive has refused an address, or none reaches it: then nothing more is requested."""
        return self.state.archive_blocked

    @property
    def max_rows(self) -> int:
        """The rows that may be in memory: those of files being decoded, and those that the writers have."""
        for_writer = max(PIECE_ROWS, 2 * self.writers.transaction_rows)
        return round(self._decoding.total_tokens * PIECE_ROWS) + for_writer * len(self.writers)

    async def fetch(self, task: FileTask) -> bool:
        """Store the missing rows of a file; after damage it is fetched once more, past caches.

        Returns whether there is such a file, as far as is known. Raises RestrictedLocation. Any other error
        of the file is reported; that a file which no listing has promised is not there, is none.
        """
        if not task.comparison.begin():  # the others wait, before anything of them is in memory
            await task.comparison.first_done.wait()
        try:
            return await self._fetch_at_most_twice(task)
        finally:
            task.comparison.first_done.set()

    def reject(self, state: SeriesState, key: str, error: FetchError | PaginationError) -> None:
        """Report a file or a listing that cannot be used; raise RestrictedLocation."""
        if isinstance(error, RestrictedLocation):
            raise error
        no_egress_left = isinstance(error, ProxyError) and error.egress is None
        if no_egress_left or isinstance(error, Banned | RateLimitExceeded):
            self.state.archive_blocked = True
            for scope in self._requests:
                scope.cancel()
        state.files_rejected += 1
        self.state.files_rejected += 1
        self.executor.emit(FileRejected(state.series, key, f"{type(error).__name__}: {error}"))

    def list_pages(self, archive: Archive, listing: ListingRequest) -> AsyncGenerator[ListingPage]:
        """Yield the pages of a listing; see the function of this name."""
        return list_pages(self._send, archive, listing)

    async def _send(
        self,
        archive: Archive,
        request: Request,
        read: Callable[[Response], _T],
        series: Series | None = None,
    ) -> tuple[_T, str]:
        """Send a request to the archive; Banned as soon as another request finds it blocked.

        Otherwise a request that has no egress yet waits until the ban is over.
        """
        with CancelScope() as scope:
            self._requests.add(scope)
            try:
                return await send_to_archive(self.executor, archive, request, read, series)
            finally:
                self._requests.discard(scope)
        raise Banned("the archive has refused another request")

    async def _fetch_at_most_twice(self, task: FileTask) -> bool:
        for fresh in (False, True):
            if self.blocked or not task.comparison.agrees() or task.state.terminal_error is not None:
                break
            try:
                await self._store(task, fresh=fresh)
            except DecodeError as error:
                if fresh:
                    self.reject(task.state, task.key, error)
            except FetchError as error:
                if isinstance(error, NoSuchFile) and task.listed is None:
                    return False
                self.reject(task.state, task.key, error)
                break
            else:
                break
        return True

    async def _store(self, task: FileTask, *, fresh: bool) -> None:
        send = partial(self._send, series=task.state.series)
        checksum = await fetch_checksum(send, task.archive, task.key, fresh=fresh)
        promised = task.listed or task.key
        async with download(send, task.archive, promised, fresh=fresh, large=self._large) as got:
            arrived, file, egress = got
            content = FileContent.of(file, task.state.series, task.need.period, task.archive.layout)
            reader = FileReader(arrived.file, content, checksum, digest=arrived.digest)
            try:
                rows = await run_in_thread(partial(self._read, task, file, reader), limiter=self._decoding)
            except DecodeError as error:
                error.egress = egress
                raise
        if rows is None:
            return
        self.state.rows_by_egress[egress] += rows
        self.state.record_file(reader.summary, rows)
        task.state.rejected.update(reader.summary.rejected)
        verified = reader.summary.verified
        event = FileFetched(task.state.series, egress, task.key, rows, arrived.size, verified=verified)
        self.executor.emit(event)

    def _read(self, task: FileTask, file: ArchiveFile, reader: FileReader) -> int | None:
        """Submit the missing rows of a file, on a thread; None if the file differs from the API.

        No row is certain before the last one has been read. The rows are held meanwhile, if they are few;
        otherwise the file, which is sound then, is read a second time.
        """
        interval, missing = task.state.series.interval, task.need.missing
        held, rows, last = list[Columns](), 0, None
        there = list[Span]()
        for piece in reader:
            call_on_loop(checkpoint)  # a long file ends here if the run is cancelled
            there += interval.cover(piece.times)
            if columns := piece.within(missing):
                held, rows, last = [*held, columns], rows + len(columns), columns
            if rows > _HELD_ROWS:
                held = []
        if last is not None and task.compared_rows:
            call_on_loop(self._compare_with_api, task, last)
            if not task.comparison.agrees():
                return None
        provenance = reader.summary.provenance(file, task.need.period.span)
        for columns in held if rows <= _HELD_ROWS else (piece.within(missing) for piece in reader):
            if columns:
                coverage = Coverage(interval.cover(columns.times))
                batch = Batch(task.state.series, columns, coverage, (), provenance)
                call_on_loop(self._submit, task.state, batch)
        call_on_loop(self._note_absence, task, reader, SpanSet.of(*there))
        return rows

    async def _note_absence(self, task: FileTask, reader: FileReader, there: SpanSet) -> None:
        """Note what a file denies. An exact copy of a row hides nothing; any other rejected row might."""
        # Without a checksum the file may be cut.
        complete = reader.summary.verified and not reader.summary.rejected.keys() - {"duplicate"}
        if complete and (denied := task.need.missing - there):
            task.state.denied_by_files[task.key] = denied
        if task.files_read is not None:
            task.files_read.record(task.need.period, there.hull, complete=complete)

    async def _compare_with_api(self, task: FileTask, columns: Columns) -> None:
        """Compare the last rows of the first file with a page of the API; note whether they agree.

        A file with a right checksum may have wrong values. Where the newest month of a series differs, its
        days are read instead, which are made apart; where the newest day differs, the API is asked for
        everything. An API that does not answer says nothing against a file.
        """
        async with task.comparison.comparing:
            if task.comparison.compared:
                return
            task.comparison.compared = True
            last = columns.take(slice(max(0, len(columns) - task.compared_rows), None))
            fields, span = await self._difference(task.state.series, last)
        if fields:
            task.comparison.record_difference()
            self.state.files_rejected += 1
            reason = f"{', '.join(fields)} differ from what the API says about {span}"
            self.executor.emit(FileRejected(task.state.series, task.key, reason))

    async def _difference(self, series: Series, rows: Columns) -> tuple[Collection[str], Span]:
        """Return the columns in which rows differ from a page of the API, and the span of both."""
        exchange = self.executor.exchange
        endpoint = exchange.endpoint(series.dataset)
        span = Span(int(rows.times[0]), series.interval.shift(int(rows.times[-1]), 1))
        part = Slice(series, span, min(endpoint.page_sizes[-1], series.interval.count(span)))

        def read(response: Response) -> Page:
            return validate_page(exchange.decoded(response.body, part), part)

        try:
            page, _ = await self.executor.send(endpoint.request(part), read, series=series)
        except RestrictedLocation:
            raise
        except FetchError:
            return (), span
        return difference(rows, page.columns, series.dataset).fields, span

    async def _submit(self, state: SeriesState, batch: Batch) -> None:
        await self.row_budget.acquire(batch, batch.rows)
        state.record_coverage(batch.coverage)
        await self.writers.submit(batch)


@asynccontextmanager
async def download(
    send: SendToArchive,
    archive: Archive,
    file: ArchiveFile | str,
    *,
    fresh: bool,
    large: CapacityLimiter | None = None,
) -> AsyncGenerator[tuple[Download, ArchiveFile, str]]:
    """Fetch a file, and give it with its entry and the egress of its last part; leaving the block deletes it.

    `file` is the entry in the listing, or the key: then the answer to the request for the first part tells
    the size, and its headers are the entry. `fresh` asks caches on the way to get it anew. A file of several
    parts takes a place of `large`. Raises FetchError.
    """
    key, size = (file, None) if isinstance(file, str) else (file.key, file.size)
    request, arrived = archive.file_request(key, fresh=fresh), Download()

    def read(response: Response) -> tuple[FilePart, ArchiveFile]:
        part = FilePart.of(response, start=arrived.size)
        return part, archive.entry(key, response, part.size) if isinstance(file, str) else file

    async with AsyncExitStack() as places:
        try:
            while True:
                if large is not None and size is not None and size > PART:
                    await places.enter_async_context(large)
                    large = None
                (part, entry), egress = await send(archive, arrived.next_request(request, size), read)
                await to_thread.run_sync(arrived.append, part)
                if arrived.is_complete:
                    break
                size = part.size
            yield arrived, entry, egress
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(arrived.close)


async def fetch_checksum(send: SendToArchive, archive: Archive, key: str, *, fresh: bool) -> Checksum | None:
    """Return the published checksum of a file; None if there is none, or the archive has none at all."""
    request = archive.checksum_request(key, fresh=fresh)
    if request is None:
        return None
    try:
        body, egress = await send(archive, request, lambda response: response.body)
    except BadRequest:
        return None
    try:
        return parse_checksum(body, key.rpartition("/")[2])
    except DecodeError as error:
        error.egress = egress
        raise


async def list_pages(
    send: SendToArchive, archive: Archive, listing: ListingRequest
) -> AsyncGenerator[ListingPage]:
    """Yield the pages of a listing; FetchError or PaginationError if it cannot be read to its end."""
    following: ListingRequest | None = listing
    while following is not None:
        request = archive.listing_request(following)
        (page, following), _ = await send(archive, request, partial(_listing_page, following))
        yield page


async def send_to_archive(
    executor: RequestExecutor,
    archive: Archive,
    request: Request,
    read: Callable[[Response], _T],
    series: Series | None = None,
) -> tuple[_T, str]:
    """Send a request to an archive; a ban ends it, since the API has the rows, too."""
    policy = ResponsePolicy(archive.raise_for_error, waits_for_bans=False)
    return await executor.send(request, read, policy, series)


def _listing_page(requested: ListingRequest, response: Response) -> tuple[ListingPage, ListingRequest | None]:
    """Read a page and check that it is the requested one: otherwise it is requested again."""
    page = parse_listing(response.body)
    return page, requested.following(page)
