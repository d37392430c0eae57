"""How the load is shared: few egresses are warmed, and none carries more than the others."""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush

import attrs
import pytest

from marketfetch.errors import ConfigurationError, ProxyError, TransportError
from marketfetch.ratelimit.budget import UNKNOWN_UNTIL_RESPONSE, RateBudget
from marketfetch.ratelimit.circuit_breaker import CircuitBreaker
from marketfetch.ratelimit.egress_queue import Claim, EgressQueue, EgressSlot
from marketfetch.ratelimit.server_clock import ServerClock
from marketfetch.values.http import LimitPool

WEIGHT = LimitPool("weight", 2400, 60_000, "sliding")


@attrs.define
class Run:
    """So many requests, so many at a time, through egresses that answer after `latency`."""

    queue: EgressQueue
    weight: int
    weights: Counter[int] = attrs.field(factory=Counter)
    connections: int = 0
    now: int = 0

    def requests(self, count: int, in_flight: int, latency: int = 100) -> None:
        returning: list[tuple[int, int, EgressSlot]] = []
        for number in range(count):
            while len(returning) >= in_flight or (slot := self.take()) is None:
                if returning:
                    self.now, _, back = heappop(returning)
                    back.release(self.weight, "", self.now, connection_kept=True)
                    self.queue.queue(back.number)
                else:
                    self.now = max(self.now, self.queue.soonest(self.weight, "", self.now))
            heappush(returning, (self.now + latency + slot.number % 3, number, slot))
        while returning:
            self.now, _, back = heappop(returning)
            back.release(self.weight, "", self.now, connection_kept=True)
            self.queue.queue(back.number)

    def take(self) -> EgressSlot | None:
        cold = {slot.number for slot in self.queue.slots if not slot.idle_connections}
        slot = self.queue.acquire(self.weight, "", self.now)
        if slot is not None:
            self.weights[slot.number] += self.weight
            self.connections += slot.number in cold
        return slot


def queue(egresses: int, pool: LimitPool = WEIGHT) -> EgressQueue:
    clock = ServerClock()
    return EgressQueue(
        pool, [EgressSlot(number, CircuitBreaker(), RateBudget(pool, clock)) for number in range(egresses)]
    )


@pytest.mark.parametrize("in_flight", [1, 2, 3, 4, 5, 20, 100])
@pytest.mark.parametrize("weight", [1, 2, 10])
def test_four_egresses_carry_a_quarter_each(in_flight: int, weight: int) -> None:
    run = Run(queue(4), weight)
    run.requests(3 * 2400 // weight, in_flight)
    shares = [run.weights[number] / run.weights.total() for number in range(4)]
    assert max(shares) < 0.35
    assert min(shares) > 0.15


def test_as_many_egresses_are_warmed_as_there_are_requests_in_flight() -> None:
    run = Run(queue(200), 2)
    run.requests(4000, in_flight=20)
    assert len(run.weights) <= 22
    assert run.connections <= 22


@pytest.mark.parametrize(("weight", "count"), [(2, 30_000), (10, 12_000)])
def test_connections_are_kept_when_the_load_moves_on(weight: int, count: int) -> None:
    run = Run(queue(200), weight)
    run.requests(count, in_flight=20)
    assert run.connections / count < 0.05


@pytest.mark.parametrize("egresses", [1, 3, 12])
def test_all_budgets_are_used_up(egresses: int) -> None:
    pool = LimitPool("calls", 20, 2_000)
    run = Run(queue(egresses, pool), 1)
    run.requests(10 * 20 * egresses, in_flight=50 * egresses, latency=10)
    assert run.now < 10 * 2_000


def test_a_lighter_cost_fits_where_a_heavier_did_not() -> None:
    desk = queue(1, LimitPool("calls", 10, 1_000))
    assert desk.acquire(6, "", 0)
    assert desk.acquire(6, "", 0) is None
    assert desk.acquire(4, "", 0) is None  # set aside for the heavier one
    assert desk.soonest(4, "", 0) == 0
    assert desk.acquire(4, "", 0)
    assert desk.soonest(4, "", 0) == UNKNOWN_UNTIL_RESPONSE


def test_a_paused_egress_is_passed_over_and_comes_back() -> None:
    desk = queue(2)
    desk.slots[0].breaker.failed(ProxyError("refused"), "", sent=0, now=0, jitter=1.0)
    desk.queue(0)
    taken = [desk.acquire(1, "", 10) for _ in range(3)]
    assert [slot.number for slot in taken if slot] == [1, 1, 1]
    back = desk.acquire(1, "", 1_000)
    assert back
    assert back.number == 0
    probe = desk.acquire(1, "", 1_000)  # one probe at a time
    assert probe
    assert probe.number == 1


def test_an_egress_that_fails_one_host_serves_another() -> None:
    desk = queue(1)
    for _ in range(2):
        desk.slots[0].breaker.failed(TransportError("cut"), "files", sent=0, now=0, jitter=1.0)
    assert desk.acquire(1, "files", 10) is None
    assert desk.soonest(1, "files", 10) == 1_000
    assert desk.soonest(1, "api", 10) == 10
    assert desk.acquire(1, "api", 10)
    assert desk.soonest(1, "files", 10) == 1_000  # its probe does not wait for the response of the API
    assert desk.acquire(1, "files", 1_000)
    assert desk.acquire(1, "files", 1_000) is None
    assert desk.soonest(1, "files", 1_000) == UNKNOWN_UNTIL_RESPONSE
    assert desk.soonest(1, "api", 1_000) == 1_000


def test_an_egress_serves_while_all_of_its_claims_are_valid() -> None:
    desk = queue(1)
    claims = [Claim(until=50), Claim(until=10)]
    desk.slots[0].claims = claims
    assert desk.acquire(1, "", 9)
    assert desk.acquire(1, "", 10) is None
    assert desk.soonest(1, "", 10) == UNKNOWN_UNTIL_RESPONSE
    claims[1].until = 40
    assert desk.soonest(1, "", 10) == 10
    assert desk.acquire(1, "", 10)


def test_a_cost_above_the_capacity_is_refused_and_harms_nobody() -> None:
    desk = queue(2)
    with pytest.raises(ConfigurationError, match="2401"):
        desk.acquire(2401, "", 0)
    assert desk.acquire(2400, "", 0)
    assert desk.acquire(2400, "", 0)


def test_requests_in_flight_are_counted_once_for_all_limit_pools() -> None:
    breakers = [CircuitBreaker(), CircuitBreaker()]
    weights, calls = (
        EgressQueue(
            pool,
            [EgressSlot(at, breaker, RateBudget(pool, ServerClock())) for at, breaker in enumerate(breakers)],
        )
        for pool in (WEIGHT, LimitPool("calls", 10, 60_000))
    )
    busy = weights.acquire(1, "", 0)
    assert busy
    assert [breaker.in_flight.total() for breaker in breakers] == [1, 0]
    calls.queue(busy.number)
    idle = calls.acquire(1, "", 0)
    assert idle
    assert idle.number != busy.number
    for slot in (busy, idle):
        slot.release(1, "", 5, connection_kept=True)
    assert [breaker.in_flight.total() for breaker in breakers] == [0, 0]


def test_the_queue_does_not_grow_without_bound() -> None:
    run = Run(queue(50), 1)
    run.requests(10_000, in_flight=5)
    for _ in range(10_000):
        run.queue.queue(7)
    assert len(run.queue._ready) <= 4 * 50 + 100


def test_all_slots_of_an_address_are_queued_again() -> None:
    """A proxy that is named by HTTP and by SOCKS is one address with two slots."""
    claim, budget = Claim(), RateBudget(WEIGHT, ServerClock())
    slots = [EgressSlot(number, CircuitBreaker(), budget, "proxy", [claim]) for number in range(2)]
    queue = EgressQueue(WEIGHT, slots)
    assert queue.acquire(weight=1, host="", now=0) is None
    claim.until = 50
    queue.queue_address("proxy")
    served = [queue.acquire(weight=1, host="", now=0) for _ in slots]
    assert {slot.number for slot in served if slot} == {0, 1}
