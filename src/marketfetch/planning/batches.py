"""Planning: how large pages should be, and in which order the missing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count

import attrs

from marketfetch.protocols import Paginator
from marketfetch.values.http import Cost
from marketfetch.values.series import Series
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

__all__ = [
    "DEFAULT_BATCH_ROWS",
    "BatchPlan",
    "BatchSizing",
    "Capacity",
    "FetchTask",
    "choose_page_size",
    "plan_batches",
]

_PER_REQUEST = 5e-4
"""Seconds of our own work on a request, whatever its size: it decides where latency is nil."""


@attrs.frozen
class Capacity:
    """What a run has at its disposal: egresses, requests in flight, and the seconds a reply takes.

    There may be half an egress, or less: where several processes share one, each has a part of it.
    """

    egresses: float
    concurrency: int
    latency: float


def choose_page_size(sizes: Sequence[int], cost: Callable[[int], Cost], rows: int, capacity: Capacity) -> int:
    """Choose the page size that ends soonest; of equals the one that costs the exchange least.

    While the budgets hold, large pages save round trips; once weight is the bottleneck, the size with
    the most rows for its weight wins.

    >>> from marketfetch.values.http import LimitPool
    >>> weight = LimitPool("weight", capacity=2400, period=60_000)
    >>> cost = lambda rows: Cost(weight, 2 if rows < 500 else 10)
    >>> [choose_page_size((499, 1500), cost, rows, Capacity(1, 20, 0.1)) for rows in (86_400, 10_000_000)]
    [1500, 499]
    """

    def effort(size: int) -> tuple[float, float]:
        requests = -(-rows // size)
        pool, weight = cost(size).pool, requests * cost(size).weight
        turns = -(-requests // capacity.concurrency)
        working = turns * capacity.latency + requests * _PER_REQUEST
        # The budget of the first period may be spent at once; only what exceeds it has to wait.
        refills = max(0.0, weight / (capacity.egresses * pool.capacity) - 1.0)
        return max(working, refills * pool.period / 1000), weight

    return min(sizes, key=effort)


@attrs.frozen
class FetchTask:
    """Something to fetch: the missing moments of a series, and how to ask for them."""

    series: Series
    missing: SpanSet
    paginator: Paginator
    page_size: int

    @property
    def rows(self) -> int:
        """Open times that are missing; for events, whose number nobody knows, one page for each span."""
        interval = self.series.interval
        return self.page_size * len(self.missing) if interval.is_event else interval.count_rows(self.missing)


@attrs.frozen
class BatchPlan:
    """Slices whose rows are gathered into one batch."""

    id: int
    series: Series
    slices: tuple[Slice, ...]

    @property
    def rows(self) -> int:
        """How many rows the answers may hold at first sight; a chain may turn out longer."""
        return sum(part.rows for part in self.slices)


@attrs.frozen
class BatchSizing:
    """How history is cut into batches: about `rows` each, none across the border of a `partition`."""

    rows: int
    partition: Callable[[Series, int], Span] | None = None

    def pages(self, task: FetchTask) -> int:
        """How many whole pages make one batch."""
        return max(1, self.rows // task.page_size)

    def end(self, task: FetchTask, start: int) -> int:
        """Return where the batch that begins at `start` ends at the latest."""
        interval = task.series.interval
        stop = interval.shift(interval.floor(start), self.pages(task) * task.page_size)
        if self.partition is None:
            return stop
        # A border off the grid belongs to the row that spans it. No page is made shorter for one: of candles
        # of a day, a file for each year would cost a request for each.
        border = interval.ceil(self.partition(task.series, start).end)
        page = interval.shift(interval.floor(start), task.page_size)
        return min(stop, max(border, page))


def _stretches(task: FetchTask, sizing: BatchSizing) -> Iterator[Span]:
    """Cut missing spans into one stretch for each batch; a chain is never cut."""
    for span in task.missing:
        start = span.start
        while start < span.end:
            stop = span.end if task.paginator.sequential else min(span.end, sizing.end(task, start))
            yield Span(start, stop)
            start = stop


def plan_batches(tasks: Sequence[FetchTask], sizing: BatchSizing) -> Iterator[BatchPlan]:
    """Yield everything to fetch, lazily, so that all series advance side by side.

    Each series is cut into chunks, one for each batch; the first chunk of every series comes first, then
    every second one. Only one chunk of each series is held at a time.
    """
    ids = count()

    def batch_plans(task: FetchTask) -> Iterator[BatchPlan]:
        for span in _stretches(task, sizing):
            number = next(ids)
            whole = Slice(task.series, span, task.page_size, batch_plan=number)
            yield BatchPlan(number, task.series, tuple(task.paginator.split(whole)))

    pending = [batch_plans(task) for task in tasks]
    while pending:
        alive = []
        for stream in pending:
            batch_plan = next(stream, None)
            if batch_plan is not None:
                yield batch_plan
                alive.append(stream)
        pending = alive


DEFAULT_BATCH_ROWS = 8_000
"""The size of batches for sinks that do not say what suits them."""
