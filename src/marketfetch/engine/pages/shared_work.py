"""Work that is shared with other processes: each takes what nobody has stored yet; the store is the arbiter.

While this process is alone on its boards, all series advance side by side and nothing is read. From the
moment on at which a board shows another process, the coverage of the wanted series is read again before a
batch is begun, and `SharedOrder` says where to go on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, count, pairwise
from time import monotonic

import anyio
import attrs
from anyio.lowlevel import checkpoint

from marketfetch.engine.blocking import StoreRetrier
from marketfetch.engine.pages.batch_builder import RowBudget
from marketfetch.engine.state import SeriesState
from marketfetch.planning.batches import BatchPlan, BatchSizing, FetchTask, plan_batches
from marketfetch.planning.shared_order import Pace, SharedOrder, UnfetchedSpan, unfetched_spans
from marketfetch.protocols import Store
from marketfetch.sharing import ProcessRank
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import SpanSet

__all__ = ["BatchPlans", "CoverageRefresher", "PageSizes", "unstored_part"]

_MIN_READ_INTERVAL = 0.2
"""Seconds: coverage that was read at most this long ago is not read again."""
_MAX_AGE_AT_ROUND = 2.0
"""Seconds: older coverage is read again before a round."""
_MIN_PAUSE_READS = 10
"""Wait at least 10 x the duration of the last read: reads take mostly a tenth of the time."""
_MAX_READ_INTERVAL = 2.0
"""Seconds: wait no longer than this. A read may take long because it waits for another process."""
_MAX_SHARE_RATIO = 0.75
"""Page sizes are chosen anew if the present share of the addresses < 0.75 x the share they were made for."""
_MEASURED_READS = 5
"""The time between two reads is the longest one among this many last reads."""


@attrs.define(eq=False)
class CoverageRefresher:
    """Reads what other processes have stored meanwhile, when a board shows that there are others."""

    store: Store
    retrier: StoreRetrier
    process_rank: Callable[[], ProcessRank]
    """Returns the rank of this process among those that use the same board."""
    states: Mapping[Series, SeriesState]
    read_at: float
    """When the coverage was read for the first time; see `monotonic`."""
    others: dict[Series, SpanSet] = attrs.field(factory=dict, init=False)
    """What other processes have stored, as far as this one had not."""
    _shared: bool = attrs.field(default=False, init=False)
    _due: float = attrs.field(default=0.0, init=False)
    _ended: deque[float] = attrs.field(factory=lambda: deque(maxlen=_MEASURED_READS), init=False)
    _lock: anyio.Lock = attrs.field(factory=anyio.Lock, init=False)

    @property
    def interval(self) -> float:
        """The longest time between two of the last reads, in seconds."""
        return max((late - early for early, late in pairwise(self._ended)), default=0.0)

    @property
    def is_shared(self) -> bool:
        """Whether there is or was another process. The rows of a process count after its end, too."""
        self._shared = self._shared or self.process_rank().others > 0
        return self._shared

    async def renew(self) -> None:
        """Read the coverage again before a round, if there are others, or if it was read long ago.

        A process that waited for its first address may find that others have done everything.
        """
        last = self._ended[-1] if self._ended else self.read_at
        if self.is_shared or monotonic() - last > _MAX_AGE_AT_ROUND:
            await self.refresh()

    async def refresh(self, *, at_once: bool = False) -> None:
        """Read the coverage of all series of which not everything is stored, unless it is fresh.

        `at_once` reads it however long that takes: the process is about to choose where to go on. A store
        that is away is waited for: without a read, what others have stored would be requested.
        """
        async with self._lock:
            began = monotonic()
            last = self._ended[-1] if self._ended else -math.inf
            if began < (last + _MIN_READ_INTERVAL if at_once else self._due):
                return
            self._due = began + _MIN_READ_INTERVAL
            incomplete = [
                series for series, state in self.states.items() if state.wanted - state.durable.covered
            ]
            if not incomplete:
                return
            found = await self.retrier.call_in_thread(partial(self.store.coverage, incomplete))
            await checkpoint()  # batches of this process are recorded first
            for series, coverage in found.items():
                state = self.states[series]
                if new := coverage.covered - state.durable.covered:
                    self.others[series] = self.others.get(series, SpanSet()) | new
                    state.record_stored(coverage)
            ended = monotonic()
            self._ended.append(ended)
            self._due = ended + min(
                _MAX_READ_INTERVAL, max(_MIN_READ_INTERVAL, _MIN_PAUSE_READS * (ended - began))
            )


@attrs.define(eq=False)
class PageSizes:
    """Chooses page sizes anew once this process has a smaller share of the addresses than they were made for.

    A process that begins knows of no other. With three addresses of its own its rows may fit into one window
    of the limits in large pages; with a third of that, pages with less weight for each row are needed.
    """

    share: Callable[[], float] = float
    choose: Callable[[], Sequence[FetchTask]] = list
    planned: float = 0.0
    """The share for which the present sizes were chosen."""

    def renewed(self) -> Mapping[Series, int]:
        """Return the page sizes for the present share; nothing if that has not become much smaller."""
        if (share := self.share()) >= _MAX_SHARE_RATIO * self.planned:
            return {}
        self.planned = share
        return {task.series: task.page_size for task in self.choose()}


@attrs.define(eq=False)
class _WorkShare:
    """A share of the work, from a point of the line on, in the order of time."""

    plans: Iterator[BatchPlan]
    planned: dict[Series, SpanSet] = attrs.field(factory=dict)
    """One span for each series: a year with a gap in every second minute would be a quarter million."""

    def next(self) -> BatchPlan | None:
        plan = next(self.plans, None)
        if plan is not None:
            spans = SpanSet.of(*(part.span for part in plan.slices))
            before = self.planned.get(plan.series, SpanSet())
            self.planned[plan.series] = SpanSet.of((before | spans).hull)
        return plan

    def meets(self, others: Mapping[Series, SpanSet]) -> bool:
        """Whether another process has stored what this share was about to fetch: it goes on here, too."""
        return any(others.get(series, SpanSet()) & spans for series, spans in self.planned.items())


@attrs.define(eq=False)
class BatchPlans:
    """Yields the plans for the tasks of one limit pool, one after the other, until nothing is left.

    No moment is planned twice in a round.
    """

    tasks: Sequence[FetchTask]
    sizing: BatchSizing
    states: Mapping[Series, SeriesState]
    refresher: CoverageRefresher | None
    """None if no other process can see the store."""
    order: SharedOrder
    row_budget: RowBudget
    sizes: PageSizes = attrs.field(factory=PageSizes)
    _ids: Iterator[int] = attrs.field(factory=count, init=False)
    _alone: _WorkShare = attrs.field(init=False)
    """All tasks, until there is another process."""
    _shares: deque[_WorkShare] = attrs.field(factory=deque, init=False)
    """The shares that this process works on, in turns, while others work on the rest."""
    _planned: dict[Series, SpanSet] = attrs.field(factory=dict, init=False)
    """What all shares have planned so far."""
    _choose_at: float = attrs.field(default=0.0, init=False)
    """When shares are chosen again, after none was found; see `monotonic`."""
    _is_over: bool = attrs.field(default=False, init=False)
    _began: float = attrs.field(factory=monotonic, init=False)
    _waited: float = attrs.field(default=0.0, init=False)
    """Seconds in which others worked on all that was left."""
    _count: int = attrs.field(default=0, init=False)
    _most_rows: int = attrs.field(default=0, init=False)
    """The most rows that were in flight: a process that looks for work has hardly any."""

    def __attrs_post_init__(self) -> None:
        self._alone = _WorkShare(
            plan_batches(self.tasks, self.sizing, lambda series: self.states[series].crossed, self._ids)
        )

    async def next(self) -> BatchPlan | None:
        """Return the next plan; None if nothing is left."""
        if sizes := self.sizes.renewed():
            self._resize(sizes)
        refresher = self.refresher
        plan = (
            self._alone.next()
            if refresher is None or not refresher.is_shared
            else await self._next(refresher)
        )
        if plan is not None:
            self._count += 1
        self._most_rows = max(self._most_rows, self.row_budget.in_use)
        return plan

    def _resize(self, sizes: Mapping[Series, int]) -> None:
        """Plan the rest of the tasks with other page sizes."""
        self.tasks = [
            attrs.evolve(task, page_size=sizes.get(task.series, task.page_size)) for task in self.tasks
        ]
        plans = plan_batches(self.tasks, self.sizing, self._done, self._ids)
        self._alone = _WorkShare(plans, self._alone.planned)

    def _done(self, series: Series) -> SpanSet:
        """Return the moments of a series for which no batch is planned any more."""
        planned = self._planned.get(series, SpanSet())
        return self.states[series].crossed | planned | self._alone.planned.get(series, SpanSet())

    async def _next(self, refresher: CoverageRefresher) -> BatchPlan | None:
        while not self._is_over:
            is_choice = len(self._shares) < self.order.shares and monotonic() >= self._choose_at
            await refresher.refresh(at_once=is_choice)
            if is_choice:
                self._begin_shares(refresher.process_rank(), monotonic())
            while self._shares:
                share = self._shares[0]
                plan = None if share.meets(refresher.others) else share.next()
                if plan is not None and not self._is_stored(plan):
                    planned = self._planned.get(plan.series, SpanSet())
                    self._planned[plan.series] = planned | share.planned[plan.series]
                    self._shares.rotate(-1)
                    return plan
                self._shares.popleft()
            if not self._is_over:  # others work on all that is left
                waits = monotonic()
                await anyio.sleep(_MIN_READ_INTERVAL)
                self._waited += monotonic() - waits
        return None

    def _begin_shares(self, rank: ProcessRank, now: float) -> None:
        """Begin shares until there are enough, or until nothing is left to begin."""
        spans: Sequence[UnfetchedSpan] = ()
        pace = self._pace(now, 0.0 if self.refresher is None else self.refresher.interval)
        while len(self._shares) < self.order.shares:
            spans = spans or [each for task in self.tasks for each in self._unfetched(task)]
            chosen = self.order.choose(spans, rank, pace)
            if not chosen:
                self._choose_at = now + _MIN_READ_INTERVAL
                self._is_over = not spans and not self._shares
                return
            self._shares.append(_WorkShare(chain.from_iterable(map(self._plans_of, chosen))))

    def _pace(self, now: float, between_reads: float) -> Pace:
        """Return how long a batch takes, from its plan to the moment at which others see it stored.

        As many rows are in flight as are stored in that time. Another process takes as long, and what it has
        stored is seen at the next read.
        """
        planned = (now - self._began - self._waited) / max(1, self._count)
        stored = planned * self._most_rows / self.sizing.rows
        return Pace(now, max(planned, stored) + between_reads, self._most_rows)

    def _plans_of(self, unfetched: UnfetchedSpan) -> Iterator[BatchPlan]:
        missing = unfetched.task.missing & SpanSet.of(unfetched.span)
        return plan_batches(
            [attrs.evolve(unfetched.task, missing=missing)], self.sizing, self._done, self._ids
        )

    def _unfetched(self, task: FetchTask) -> Iterator[UnfetchedSpan]:
        state = self.states[task.series]
        if state.terminal_error is None:
            yield from unfetched_spans(task, (task.missing - state.missing) | self._done(task.series))

    def _is_stored(self, plan: BatchPlan) -> bool:
        """Whether a batch begins with moments that another process has stored: the share ends here."""
        first = next(iter(plan.slices), None)
        return first is None or not self.states[plan.series].missing_in(first.span)


def unstored_part(state: SeriesState, part: Slice) -> Slice | None:
    """Return what nobody has stored of a slice; None if nothing is left."""
    unstored = state.missing_in(part.span).hull
    if unstored is None or unstored == part.span:
        return None if unstored is None else part
    return part.within(unstored)
