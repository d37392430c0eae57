"""Plans the tasks of a round: what is missing of each series, in pages of the size that is fastest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from marketfetch.engine.state import SeriesState
from marketfetch.exchange import Exchange
from marketfetch.planning.batches import Capacity, FetchTask, choose_page_size
from marketfetch.sources import Endpoint
from marketfetch.values.series import Series
from marketfetch.values.spans import Span, SpanSet

__all__ = ["plan_tasks"]


def plan_tasks(states: Sequence[SeriesState], exchange: Exchange, capacity: Capacity) -> list[FetchTask]:
    """Return a task for every series that is missing something, with the page size that is fastest.

    The page size is chosen for all missing rows of a limit pool together.
    """
    incomplete = [
        (state.series, missing, exchange.endpoint(state.series.dataset))
        for state in states
        if (missing := state.missing)
    ]
    rows = Counter[str]()
    for series, missing, endpoint in incomplete:
        # The number of missing events is not known: it counts as zero.
        rows[_pool(endpoint)] += (
            0 if endpoint.paginator.sequential else sum(map(series.interval.count, missing))
        )
    sizes = dict[Endpoint, int]()
    for _, _, endpoint in incomplete:
        if endpoint.paginator.sequential:
            sizes[endpoint] = endpoint.page_sizes[-1]
        elif endpoint not in sizes:
            among = rows[_pool(endpoint)]
            sizes[endpoint] = choose_page_size(endpoint.page_sizes, endpoint.cost, among, capacity)
    return [
        FetchTask(series, _whole_steps(series, missing), endpoint.paginator, sizes[endpoint])
        for series, missing, endpoint in incomplete
    ]


def _whole_steps(series: Series, missing: SpanSet) -> SpanSet:
    """Return what is missing in whole steps of the grid: a request for a part of a candle finds nothing.

    Example: a store of an earlier version calls 05:00-05:57 of a candle of 1h empty: 05:00-06:00 is fetched.
    """
    interval = series.interval
    if interval.is_event:
        return missing
    return SpanSet.of(*(Span(interval.floor(span.start), interval.ceil(span.end)) for span in missing))


def _pool(endpoint: Endpoint) -> str:
    return endpoint.cost(endpoint.page_sizes[-1]).pool.name
