"""Fetching from an archive: months first, then the days that the months do not have.

What the files lack is left to the API, if it still serves such old rows. A file proves that moments are
present, never that they are empty. Of a delisted symbol there are files alone: see
`planning/archive_absence.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

import anyio
import attrs

from marketfetch.archives.periods import CalendarPeriod, Grain
from marketfetch.engine.archive_files import ArchiveFiles, FileTask, Seam
from marketfetch.engine.missing import ask_files_for_unserved, give_up_unserved, unserved
from marketfetch.engine.state import SeriesState
from marketfetch.errors import FetchError, PaginationError
from marketfetch.events import FileRejected
from marketfetch.exchange import Exchange
from marketfetch.planning.archive_absence import FilesRead
from marketfetch.planning.archive_periods import NeededPeriod, needed_periods
from marketfetch.planning.batches import Capacity, choose_page_size, files_end_sooner
from marketfetch.sources import Archive, Endpoint
from marketfetch.values.archives import ArchiveFile
from marketfetch.values.coverage import Coverage
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.series import Series
from marketfetch.values.spans import MAX_TIMESTAMP, Span, SpanSet, format_utc
from marketfetch.values.times import Clock

__all__ = ["ArchiveWaves", "want_from_files"]

_T = TypeVar("_T")
_GRAINS: tuple[Grain, ...] = ("month", "day")
_WORTH_PAGES = 2
"""A file of which fewer pages are missing is not worth its requests."""
_MAX_FILE = 16 * 2**20
"""Bytes of a file, at most: a month of candles of 1s is larger, and its days are read instead."""
_IN_NO_FILE = "neither a monthly nor a daily file has it, and the exchange no longer lists the symbol"


@attrs.frozen(eq=False)
class ArchiveWaves:
    """Chooses files of the exchange's archive where they are sooner than the API, and has them fetched.

    With `always`, files are read wherever something is missing, however little. So are those of delisted
    symbols: there is nothing else to ask.
    """

    files: ArchiveFiles
    capacity: Capacity
    now: Clock
    """The server's time, UTC milliseconds."""
    always: bool = False
    _read: dict[Series, FilesRead] = attrs.field(factory=dict, init=False)
    """What the files of each delisted series had."""

    async def run(self, states: Sequence[SeriesState]) -> None:
        """Fetch what is missing of the series, as far as files have it, and submit it to the writers.

        What neither the API nor a file has is given up. What remains of a delisted series is empty where its
        files prove it, and given up elsewhere. Raises RestrictedLocation. Any other error of a listing or a
        file is reported, and the API is asked for the rows.
        """
        run_state = self.files.state
        self.files.row_budget.limit = self.files.max_rows
        filed = want_from_files(states, self._exchange)
        for grain in _GRAINS:
            tasks = await self._plan(filed, grain)
            run_state.rows_planned += sum(task.need.rows for task in tasks)
            await self._for_each(tasks, self.files.fetch)
        for state in states:
            if state.delisted and state.missing:
                await self._conclude(state)
        for state in filed:
            give_up_unserved(state, self._endpoint(state), self.now())

    async def _plan(self, states: Sequence[SeriesState], grain: Grain) -> list[FileTask]:
        """List the files of one grain that are worth their requests."""
        needs = [(state, self._needs(state, grain)) for state in states]
        if not self._are_sooner(needs):
            needs = [
                (state, [need for need in needed if self._is_in_files_alone(state, need)])
                for state, needed in needs
            ]
        needs = [(state, needed) for state, needed in needs if needed]
        tasks: list[FileTask] = []

        async def list_files(of: tuple[SeriesState, list[NeededPeriod]]) -> None:
            tasks.extend(await self._list(*of))

        await self._for_each(needs, list_files)
        # The newest file of each series comes first: the others wait for it.
        return sorted(tasks, key=lambda task: (not task.newest, task.need.period.start))

    def _needs(self, state: SeriesState, grain: Grain) -> list[NeededPeriod]:
        """Return the periods of a series that are over, and of which more than a few pages are missing."""
        series, archive = state.series, self._exchange.archive(state.series.dataset)
        if archive is None or grain not in archive.grains(series.interval):
            return []
        now, offset = self.now(), archive.utc_offset
        # The API alone knows what the listed instrument had earlier.
        missing = state.missing & SpanSet.of(Span(_begins(state, archive), MAX_TIMESTAMP))
        return [
            need
            for need in needed_periods(missing, series.interval, grain, utc_offset=offset)
            if (need.period.span.end <= now or state.delisted) and self._is_worth(state, need)
        ]

    def _is_worth(self, state: SeriesState, need: NeededPeriod) -> bool:
        """Whether a file is read: for pages of the API, or for rows that the API does not have."""
        if self.always or state.delisted:
            return True
        if self._is_in_files_alone(state, need):
            return not need.is_short_gap(state.wanted, state.series.interval)
        return need.rows >= _WORTH_PAGES * self._page_size(state)

    def _is_in_files_alone(self, state: SeriesState, need: NeededPeriod) -> bool:
        """Whether the API lacks some of the missing moments: they are too old, or the symbol is delisted."""
        return state.delisted or bool(unserved(need.missing, state.series, self._endpoint(state), self.now()))

    def _page_size(self, state: SeriesState) -> int:
        endpoint = self._endpoint(state)
        rows = state.series.interval.count_rows(state.missing)
        return choose_page_size(endpoint.page_sizes, endpoint.cost, rows, self.capacity)

    @property
    def _exchange(self) -> Exchange:
        return self.files.executor.exchange

    def _endpoint(self, state: SeriesState) -> Endpoint:
        return self._exchange.endpoint(state.series.dataset)

    def _are_sooner(self, needs: Sequence[tuple[SeriesState, list[NeededPeriod]]]) -> bool:
        """Whether the files of all series are read sooner than the pages that they replace."""
        served = [
            (state, need)
            for state, needed in needs
            for need in needed
            if not self._is_in_files_alone(state, need)
        ]
        if self.always or not served:
            return True
        rows = sum(need.rows for _, need in served)
        pages = sum(-(-need.rows // self._page_size(state)) for state, need in served)
        state = served[0][0]
        page = self._endpoint(state).cost(self._page_size(state))
        return files_end_sooner(len(served), rows, pages, page, self.capacity)

    async def _list(self, state: SeriesState, needed: Sequence[NeededPeriod]) -> list[FileTask]:
        """List the files of a series for the needed periods; none if the listing fails."""
        archive = self._exchange.archive(state.series.dataset)
        if archive is None or self.files.blocked:
            return []
        by_period = {need.period: need for need in needed}
        first, last, read = needed[0].period, max(by_period), None
        if state.delisted:
            read = self._read.setdefault(state.series, FilesRead(state.series.interval))
            first = read.list_from(first)
        elif first.grain == "month":
            first = _month_of_start(state, first)
        listing = archive.listing(state.series, first)
        chosen: list[tuple[NeededPeriod, ArchiveFile]] = []
        older, begins = list[str](), _begins(state, archive)
        try:
            async with aclosing(self.files.list_pages(archive, listing)) as pages:
                async for page in pages:
                    found = [(archive.period_of(state.series, file.name), file) for file in page.files]
                    chosen += [
                        (by_period.pop(period), file)
                        for period, file in found
                        if period in by_period and file.size <= _MAX_FILE
                    ]
                    older += [file.key for period, file in found if period and period.span.end <= begins]
                    known = {period for period, _ in found if period is not None}
                    if read is not None:
                        read.listed |= known
                    elif any(period >= last for period in known):
                        break
        except (FetchError, PaginationError) as error:
            self.files.reject(state, listing.prefix, error)
            if read is not None:
                read.listing_failed = True
            return []
        if older:
            self._reject_older(state, older, begins)
        seam, newest = Seam(), max((need.period for need, _ in chosen), default=None)
        return [
            FileTask(
                state,
                archive,
                need,
                file,
                seam,
                need.period == newest,
                0 if self.always or self._is_in_files_alone(state, need) else self._page_size(state),
                read,
            )
            for need, file in chosen
        ]

    def _reject_older(self, state: SeriesState, keys: Sequence[str], begins: int) -> None:
        """Report files of an older instrument of the same name."""
        self.files.state.files_rejected += len(keys)
        reason = f"is older than the listing of {format_utc(begins)}: of another instrument of that name"
        event = FileRejected(state.series, keys[0], f"{reason} ({len(keys)} such files)")
        self.files.executor.emit(event)

    async def _conclude(self, state: SeriesState) -> None:
        """Record as empty what the files of a delisted series prove to be, and give up the rest."""
        series, now = state.series, self.now()
        read = self._read.get(series, FilesRead(series.interval))
        if empty := read.empty(state.missing, now):
            coverage = Coverage(empty, empty)
            state.record_coverage(coverage)
            await self.files.writers.submit(Batch(series, Columns.empty(series.dataset), coverage))
        if read.listed and not read.is_over(now):
            after = state.missing & SpanSet.of(Span(read.end, MAX_TIMESTAMP))
            state.give_up(after, f"its files end at {format_utc(read.end)}, and another may follow")
        state.give_up(state.missing, _IN_NO_FILE)

    async def _for_each(self, items: Sequence[_T], work: Callable[[_T], Awaitable[None]]) -> None:
        """Do the work for all items, in order, `concurrency` of them at a time."""
        rest = iter(items)

        async def work_off() -> None:
            for item in rest:
                await work(item)

        async with anyio.create_task_group() as group:
            for _ in range(min(len(items), self.files.executor.settings.concurrency)):
                group.start_soon(work_off)


def want_from_files(states: Sequence[SeriesState], exchange: Exchange) -> list[SeriesState]:
    """Return the series that have files, and want of them what was given up as older than the API serves."""
    filed = list[SeriesState]()
    for state in states:
        archive = exchange.archive(state.series.dataset)
        if archive is not None and archive.grains(state.series.interval):
            ask_files_for_unserved(state, exchange.endpoint(state.series.dataset))
            filed.append(state)
    return filed


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
