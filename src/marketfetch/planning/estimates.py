"""Estimates: which requests a task takes, and how long requests take within the budgets of egresses. Pure.

They are made with the functions that fetch: `plan_batches` cuts the windows, and a paginator decides what
follows from each page of a chain. Only the rows are made up: each open time has one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import ceil

import attrs
import numpy as np

from marketfetch.planning.batches import BatchSizing, Capacity, FetchTask, plan_batches, working_seconds
from marketfetch.plans import EgressPlan, LimitPlan, Workload
from marketfetch.ratelimit.budget import RateBudget
from marketfetch.ratelimit.forecast import Load, estimate_seconds, forecast
from marketfetch.values.datasets import Dataset
from marketfetch.values.http import Cost, LimitPool
from marketfetch.values.pages import Columns, Page
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span

__all__ = ["TaskEstimate", "estimate_limit", "estimate_remaining", "estimate_task", "workload"]

_MAX_CHAIN = 2_000
"""Pages of a chain that are followed one by one; a longer chain goes on as it began."""


@attrs.frozen
class TaskEstimate:
    """The rows and the requests, by their cost, that a task takes; `in_a_row` of them wait for each other."""

    rows: int
    requests: Counter[Cost]
    in_a_row: int = 1


def estimate_task(
    task: FetchTask, sizing: BatchSizing, cost: Callable[[int], Cost], event_spacing: int | None
) -> TaskEstimate:
    """Return what a task takes if every open time has a row, and events are `event_spacing` ms apart.

    Without a spacing, each span of events counts as one page, and the two answers that end it.

    >>> from marketfetch.planning.paginators import CursorPaginator, TimeWindowPaginator
    >>> from marketfetch.values.series import Series
    >>> from marketfetch.values.spans import DAY, SpanSet
    >>> cost = lambda rows: Cost(LimitPool("calls", 100, 60_000))
    >>> candles, funding = Series.of("e", "ohlcv", "A", "1m"), Series.of("e", "funding_rate", "A", "event")
    >>> windows = FetchTask(candles, SpanSet.of(Span(0, DAY)), TimeWindowPaginator(), page_size=500)
    >>> found = estimate_task(windows, BatchSizing(8000), cost, event_spacing=None)
    >>> found.rows, found.requests.total()
    (1440, 3)
    >>> chain = FetchTask(funding, SpanSet.of(Span(0, 365 * DAY)), CursorPaginator(), page_size=1000)
    >>> found = estimate_task(chain, BatchSizing(8000), cost, event_spacing=DAY // 3)
    >>> found.rows, found.requests.total(), found.in_a_row
    (1095, 4, 4)
    """
    if not task.paginator.sequential:
        slices = (part for batch in plan_batches([task], sizing) for part in batch.slices)
        return TaskEstimate(task.rows, Counter(cost(part.rows) for part in slices))
    requests, rows, longest = Counter[Cost](), 0, 1
    for span in task.missing:
        chain, events = _chain(task, span, event_spacing or span.length)
        requests[cost(task.page_size)] += chain
        rows, longest = rows + events, max(longest, chain)
    return TaskEstimate(rows, requests, longest)


def _chain(task: FetchTask, span: Span, spacing: int) -> tuple[int, int]:
    """Return the number of pages of a chain, and of the events on them."""
    interval, newest_first = task.series.interval, bool(getattr(task.paginator, "newest_first", False))
    step = spacing if interval.is_event else round(interval.typical)
    events = -(-span.length // step)
    # Every page repeats the last moment of the page before it.
    skipped = max(0, events // max(1, task.page_size - 1) - _MAX_CHAIN)
    cut = skipped * (task.page_size - 1) * step
    span = Span(span.start, span.end - cut)
    pending, pages = [Slice(task.series, span, task.page_size)], skipped
    while pending and pages < skipped + 2 * _MAX_CHAIN:
        part = pending.pop()
        first = span.start + -(-(part.span.start - span.start) // step) * step
        times = np.arange(first, part.span.end, step, dtype=np.int64)
        times = times[-part.rows :] if newest_first else times[: part.rows]
        values = np.zeros((len(task.series.dataset.columns), len(times)))
        pending += task.paginator.outcome(part, Page(Columns(times, values), received=len(times))).remaining
        pages += 1
    return pages, events


def workload(requests: Mapping[Cost, int], rows: int, dataset: Dataset | None = None) -> Workload:
    """Return requests with their rows as one value; the size of an answer is a rough guess.

    >>> workload({Cost(LimitPool("weight", 2400, 60_000), 10): 2}, 3000, Dataset.parse("ohlcv"))
    Workload(rows=3000, requests=2, weight=20, size=477000)
    """
    row_size = 0 if dataset is None else 33 + 14 * len(dataset.columns)
    count, weight = sum(requests.values()), sum(cost.weight * number for cost, number in requests.items())
    return Workload(rows, count, weight, rows * row_size)


def estimate_limit(
    pool: LimitPool,
    estimate: TaskEstimate,
    budgets: Mapping[str, RateBudget],
    capacity: Capacity,
    now: int,
) -> LimitPlan:
    """Return the share of each egress, and the seconds that requests of one limit pool take from `now`.

    `budgets` has a copy of the budget of each egress; the times are by the local clock.

    >>> from marketfetch.ratelimit.server_clock import ServerClock
    >>> pool, clock = LimitPool("weight", capacity=1000, period=60_000, window="clock"), ServerClock()
    >>> clock.observe(0, 0, 40_000, exact=True)
    >>> budget = RateBudget(pool, clock)
    >>> budget.charge(490, received=0)
    >>> estimate = TaskEstimate(0, Counter({Cost(pool, 10): 140}))
    >>> plan = estimate_limit(pool, estimate, {"Direct": budget}, Capacity(1, 20, 0.1), now=0)
    >>> plan.weight, round(plan.seconds, 2), plan.egresses
    (1400, 20.55, (EgressPlan(name='Direct', requests=140, weight=1400, used=490),))
    """
    used = {name: budget.used(now) for name, budget in budgets.items()}
    heaviest = max(cost.weight for cost in estimate.requests if cost.pool == pool)
    _scale_to_own_share(budgets, pool, heaviest, capacity)
    load = _load(pool, estimate, capacity)
    return LimitPlan(
        pool.name,
        pool.capacity,
        pool.period,
        load.requests,
        load.weight,
        forecast(tuple(budgets.values()), load, now),
        tuple(
            EgressPlan(name, requests, weight, used[name])
            for name, requests, weight in zip(
                budgets,
                _shares(load.requests, len(budgets)),
                _shares(load.weight, len(budgets)),
                strict=True,
            )
        ),
    )


def _scale_to_own_share(
    budgets: Mapping[str, RateBudget], pool: LimitPool, heaviest: int, capacity: Capacity
) -> None:
    """Scale the capacity of each budget to the share of this process, where processes share an address."""
    share = min(1.0, capacity.egresses / max(1, len(budgets)))
    for budget in budgets.values():
        budget.pool = attrs.evolve(pool, capacity=max(heaviest, round(pool.capacity * share)))


def _load(pool: LimitPool, estimate: TaskEstimate, capacity: Capacity) -> Load:
    work = workload({cost: number for cost, number in estimate.requests.items() if cost.pool == pool}, 0)
    own = estimate.rows * work.requests / estimate.requests.total() * capacity.processing_cost.row
    return Load(
        work.requests,
        work.weight,
        working_seconds(work.requests, capacity, in_a_row=estimate.in_a_row) + own,
        capacity.latency,
        min(capacity.concurrency, -(-work.requests // estimate.in_a_row)),
    )


def estimate_remaining(
    done: TaskEstimate,
    rows: int,
    budgets: Callable[[LimitPool], Mapping[str, RateBudget]],
    capacity: Capacity,
    now: int,
) -> float | None:
    """Return the seconds that some rows take within the limits, if they take requests as the `done` ones did.

    None where nothing is done yet, and where no limit delays the rows. `budgets` returns copies.

    >>> from marketfetch.ratelimit.server_clock import ServerClock
    >>> pool = LimitPool("weight", capacity=1000, period=60_000)
    >>> done = TaskEstimate(50_000, Counter({Cost(pool, 10): 99}))
    >>> def budgets(pool: LimitPool) -> Mapping[str, RateBudget]:
    ...     spent = RateBudget(pool, ServerClock())
    ...     spent.charge(990, received=0)
    ...     return {"Direct": spent}
    >>> round(estimate_remaining(done, 100_000, budgets, Capacity(1, 20, 0.1), now=5_000))
    116
    >>> estimate_remaining(done, 100_000, lambda pool: {}, Capacity(1, 20, 0.1), now=5_000) is None
    True
    """
    if not done.rows or rows <= 0:
        return None
    requests = Counter({cost: ceil(each * rows / done.rows) for cost, each in done.requests.items()})
    estimate, longest = TaskEstimate(rows, requests), None
    for pool in dict.fromkeys(cost.pool for cost in requests if cost.pool.published):
        load, copies = _load(pool, estimate, capacity), budgets(pool)
        _scale_to_own_share(
            copies, pool, max(cost.weight for cost in requests if cost.pool == pool), capacity
        )
        seconds = estimate_seconds(tuple(copies.values()), load, now)
        if seconds > load.seconds * 1.2:
            longest = max(seconds, longest or 0.0)
    return longest


def _shares(total: int, parts: int) -> Sequence[int]:
    """Divide evenly.

    >>> _shares(7, 3)
    [3, 2, 2]
    """
    each, remainder = divmod(total, max(1, parts))
    return [each + (number < remainder) for number in range(parts)]
