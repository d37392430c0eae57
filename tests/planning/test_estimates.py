"""Estimates of time and shares: what must hold for any budgets, and waits that can be computed by hand."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfetch.planning.batches import BatchSizing, Capacity, FetchTask
from marketfetch.planning.estimates import TaskEstimate, estimate_limit, estimate_task
from marketfetch.planning.paginators import CursorPaginator
from marketfetch.plans import LimitPlan
from marketfetch.ratelimit.budget import RateBudget
from marketfetch.ratelimit.server_clock import ServerClock
from marketfetch.values.http import Cost, LimitPool
from marketfetch.values.series import Series
from marketfetch.values.spans import DAY, Span, SpanSet

POOL = LimitPool("weight", 2400, 60_000, "clock")
FUNDING = Series.of("binance-usdm", "funding_rate", "BTCUSDT", "event")


LATENCY = 0.1


def limit(requests: int, *, egresses: int = 1, used: int = 0, refill: float = 60.0) -> LimitPlan:
    """Plan requests of weight 2 that begin `refill` seconds before a minute of the exchange ends."""
    clock, now = ServerClock(), 60_000 - round(1000 * refill)
    clock.observe(now, now, now, exact=True)
    budgets = {f"Proxy {number}": RateBudget(POOL, clock) for number in range(egresses)}
    for budget in budgets.values():
        budget.charge(used, now)
    estimate = TaskEstimate(0, Counter({Cost(POOL, 2): requests}))
    return estimate_limit(POOL, estimate, budgets, Capacity(egresses, 20, LATENCY), now)


@settings(max_examples=25)  # each walks through thousands of groups, three times
@given(st.integers(1, 100_000), st.integers(1, 50), st.integers(0, 2388), st.floats(0.0, 60.0))
def test_shares_add_up_and_what_is_spent_never_makes_a_plan_shorter(
    requests: int, egresses: int, used: int, refill: float
) -> None:
    plan = limit(requests, egresses=egresses, used=used, refill=refill)
    assert sum(egress.requests for egress in plan.egresses) == plan.requests == requests
    assert sum(egress.weight for egress in plan.egresses) == plan.weight == 2 * requests
    # Requests are sent in groups, so the last one may end a round trip sooner or later.
    assert plan.seconds + LATENCY >= limit(requests, egresses=egresses, refill=refill).seconds
    assert plan.seconds + LATENCY >= limit(requests, egresses=egresses + 1, refill=refill).seconds or used


@pytest.mark.parametrize(
    ("requests", "used", "waits"),
    [(1194, 0, 0), (1195, 0, 1), (2388, 0, 1), (2389, 0, 2), (1, 2388, 1), (1194, 2388, 1)],
)
def test_each_window_that_is_full_is_waited_for(requests: int, used: int, waits: int) -> None:
    seconds = limit(requests, used=used, refill=10.0).seconds
    waited = 0 if not waits else 10 + 60 * (waits - 1)
    assert waited <= seconds <= waited + 7  # 1194 requests take 6 s of round trips and 0.6 s of work


def test_a_request_fits_into_the_share_of_an_address_that_many_processes_have() -> None:
    pool = LimitPool("weight", 100, 60_000)
    budgets = {"Direct": RateBudget(pool, ServerClock())}
    estimate = TaskEstimate(0, Counter({Cost(pool, 40): 2}))
    plan = estimate_limit(pool, estimate, budgets, Capacity(0.05, 20, 0.1), now=0)
    assert plan.weight == 80
    assert plan.seconds >= 60  # of each period there is one share, which is one request


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(2, 50))
def test_a_long_chain_is_counted_as_one_that_is_followed(years: int, size: int) -> None:
    span = Span(0, years * 365 * DAY)
    task = FetchTask(FUNDING, SpanSet.of(span), CursorPaginator(), size)
    found = estimate_task(task, BatchSizing(8000), lambda _: Cost(POOL), event_spacing=DAY // 3)
    assert found.rows == years * 365 * 3
    # Every page but the last repeats one event, and two answers without events end the chain.
    assert found.requests.total() == pytest.approx((found.rows - 1) / (size - 1) + 2, abs=2)
