"""Fetching from an archive: months first, then the days that the months do not have.

What the files lack is left to the API, if it still serves such old rows. A file proves that moments are
present, never that they are empty. Of a delisted symbol there are files alone: see
`planning/archive_absence.py`. Files of an archive without a listing are requested by name, the newest first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

import attrs
from anyio.lowlevel import checkpoint

from marketfetch.archives.downloads import MAX_FILE, PART
from marketfetch.archives.periods import CalendarPeriod, Grain
from marketfetch.common.event_loop import in_parallel
from marketfetch.engine.archives.files import ApiComparison, ArchiveFiles, FileTask
from marketfetch.engine.missing import beyond_retention, give_up_beyond_retention, want_beyond_retention
from marketfetch.engine.pages.shared_work import CoverageRefresher
from marketfetch.engine.state import SeriesState
from marketfetch.errors import FetchError, PaginationError
from marketfetch.events import FileRejected
from marketfetch.exchange import Exchange
from marketfetch.planning.archive_absence import FilesRead
from marketfetch.planning.archive_periods import NeededPeriod, needed_periods
from marketfetch.planning.batches import Capacity, choose_page_size, files_end_sooner
from marketfetch.planning.shared_order import FileOrder
from marketfetch.sources import Archive, Endpoint
from marketfetch.values.archives import ArchiveFile, Provenance
from marketfetch.values.coverage import Coverage, MissingReason, Reason
from marketfetch.values.pages import Batch
from marketfetch.values.series import Series
from marketfetch.values.spans import MAX_TIMESTAMP, Span, SpanSet, format_utc
from marketfetch.values.times import Clock

__all__ = ["GRAINS", "ArchiveWaves", "want_from_files"]

GRAINS: tuple[Grain, ...] = ("month", "day")
_MIN_PAGES = 2
"""A file is read only if at least this many pages of its rows are missing."""
_REQUESTED_AT_ONCE = 10
"""Files of a series that are requested by name at once. If none of them is there, no older one is requested.

It is more than any hole that is known: archives stood still for eight days, and left out three months.
"""
_NOT_READ = Reason(
    MissingReason.FILE_UNUSABLE,
    "a file or a listing of the archive could not be used; run again, it may be back",
)
_IN_NO_FILE = Reason(
    MissingReason.DELISTED,
    "neither a monthly nor a daily file has it, and the exchange no longer lists the symbol",
)


@attrs.frozen
class _SeriesNeed:
    """What one wave may read of a series: periods, and the size of the pages that they would replace."""

    state: SeriesState
    archive: Archive
    endpoint: Endpoint
    page_size: int
    periods: Sequence[NeededPeriod] = ()


@attrs.frozen(eq=False)
class ArchiveWaves:
    """Chooses files of the exchange's archive where they are sooner than the API, and has them fetched.

    With `always`, files are read wherever something is missing, however little. So are those of delisted
    symbols: there is nothing else to ask.
    """

    files: ArchiveFiles
    capacity: Capacity
    now: Clock
    """The moment up to which rows count as closed (the earlier of both clocks), UTC milliseconds."""
    read_provenance: Callable[[Series], Awaitable[Sequence[Provenance]]]
    """Returns from which files the stored rows of a series came."""
    always: bool = False
    refresher: CoverageRefresher | None = None
    """None if no other process can see the store."""
    _files_read: dict[Series, FilesRead] = attrs.field(factory=dict, init=False)
    """What the files of each delisted series had."""

    async def run(self, states: Sequence[SeriesState]) -> None:
        """Fetch what is missing of the series, as far as files have it, and submit it to the writers.

        What neither the API nor a file has is given up. What remains of a delisted series is empty where its
        files prove it, and given up elsewhere. Raises RestrictedLocation. Any other error of a listing or a
        file is reported, and the API is asked for the rows.
        """
        self.files.row_budget.resize(self.files.max_rows)
        with_files = want_from_files(states, self._exchange)
        for grain in GRAINS:
            if self.refresher is not None:
                await self.refresher.renew()
            tasks = await self.choose(with_files, grain)
            while tasks:
                newest, older = _newest_of_each(tasks)
                there = await self._fetch(newest)
                tasks = [task for task in older if task.state.series in there]
        for state in states:
            if state.delisted and state.missing:
                await self._conclude(state)
        for state in with_files:
            give_up_beyond_retention(state, self._endpoint(state), self.now())

    async def choose(self, states: Sequence[SeriesState], grain: Grain) -> list[FileTask]:
        """Return the files of one grain that are worth their requests: those in the listings, or by name."""
        needs: list[_SeriesNeed] = []
        for state in states:
            needs += [await self._without_known_gaps(need) for need in self._needs(state, grain)]
            await checkpoint()  # a series with years of gaps takes a while
        if not self._are_sooner(needs):
            needs = [self._only(need, self._is_in_files_alone) for need in needs]
        tasks: list[FileTask] = []

        async def list_files(need: _SeriesNeed) -> None:
            tasks.extend(await self._list(need))

        await in_parallel([need for need in needs if need.periods], list_files, self._concurrency)
        return tasks

    async def _fetch(self, tasks: Sequence[FileTask]) -> set[Series]:
        """Fetch files, and return the series of which some are there."""
        run_state, there = self.files.state, set[Series]()
        # The newest file of each series comes first, or another that can be compared with the API as well.
        ordered = sorted(tasks, key=lambda task: (not task.newest, task.need.period.start))
        any_first = all(task.listed for task in tasks) and len({task.compared_rows for task in tasks}) < 2
        order = FileOrder(
            ordered, self.refresher.process_rank().before if self.refresher and any_first else 0
        )

        async def fetch_one(task: FileTask) -> None:
            at_the_end = order.at_the_end
            is_stored = await self._is_stored(task)
            is_read = not is_stored and await self.files.fetch(task)
            if is_stored:
                order.meet(at_the_end=at_the_end)
            if is_stored or is_read:
                there.add(task.state.series)
            run_state.rows_planned -= 0 if is_read else task.need.rows

        run_state.rows_planned += sum(task.need.rows for task in tasks)
        await in_parallel(order, fetch_one, self._concurrency)
        return there

    async def _is_stored(self, task: FileTask) -> bool:
        """Whether another process has stored meanwhile what a file has; of delisted symbols all are read."""
        if self.refresher is None or not self.refresher.is_shared or task.files_read is not None:
            return False
        await self.refresher.refresh()
        return not task.need.missing & task.state.missing_in(task.need.period.span)

    def _needs(self, state: SeriesState, grain: Grain) -> list[_SeriesNeed]:
        """Return the periods of a series that are over, and of which more than a few pages are missing."""
        series, archive = state.series, self._exchange.archive(state.series.dataset)
        if archive is None or grain not in archive.grains(series.interval):
            return []
        now, interval, missing = self.now(), series.interval, state.missing
        endpoint = self._endpoint(state)
        rows = interval.count_rows(missing)
        size = choose_page_size(endpoint.page_sizes, endpoint.cost, rows, self.capacity)
        # The API alone knows what the listed instrument had earlier.
        begins = max(_begins(state, archive), archive.since)
        missing &= SpanSet.of(Span(begins, MAX_TIMESTAMP))
        periods = [
            period
            for period in needed_periods(missing, interval, grain, utc_offset=archive.utc_offset)
            if period.period.span.end + archive.publish_delay <= now or state.delisted
        ]
        return [self._only(_SeriesNeed(state, archive, endpoint, size, periods), self._is_worth)]

    @staticmethod
    def _only(need: _SeriesNeed, choose: Callable[[_SeriesNeed, NeededPeriod], bool]) -> _SeriesNeed:
        return attrs.evolve(need, periods=[period for period in need.periods if choose(need, period)])

    def _is_worth(self, need: _SeriesNeed, period: NeededPeriod) -> bool:
        """Whether a file is read: for pages of the API, or for rows that the API does not have."""
        if self.always or need.state.delisted:
            return True
        return self._is_in_files_alone(need, period) or period.rows >= _MIN_PAGES * need.page_size

    async def _without_known_gaps(self, need: _SeriesNeed) -> _SeriesNeed:
        """Leave out files that were read before, and of which few rows are missing: they lack these rows.

        Else such files would be read in every run. A gap that an earlier run left in rows of the API is
        looked for: no file has been read for it.
        """
        if self.always or need.state.delisted:
            return need
        wanted, interval = need.state.wanted, need.state.series.interval
        short = {
            period.period
            for period in need.periods
            if self._is_in_files_alone(need, period) and period.is_short_gap(wanted, interval)
        }
        if not short:
            return need
        read_spans = {entry.span for entry in await self.read_provenance(need.state.series)}
        known = {period for period in short if period.span in read_spans}
        return self._only(need, lambda _, period: period.period not in known)

    def _is_worth_its_size(self, need: _SeriesNeed, period: NeededPeriod, file: ArchiveFile) -> bool:
        """Whether a file is read in spite of its size: days are better if little of a large month is missing.

        Example: a month of candles of 1s has 110 MB, a day 3.7 MB. Days are read if ten of them are missing.
        """
        interval = need.state.series.interval
        has_days = period.period.grain == "month" and "day" in need.archive.grains(interval)
        if file.size <= PART or self.always or need.state.delisted or not has_days:
            return file.size <= MAX_FILE
        return file.size <= MAX_FILE and 2 * period.rows >= interval.count(period.period.span)

    def _is_in_files_alone(self, need: _SeriesNeed, period: NeededPeriod) -> bool:
        """Whether the API lacks some of the missing moments: they are too old, or the symbol is delisted."""
        too_old = beyond_retention(period.missing, need.state.series, need.endpoint, self.now())
        return need.state.delisted or bool(too_old)

    @property
    def _exchange(self) -> Exchange:
        return self.files.executor.exchange

    @property
    def _concurrency(self) -> int:
        return self.files.executor.settings.concurrency

    def _endpoint(self, state: SeriesState) -> Endpoint:
        return self._exchange.endpoint(state.series.dataset)

    def _are_sooner(self, needs: Sequence[_SeriesNeed]) -> bool:
        """Whether the files of all series are read sooner than the pages that they replace."""
        served = [
            (need, period)
            for need in needs
            for period in need.periods
            if not self._is_in_files_alone(need, period)
        ]
        if self.always or not served:
            return True
        rows = sum(period.rows for _, period in served)
        pages = sum(-(-period.rows // need.page_size) for need, period in served)
        page = served[0][0].endpoint.cost(served[0][0].page_size)
        return files_end_sooner(len(served), rows, pages, page, self.capacity)

    async def _list(self, need: _SeriesNeed) -> list[FileTask]:
        """Return the files of a series for the needed periods; none if a listing fails."""
        if self.files.blocked:
            return []
        if not need.archive.is_listed:
            return self._named(need)
        state, archive = need.state, need.archive
        first, files_read = need.periods[0].period, None
        if state.delisted:
            grains = len(archive.grains(state.series.interval))
            files_read = self._files_read.setdefault(state.series, FilesRead(state.series.interval, grains))
            first = files_read.list_from(first)
        elif first.grain == "month":
            first = _month_of_start(state, first)
        listed: dict[CalendarPeriod, ArchiveFile] = {}
        for _ in range(1 if files_read is None else files_read.listings_needed):
            try:
                listed |= await self._list_once(need, first)
            except (FetchError, PaginationError) as error:
                self.files.reject(state, archive.folder(state.series, first.grain), error)
                return []
            if files_read is not None:
                files_read.listings += 1
        if files_read is not None:
            files_read.listed |= listed.keys()
        begins = _begins(state, archive)
        if older := [file.key for period, file in listed.items() if period.span.end <= begins]:
            self._reject_older(state, older, begins)
        chosen = [
            (period, listed[period.period])
            for period in need.periods
            if period.period in listed and self._is_worth_its_size(need, period, listed[period.period])
        ]
        comparison, newest = ApiComparison(), max((period.period for period, _ in chosen), default=None)
        return [
            FileTask(
                state,
                archive,
                period,
                file.key,
                comparison,
                period.period == newest,
                file,
                self._compared_rows(need, period),
                files_read,
            )
            for period, file in chosen
        ]

    def _named(self, need: _SeriesNeed) -> list[FileTask]:
        """Return the files that an archive without a listing may have for needed periods, newest first."""
        archive, series, comparison = need.archive, need.state.series, ApiComparison()
        return [
            FileTask(
                need.state,
                archive,
                period,
                archive.key(series, period.period),
                comparison,
                period is need.periods[-1],
                compared_rows=self._compared_rows(need, period),
            )
            for period in reversed(need.periods)
        ]

    def _compared_rows(self, need: _SeriesNeed, period: NeededPeriod) -> int:
        """Return how many rows of a file may be compared with the API; 0 if the API does not have them."""
        return 0 if self.always or self._is_in_files_alone(need, period) else need.page_size

    async def _list_once(self, need: _SeriesNeed, first: CalendarPeriod) -> dict[CalendarPeriod, ArchiveFile]:
        """Return the files of a series from a period on; those of a listed symbol to the last needed one."""
        series, last = need.state.series, need.periods[-1].period
        listed: dict[CalendarPeriod, ArchiveFile] = {}
        listing = need.archive.listing(series, first)
        async with aclosing(self.files.list_pages(need.archive, listing)) as pages:
            async for page in pages:
                for file in page.files:
                    period = need.archive.period_of(series, file.name)
                    if period is not None and period.grain == first.grain:
                        listed.setdefault(period, file)
                if not need.state.delisted and listed and max(listed) >= last:
                    break
        return listed

    def _reject_older(self, state: SeriesState, keys: Sequence[str], begins: int) -> None:
        """Report files of an older instrument of the same name."""
        self.files.state.files_rejected += len(keys)
        reason = f"is older than the listing of {format_utc(begins)}: of another instrument of that name"
        event = FileRejected(state.series, keys[0], f"{reason} ({len(keys)} such files)")
        self.files.executor.emit(event)

    async def _conclude(self, state: SeriesState) -> None:
        """Record as empty what the files of a delisted series prove to be, and give up the rest."""
        series, now = state.series, self.now()
        files_read = self._files_read.get(series, FilesRead(series.interval, grains=1))
        if empty := files_read.empty(state.missing, now):
            coverage = Coverage(empty, empty)
            state.record_coverage(coverage)
            await self.files.writers.submit(Batch.of_coverage(series, coverage))
        if files_read.are_known and files_read.listed and not files_read.is_over(now):
            after = state.missing & SpanSet.of(Span(files_read.end, MAX_TIMESTAMP))
            text = f"its files end at {format_utc(files_read.end)}, and another may follow"
            state.give_up(after, Reason(MissingReason.NOT_PUBLISHED, text))
        state.give_up(state.missing, _NOT_READ if state.files_rejected or self.files.blocked else _IN_NO_FILE)


def want_from_files(states: Sequence[SeriesState], exchange: Exchange) -> list[SeriesState]:
    """Return the series that have files, and want of them what was given up as older than the API serves."""
    with_files = list[SeriesState]()
    for state in states:
        archive = exchange.archive(state.series.dataset)
        if archive is not None and archive.grains(state.series.interval):
            want_beyond_retention(state, exchange.endpoint(state.series.dataset))
            with_files.append(state)
    return with_files


def _newest_of_each(tasks: Sequence[FileTask]) -> tuple[list[FileTask], list[FileTask]]:
    """Split files: first all that are listed and the newest few of each other series, then the older ones."""
    named = Counter[Series]()
    newest, older = list[FileTask](), list[FileTask]()
    for task in tasks:
        named[task.state.series] += task.listed is None
        (older if named[task.state.series] > _REQUESTED_AT_ONCE else newest).append(task)
    return newest, older


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
