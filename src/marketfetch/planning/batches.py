"""Planning: the size of pages and batches, and the order in which missing moments are fetched."""

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
    "ProcessingCost",
    "choose_page_size",
    "files_end_sooner",
    "plan_batches",
    "working_seconds",
]

DEFAULT_BATCH_ROWS = 8_000
"""The number of rows in a batch for sinks that do not say how large their batches should be."""
_SECONDS_PER_FILE_ROW = 4e-6
"""Seconds for a row of a file: about 32 bytes at 10 MB/s, and the time to inflate and decode it."""


@attrs.frozen
class ProcessingCost:
    """Seconds in which this process handles a request of any size, and each row of a page.

    A row is received, decoded, checked and put into a batch. Without latency and limits, a run takes these
    seconds.
    """

    request: float = 5e-4
    row: float = 5e-7


@attrs.frozen
class Capacity:
    """What a run can use: egresses, requests in flight, the seconds of a response, its processing cost.

    `egresses` may be 0.5 or less: where processes share an egress, each counts its part of it.
    `processing_cost` is by default that of a typical machine. Page sizes are always chosen with it; only the
    seconds of a plan use a measured one.
    """

    egresses: float
    concurrency: int
    latency: float
    processing_cost: ProcessingCost = ProcessingCost()


def choose_page_size(sizes: Sequence[int], cost: Callable[[int], Cost], rows: int, capacity: Capacity) -> int:
    """Choose the page size with which a run ends soonest; of equal ones the one with the least weight.

    While the rate limit is not reached, large pages save round trips. Once it is, the size with the most rows
    for its weight wins. Example: 1500 rows cost 10 and 499 rows cost 2. A day of 1m candles of 60 symbols is
    fetched with pages of 1500 rows, ten million rows with pages of 499.

    >>> from marketfetch.values.http import LimitPool
    >>> weight = LimitPool("weight", capacity=2400, period=60_000)
    >>> cost = lambda rows: Cost(weight, 2 if rows < 500 else 10)
    >>> [choose_page_size((499, 1500), cost, rows, Capacity(1, 20, 0.1)) for rows in (86_400, 10_000_000)]
    [1500, 499]
    """

    def effort(size: int) -> tuple[float, float]:
        return _seconds(-(-rows // size), cost(size), capacity), -(-rows // size) * cost(size).weight

    return min(sizes, key=effort)


def files_end_sooner(files: int, rows: int, pages: int, page: Cost, capacity: Capacity) -> bool:
    """Tell whether files with so many rows are read sooner than pages of the API, or at the same time.

    A file costs two requests, for itself and its checksum, and its rows cost time, too. Example: a month of
    1m candles of one symbol comes as 29 large pages within the budget of the first minute, sooner than by
    files. Two years of three symbols have 6,312 pages of the size with the least weight, for which the API
    needs minutes, and 72 files.

    >>> from marketfetch.values.http import LimitPool
    >>> weight, here = LimitPool("weight", capacity=2400, period=60_000), Capacity(1, 20, 0.1)
    >>> files_end_sooner(1, 43_200, 29, Cost(weight, 10), here)
    False
    >>> files_end_sooner(72, 3_150_000, 6_312, Cost(weight, 2), here)
    True
    """
    round_trips = 1 + -(-2 * files // capacity.concurrency)  # the first one is for the listings
    requests = 2 * files * capacity.processing_cost.request
    seconds = round_trips * capacity.latency + requests + rows * _SECONDS_PER_FILE_ROW
    return seconds <= _seconds(pages, page, capacity)


def _seconds(requests: int, each: Cost, capacity: Capacity) -> float:
    """Return how long requests take that cost the same."""
    pool, weight = each.pool, requests * each.weight
    # The budget of the first period may be spent at once; only what exceeds it has to wait.
    refills = max(0.0, weight / (capacity.egresses * pool.capacity) - 1.0)
    return max(working_seconds(requests, capacity), refills * pool.period / 1000)


def working_seconds(requests: int, capacity: Capacity, *, in_a_row: int = 1) -> float:
    """Return how long requests take that no rate limit delays; `in_a_row` of them wait for each other."""
    round_trips = max(-(-requests // capacity.concurrency), min(in_a_row, requests))
    return round_trips * capacity.latency + requests * capacity.processing_cost.request


@attrs.frozen
class FetchTask:
    """The missing moments of a series, and how to request them."""

    series: Series
    missing: SpanSet
    paginator: Paginator
    page_size: int

    @property
    def rows(self) -> int:
        """Return the number of missing open times; events are counted as one page for each missing span."""
        interval = self.series.interval
        return self.page_size * len(self.missing) if interval.is_event else interval.count_rows(self.missing)


@attrs.frozen
class BatchPlan:
    """The slices whose rows are collected into one batch."""

    id: int
    series: Series
    slices: tuple[Slice, ...]

    @property
    def rows(self) -> int:
        """The most rows that the first responses can have; a chain of pages may have more."""
        return sum(part.rows for part in self.slices)


@attrs.frozen
class BatchSizing:
    """How history is cut into batches: about `rows` rows each, none across the border of a `partition`."""

    rows: int
    partition: Callable[[Series, int], Span] | None = None

    def pages(self, task: FetchTask) -> int:
        """Return the number of whole pages in one batch."""
        return max(1, self.rows // task.page_size)

    def end(self, task: FetchTask, start: int) -> int:
        """Return where the batch that begins at `start` ends at the latest."""
        interval = task.series.interval
        stop = interval.shift(interval.floor(start), self.pages(task) * task.page_size)
        if self.partition is None:
            return stop
        # A candle that spans the border belongs before it. No page is made shorter because of a border: of 1d
        # candles in a file for each year, each year would cost a request.
        border = interval.ceil(self.partition(task.series, start).end)
        page = interval.shift(interval.floor(start), task.page_size)
        return min(stop, max(border, page))


def _batch_spans(
    task: FetchTask, sizing: BatchSizing, crossed: Callable[[Series], SpanSet]
) -> Iterator[Span]:
    """Cut missing spans into one span for each batch; a chain of pages is never cut."""
    for span in task.missing:
        unplanned: SpanSet = SpanSet.of(span)
        while unplanned := unplanned - crossed(task.series):
            start, stop = unplanned.spans[0].start, unplanned.spans[0].end
            if not task.paginator.sequential:
                stop = min(stop, sizing.end(task, start))
            yield Span(start, stop)
            unplanned -= SpanSet.of(Span(start, stop))


def plan_batches(
    tasks: Sequence[FetchTask],
    sizing: BatchSizing,
    crossed: Callable[[Series], SpanSet] = lambda _: SpanSet(),
    ids: Iterator[int] | None = None,
) -> Iterator[BatchPlan]:
    """Yield everything to fetch, lazily, so that all series advance side by side.

    First comes the first batch of every series, then the second batch of every series. Only one plan of each
    series is in memory at a time.

    `crossed` returns the stretches of a series that were found to be empty since: no batch begins in one.
    `ids` are the numbers of the plans, where several calls plan for the same BatchBuilder.
    """
    ids = count() if ids is None else ids

    def batch_plans(task: FetchTask) -> Iterator[BatchPlan]:
        for span in _batch_spans(task, sizing, crossed):
            number = next(ids)
            whole = Slice(task.series, span, task.page_size, batch_plan=number)
            yield BatchPlan(number, task.series, tuple(task.paginator.split(whole)))

    pending = [batch_plans(task) for task in tasks]
    while pending:
        unfinished = []
        for stream in pending:
            batch_plan = next(stream, None)
            if batch_plan is not None:
                yield batch_plan
                unfinished.append(stream)
        pending = unfinished
