"""Plans against what their runs did: requests and weight within 2 %, seconds within 20 %.

The jobs are bound by different things: round trips, the budgets of one and of three addresses, the processor.
A rate limit minute lasts 15 s. In a shorter one, the last request of a budget is often sent so near its end
that chance decides whether the rest waits for one more.
"""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import attrs

from benchmarks.harness.exchange import Options, exchange, symbols
from benchmarks.harness.results import Result, at_most, without_bar
from benchmarks.harness.venue import scaled, unlimited
from marketfetch.api.pipeline import Pipeline
from marketfetch.plans import PlanComparison
from marketfetch.proxies.pool import RotatingProxies
from marketfetch.sinks.memory import MemorySink
from marketfetch.values.query import Query
from marketfetch.values.settings import Settings

__all__ = ["plans"]

_START, _MINUTE = 1_609_459_200_000, 60_000
_BUDGET_ROWS = 499 * 2400 // 2
"""The most rows for the budget of one address and minute."""


@attrs.frozen
class _Job:
    """So many 1m candles of so many symbols, from an exchange with these options."""

    options: Options
    rows: int
    gaps: bool = False
    """Whether the store has every other tenth of the span already."""


def plans() -> Iterator[Result]:
    """Plan and run six jobs; the deviations are of what happened."""
    jobs = {
        "round trips": _Job(Options(symbols=symbols(20), latency=0.1), 2_000_000),
        "one symbol": _Job(Options(symbols=symbols(1), latency=0.1), 400_000),
        "a store with gaps": _Job(Options(symbols=symbols(10), latency=0.1), 1_000_000, gaps=True),
        "budget of one address": _Job(
            Options(symbols=symbols(20), minute=15, proxies=1), _BUDGET_ROWS * 5 // 2
        ),
        "budgets of three addresses": _Job(
            Options(symbols=symbols(20), minute=15, proxies=3), 3 * _BUDGET_ROWS * 5 // 2
        ),
        "processor": _Job(Options(symbols=symbols(20)), 4_000_000),
    }
    for name, job in jobs.items():
        found = _planned(job)
        planned, actual = found.plan.total, found.actual
        yield at_most(f"{name}: requests off", _off(planned.requests, actual.requests), 2, " %")
        yield at_most(f"{name}: weight off", _off(planned.weight, actual.weight), 2, " %")
        yield at_most(f"{name}: seconds off", _off(found.plan.seconds, found.seconds), 20, " %")
        yield without_bar(f"{name}: seconds", found.seconds, " s")


def _planned(job: _Job) -> PlanComparison:
    options, store = job.options, MemorySink()
    span = job.rows // len(options.symbols) * _MINUTE
    with exchange(options) as running:
        venue = (scaled(options.minute) if options.minute else unlimited())(running.base_url)
        pool = RotatingProxies(running.proxies, direct=not running.proxies)

        def pipeline(start: int, end: int) -> Pipeline:
            query = Query(symbols=options.symbols, start=start, end=end)
            return Pipeline(venue, query, store, proxies=pool, settings=Settings(heartbeat=60), board=None)

        async def both() -> PlanComparison | None:
            if job.gaps:
                for tenth in range(1, 10, 2):
                    start = _START + tenth * span // 10
                    await pipeline(start, start + span // 10).run()
            whole = pipeline(_START, _START + span)
            await whole.plan()
            return (await whole.run()).plan

        found = anyio.run(both)
    assert found is not None
    return found


def _off(planned: float, actual: float) -> float:
    """Return by how many percent a plan is off what happened."""
    return abs(planned - actual) / actual * 100
