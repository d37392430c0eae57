"""A forecast against a discrete simulation: workers, budgets and an exchange on a virtual clock."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Sequence
from heapq import heappop, heappush

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketfetch.ratelimit.budget import RateBudget
from marketfetch.ratelimit.circuit_breaker import CircuitBreaker
from marketfetch.ratelimit.egress_queue import EgressQueue, EgressSlot
from marketfetch.ratelimit.forecast import Load, estimate_seconds, forecast
from marketfetch.ratelimit.server_clock import ServerClock
from marketfetch.values.http import Burst, LimitPool

START = 1_780_272_000_000  # a full minute


@attrs.frozen
class Job:
    """Requests of these weights, through so many egresses with so many workers."""

    pool: LimitPool
    weights: Sequence[int]
    egresses: int = 1
    concurrency: int = 20
    latency: int = 100
    work: float = 0.0
    """Milliseconds of the processor for each answer; one answer at a time."""
    into_window: int = 0
    """How long ago the window of the exchange began."""
    skew: int = 0
    """How far the exchange's clock is ahead of ours."""
    spent: int = 0
    """What each egress has spent just now."""

    @property
    def load(self) -> Load:
        trips = -(-len(self.weights) // self.concurrency)
        seconds = (trips * self.latency + len(self.weights) * self.work) / 1000
        return Load(len(self.weights), sum(self.weights), seconds, self.latency / 1000, self.concurrency)

    @property
    def start(self) -> int:
        return START + self.into_window - self.skew

    def budgets(self) -> list[RateBudget]:
        clock = ServerClock()
        clock.observe(self.start - 8, self.start, self.start - 4 + self.skew, exact=True)
        budgets = [RateBudget(self.pool, clock) for _ in range(self.egresses)]
        for budget in budgets:
            if self.spent:
                budget.charge(self.spent, self.start)
        return budgets


class Exchange:
    """Counts the weight of each address by its own clock, as published."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.counts = Counter[tuple[int, int]]()
        self.recent: dict[int, deque[tuple[int, int]]] = {}
        for egress in range(job.egresses):
            self.count(egress, job.spent, job.start)

    def count(self, egress: int, weight: int, local: int) -> int:
        pool, now = self.job.pool, local + self.job.skew
        if pool.window == "clock":
            self.counts[egress, now // pool.period] += weight
            used = self.counts[egress, now // pool.period]
        else:
            recent = self.recent.setdefault(egress, deque())
            recent.append((now, weight))
            while recent[0][0] <= now - pool.period:
                recent.popleft()
            used = sum(each for _, each in recent)
        assert used <= pool.capacity
        return used


def simulated(job: Job) -> float:
    """Return the seconds until the last answer, request by request."""
    slots = [EgressSlot(n, CircuitBreaker(), budget) for n, budget in enumerate(job.budgets())]
    queue, exchange = EgressQueue(job.pool, slots), Exchange(job)
    returning: list[tuple[int, int, int, int, EgressSlot]] = []
    now, processor = job.start, float(job.start)

    def receive() -> None:
        nonlocal now, processor
        received, _, sent, weight, slot = heappop(returning)
        now = max(now, received)
        used = exchange.count(slot.number, weight, (sent + received) // 2)
        slot.release(weight, "", now, connection_kept=True)
        slot.budget.sync_with_header(used if job.pool.used_header else None, sent, now)
        queue.queue(slot.number)
        processor = max(processor, now) + job.work
        now = max(now, round(processor))  # the one thread does nothing else meanwhile

    for number, weight in enumerate(job.weights):
        while len(returning) >= job.concurrency or (slot := queue.acquire(weight, "", now)) is None:
            moment = queue.soonest(weight, "", now) if len(returning) < job.concurrency else now + 10**9
            if moment <= now:
                continue
            if returning and returning[0][0] <= moment:
                receive()
            else:
                now = moment
        heappush(returning, (now + job.latency, number, now, weight, slot))
    while returning:
        receive()
    return (now - job.start) / 1000


def limit(capacity: int, period: int, window: str, *, header: bool) -> LimitPool:
    return LimitPool("calls", capacity, period, window, "used" if header else None)  # type: ignore[arg-type]


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    capacity = draw(st.sampled_from([20, 40, 300, 600]))
    period = draw(st.sampled_from([2_000, 5_000, 60_000, 300_000]))
    window = draw(st.sampled_from(["clock", "sliding"]))
    pool = limit(capacity, period, window, header=window == "clock" and draw(st.booleans()))
    # How unequal requests fill a small window depends on their order, which a forecast does not know.
    kinds = draw(st.lists(st.integers(1, 10), min_size=1, max_size=1 if capacity < 300 else 3))
    egresses = draw(st.integers(1, 4))
    each = sum(kinds) / len(kinds)
    most = min(800, round(5 * egresses * capacity / each))
    requests = draw(st.integers(1, max(1, most)))
    weights = random.Random(draw(st.integers(0, 99))).choices(kinds, k=requests)
    latency, concurrency = draw(st.integers(5, 400)), draw(st.integers(1, 30))
    return Job(
        pool,
        weights,
        egresses,
        concurrency,
        latency,
        draw(st.floats(0.0, 0.1)) * latency / concurrency,
        draw(st.integers(0, period - 1)),
        draw(st.integers(-2_000, 2_000)),
        draw(st.integers(0, capacity * 99 // 100)),
    )


def assert_near(job: Job) -> None:
    """Within 20 %; where a few requests more would have to wait for another window, of either case."""
    foreseen, some = forecast(job.budgets(), job.load, job.start), -(-len(job.weights) // 20)
    fewer = simulated(attrs.evolve(job, weights=job.weights[some:]))
    more = simulated(attrs.evolve(job, weights=[*job.weights, *job.weights[:some]]))
    slack = 3 * job.latency / 1000 + 0.05
    assert 0.8 * fewer - slack <= foreseen <= 1.2 * more + slack


@settings(max_examples=40, deadline=None)
@given(jobs())
def test_a_forecast_is_near_what_happens(job: Job) -> None:
    assert_near(job)


@pytest.mark.parametrize("into_window", range(0, 5_000, 500))
@pytest.mark.parametrize("egresses", [1, 3])
def test_a_window_that_begins_during_the_first_group_is_filled_as_well(
    into_window: int, egresses: int
) -> None:
    """2.5 windows of requests: where the first group goes on into the next window, it leaves less room."""
    pool = limit(600, 5_000, "clock", header=True)
    assert_near(Job(pool, [2] * (746 * egresses), egresses, latency=1, work=3.0, into_window=into_window))


def test_a_long_load_goes_on_as_it_began() -> None:
    pool = limit(2400, 60_000, "clock", header=True)
    load = Load(requests=1_000_000, weight=2_000_000, seconds=5_000.0, latency=0.1, concurrency=20)
    budgets = Job(pool, [2]).budgets()
    assert forecast(budgets, load, START) == pytest.approx(60 * 2_000_000 / 2388, rel=0.02)


@pytest.mark.parametrize("spent", [0, 100])
@pytest.mark.parametrize("weight", [1, 3])
def test_the_limit_of_the_shorter_period_is_waited_for(weight: int, spent: int) -> None:
    """More requests in flight than the shorter period allows, also in a budget that was copied amid a run."""
    pool = LimitPool("calls", 300, 60_000, burst=Burst(10, 1000))
    job = Job(pool, [weight] * 60, spent=spent)
    budgets = [budget.copy(job.start) for budget in job.budgets()]
    assert forecast(budgets, job.load, job.start) == pytest.approx(simulated(job), rel=0.2, abs=1.0)


def test_without_a_budget_no_limit_delays_a_load() -> None:
    load = Load(requests=10, weight=10, seconds=1.5, latency=0.1, concurrency=2)
    assert forecast([], load, START) == estimate_seconds([], load, START) == 1.5


@settings(deadline=None)
@given(jobs())
def test_a_rough_forecast_is_a_period_off_at_most(job: Job) -> None:
    foreseen, rough = (each(job.budgets(), job.load, job.start) for each in (forecast, estimate_seconds))
    assert rough == pytest.approx(foreseen, rel=0.2, abs=1.1 * job.pool.period / 1000 + 1.0)


def test_a_rough_forecast_waits_for_what_is_spent_and_for_pauses() -> None:
    job = Job(
        limit(1000, 60_000, "clock", header=True), [1] * 1_500, egresses=2, into_window=20_000, spent=495
    )
    assert estimate_seconds(job.budgets(), job.load, job.start) == pytest.approx(
        40 + job.load.seconds / 3, abs=0.1
    )
    budgets = job.budgets()
    for budget in budgets:
        budget.block_until(job.start + 100_000)
    assert estimate_seconds(budgets, job.load, job.start) == pytest.approx(100 + job.load.seconds)


@pytest.mark.parametrize("egresses", [3, 10])
@pytest.mark.parametrize("pause", [3_600_000, 86_400_000])
def test_a_rough_forecast_does_not_wait_for_an_egress_that_rests_for_long(egresses: int, pause: int) -> None:
    job = Job(limit(1000, 60_000, "clock", header=True), [1] * (3_000 * egresses), egresses=egresses)
    rested = job.budgets()
    rested[0].block_until(job.start + pause)
    others = attrs.evolve(job, egresses=egresses - 1).budgets()
    expected = estimate_seconds(others, job.load, job.start)
    assert estimate_seconds(rested, job.load, job.start) == pytest.approx(expected, abs=60)


@pytest.mark.parametrize("requests", [300, 600, 1_200])
def test_a_rough_forecast_knows_the_limit_of_the_shorter_period(requests: int) -> None:
    job = Job(LimitPool("calls", 600, 60_000, burst=Burst(10, 1000)), [1] * requests)
    foreseen = forecast(job.budgets(), job.load, job.start)
    assert estimate_seconds(job.budgets(), job.load, job.start) == pytest.approx(foreseen, rel=0.1)


def test_a_rough_forecast_looks_at_no_request() -> None:
    """A run asks for it at every heartbeat, on its event loop."""
    job = Job(limit(2_400, 60_000, "clock", header=True), [2])
    load = Load(10**9, 2 * 10**9, seconds=5_000_000.0, latency=0.1, concurrency=20)
    assert estimate_seconds(job.budgets(), load, START) == pytest.approx(60 * 2 * 10**9 / 2388, rel=0.01)
