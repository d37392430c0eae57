"""Compare the files of an archive with the rows that came from them: files are issued anew without notice."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from threading import BoundedSemaphore

import attrs
import numpy as np
from anyio import CapacityLimiter
from numpy.typing import NDArray

from marketfetch.archives.file_reader import FileContent, FileReader
from marketfetch.archives.periods import CalendarPeriod
from marketfetch.common.event_loop import in_parallel
from marketfetch.common.exception_groups import raising_one_error
from marketfetch.engine.archives.files import (
    SendToArchive,
    download,
    fetch_checksum,
    list_pages,
    send_to_archive,
)
from marketfetch.engine.blocking import StoreRetrier, run_in_thread
from marketfetch.engine.requester import RequestExecutor
from marketfetch.errors import (
    ConfigurationError,
    FetchError,
    NoSuchFile,
    PaginationError,
    RestrictedLocation,
    RowsRefused,
)
from marketfetch.planning.archive_periods import difference
from marketfetch.protocols import Store, SupportsProvenance
from marketfetch.reports import ReissuedFile, SourceVerification
from marketfetch.sources import Archive
from marketfetch.values.archives import ArchiveFile, Provenance
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["SourceVerifier"]

_MAX_DECODING = 4
"""Files that are compared side by side, at most."""


@attrs.frozen
class _Issue:
    """A file that was read before, and how it is listed now; None in an archive without a listing."""

    series: Series
    archive: Archive
    period: CalendarPeriod
    entry: Provenance
    listed: ArchiveFile | None
    shorter: SpanSet
    """The spans of shorter files that were read: their rows count, and not those of the longer file."""


@attrs.define(eq=False)
class SourceVerifier:
    """Finds files that were issued anew, and compares them with the stored rows.

    One listing for each series and grain shows which files changed; only those are fetched, or all files if
    the archive has no listing. With `repair`, rows that differ are replaced by those of the file, and rows
    that the store lacks are added, in one transaction with the new provenance.
    """

    executor: RequestExecutor
    store: Store
    retrier: StoreRetrier
    repair: bool = False
    _decoding: CapacityLimiter = attrs.field(
        factory=lambda: CapacityLimiter(min(_MAX_DECODING, os.cpu_count() or 1)), init=False
    )
    _writers: BoundedSemaphore = attrs.field(
        default=attrs.Factory(lambda self: BoundedSemaphore(max(1, self.store.max_writers)), takes_self=True),
        init=False,
    )

    async def run(self, series: Sequence[Series]) -> SourceVerification:
        """Verify series; raises RestrictedLocation and SinkError."""
        found: list[ReissuedFile] = []
        if not isinstance(self.store, SupportsProvenance):
            raise ConfigurationError(
                f"store: {type(self.store).__name__} does not keep from which files its rows came"
            )
        provenance = await self.retrier.call_in_thread(partial(self._provenance, series))

        async def verify(one: Series) -> None:
            entries = provenance[one]
            try:
                found.extend(await self._verify(one, entries))
            except RestrictedLocation:
                raise
            except (FetchError, PaginationError) as error:
                text = f"its files cannot be listed: {type(error).__name__}: {error}"
                found.append(ReissuedFile(one, entries[0].key, error=text))

        with raising_one_error():
            await in_parallel(provenance, verify, self.executor.settings.concurrency)
        files = sum(map(len, provenance.values()))
        return SourceVerification(len(provenance), files, tuple(sorted(found, key=lambda file: file.key)))

    def _provenance(self, series: Sequence[Series]) -> Mapping[Series, Sequence[Provenance]]:
        """Read the provenance of those of the series whose rows came from files; on a thread."""
        store = self.store
        assert isinstance(store, SupportsProvenance)
        held = {one: store.provenance(one) for one in series if self._archive(one) is not None}
        return {one: entries for one, entries in held.items() if entries}

    def _archive(self, series: Series) -> Archive | None:
        exchange = self.executor.exchange
        return exchange.archive(series.dataset) if series.exchange == exchange.name else None

    async def _verify(self, series: Series, entries: Sequence[Provenance]) -> list[ReissuedFile]:
        archive = self._archive(series)
        if archive is None:
            return []
        periods = {
            entry.key: period
            for entry in entries
            if (period := archive.period_of(series, entry.key.rpartition("/")[2])) is not None
        }
        listed = await self._listed(archive, series, sorted(periods.values())) if archive.is_listed else {}
        reissued = []
        for entry in entries:
            file = listed.get(entry.key)
            unchanged = file is None or (file.size, file.modified) == (entry.size, entry.modified)
            if archive.is_listed and unchanged:
                continue  # unchanged, or no longer published: then there is nothing to compare
            try:
                shorter = (one.span for one in entries if one.span.length < entry.span.length)
                issue = _Issue(series, archive, periods[entry.key], entry, file, SpanSet(tuple(shorter)))
                found = await self._compare(issue)
            except RestrictedLocation:
                raise
            except FetchError as error:
                if isinstance(error, NoSuchFile) and not archive.is_listed:
                    continue  # no longer published
                found = ReissuedFile(series, entry.key, error=f"{type(error).__name__}: {error}")
            if found is not None:
                reissued.append(found)
        return reissued

    async def _listed(
        self, archive: Archive, series: Series, periods: Sequence[CalendarPeriod]
    ) -> dict[str, ArchiveFile]:
        """List the files of a series from the first of the periods on, once for each grain."""
        listed: dict[str, ArchiveFile] = {}
        for first in {period.grain: period for period in reversed(periods)}.values():
            async for page in list_pages(self._send, archive, archive.listing(series, first)):
                listed |= {file.key: file for file in page.files}
        return listed

    async def _compare(self, issue: _Issue) -> ReissuedFile | None:
        """Compare a file with the stored rows; None if its bytes are those that were read."""
        archive, key = issue.archive, issue.entry.key
        checksum = await fetch_checksum(self._send, archive, key, fresh=True)
        if checksum is not None and checksum.digest == issue.entry.digest:
            return None
        async with download(self._send, archive, issue.listed or key, fresh=True) as (arrived, file, _):
            content = FileContent.of(file, issue.series, issue.period, archive.layout)
            reader = FileReader(arrived.file, content, checksum, digest=arrived.digest)
            return await run_in_thread(
                partial(self._compare_rows, issue, file, reader), limiter=self._decoding
            )

    def _compare_rows(self, issue: _Issue, file: ArchiveFile, reader: FileReader) -> ReissuedFile | None:
        """Compare a file piece by piece; all of it is read once before, because damage shows at the end."""
        series, entry = issue.series, issue.entry
        for _ in reader:
            pass
        summary = reader.summary
        if summary.digest == entry.digest:
            return None
        # Rows at moments that are not covered were never wanted: the store need not have them.
        covered = self.retrier.call(partial(self.store.coverage, [series]))[series].covered
        compared = SpanSet.of(entry.span) & covered - issue.shorter
        changes, wrong = [Columns.empty(series.dataset)], [SpanSet()]
        fields, new, blank = Counter[str](), 0, 0
        for rows in (piece.within(compared) for piece in reader):
            if not rows:
                continue
            span = Span(int(rows.times[0]), int(rows.times[-1]) + 1)
            stored = self.retrier.call(partial(self.store.read, series, span)).within(compared)
            differs = difference(stored, rows, series.dataset)
            changed = rows.take(np.isin(rows.times, np.concatenate([differs.times, differs.new])))
            changes.append(changed)
            wrong.append(series.interval.cover(differs.times))
            fields.update(differs.fields)
            new += len(differs.new)
            # Writing cannot replace a value by NULL. Such a file gets no new provenance, so that the next
            # verification finds it again.
            blank += int(np.count_nonzero(np.isnan(changed.values) & ~np.isnan(_at(stored, changed.times))))
        changed = Columns.join(changes)
        spans = SpanSet.of(*(span for some in wrong for span in some))
        found = ReissuedFile(series, file.key, spans, dict(fields), new)
        if not self.repair:
            return found
        provenance = summary.provenance(file, entry.span)
        coverage = Coverage(series.interval.cover(changed.times))
        batch = Batch(series, changed, coverage, (), None if blank else provenance)
        try:
            self.retrier.call(partial(self._write, batch))
        except RowsRefused as error:
            return attrs.evolve(found, error=str(error))
        if blank:
            remedy = "forget these rows to have them fetched again"
            return attrs.evolve(found, error=f"{blank} values are blank in the new issue; {remedy}")
        return attrs.evolve(found, repaired=True)

    def _write(self, batch: Batch) -> None:
        with self._writers, self.store.writer() as write:
            write(batch)

    @property
    def _send(self) -> SendToArchive:
        return partial(send_to_archive, self.executor)


def _at(columns: Columns, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the values at some times, NULL where there is no row."""
    values = np.full((len(columns.values), len(times)), np.nan)
    _, here, there = np.intersect1d(columns.times, times, assume_unique=True, return_indices=True)
    values[:, there] = columns.values[:, here]
    return values
