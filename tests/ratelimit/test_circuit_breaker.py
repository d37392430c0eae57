from __future__ import annotations

import pytest

from marketfetch.errors import (
    BadSymbol,
    Banned,
    DecodeError,
    ProxyError,
    RequestTimeout,
    RestrictedLocation,
    TransportError,
)
from marketfetch.ratelimit.budget import UNKNOWN_UNTIL_RESPONSE
from marketfetch.ratelimit.circuit_breaker import CircuitBreaker

HOST = "https://exchange.example"


def fail(breaker: CircuitBreaker, now: int, error: Exception | None = None) -> int:
    """Let a request fail; return when the egress is ready again."""
    breaker.failed(error or ProxyError("refused"), sent=now, now=now, jitter=1.0)
    return breaker.ready_at(HOST, now)


def test_rests_grow_and_are_capped() -> None:
    breaker, now, rests = CircuitBreaker(), 0, []
    for _ in range(9):
        ready = fail(breaker, now)
        rests.append(ready - now)
        now = ready
    assert rests == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]


@pytest.mark.parametrize(("jitter", "rest"), [(0.0, 500), (0.5, 750), (1.0, 1_000)])
def test_jitter_takes_up_to_half_of_a_rest_away(jitter: float, rest: int) -> None:
    breaker = CircuitBreaker()
    breaker.failed(ProxyError("refused"), sent=0, now=0, jitter=jitter)
    assert breaker.ready_at(HOST, 0) == rest


def test_one_broken_connection_is_forgiven() -> None:
    breaker = CircuitBreaker()
    assert fail(breaker, 0, TransportError("reset")) == 0
    breaker.succeeded()
    assert fail(breaker, 9, RequestTimeout("slow")) == 9
    assert fail(breaker, 10, TransportError("reset")) == 1_010


def test_a_burst_of_failures_is_one_incident() -> None:
    breaker = CircuitBreaker()
    for now in (100, 110, 120, 130):
        breaker.failed(ProxyError("refused"), sent=90, now=now, jitter=1.0)
    assert breaker.ready_at(HOST, 130) == 1_100
    assert not breaker.exhausted


def test_after_a_rest_a_single_request_has_to_succeed() -> None:
    breaker = CircuitBreaker()
    ready = fail(breaker, 0)
    assert breaker.ready_at(HOST, ready) == ready
    breaker.in_flight += 1
    assert breaker.ready_at(HOST, ready) == UNKNOWN_UNTIL_RESPONSE
    assert breaker.state(ready) == "on probation"
    breaker.succeeded()
    assert breaker.ready_at(HOST, ready) == ready
    assert breaker.state(ready) == "ready"


def test_it_is_given_up_after_repeated_failure_and_comes_back_with_a_success() -> None:
    breaker, now = CircuitBreaker(), 0
    for _ in range(4):
        assert not breaker.exhausted
        now = fail(breaker, now)
    assert breaker.exhausted
    assert now < 60_000
    breaker.succeeded()
    assert not breaker.exhausted


@pytest.mark.parametrize("error", [BadSymbol("X"), RestrictedLocation("451"), DecodeError("html")])
def test_what_is_no_fault_of_the_egress_changes_nothing(error: Exception) -> None:
    breaker = CircuitBreaker()
    for now in range(20):
        assert fail(breaker, now, error) == now


def test_a_ban_lasts_until_the_named_moment_and_for_that_host_only() -> None:
    breaker = CircuitBreaker()
    breaker.banned(Banned("418", until=1_780_272_090_000), HOST, now=1_780_272_030_000)
    assert breaker.ready_at(HOST, 1_780_272_030_000) == 1_780_272_090_000
    assert breaker.ready_at("https://other.example", 1_780_272_030_000) == 1_780_272_030_000
    assert breaker.state(1_780_272_030_000) == "banned until 2026-06-01T00:01:30Z"
    assert breaker.state(1_780_272_090_000) == "ready"


def test_bans_without_a_moment_grow() -> None:
    breaker, now, lengths = CircuitBreaker(), 0, []
    for _ in range(13):
        breaker.banned(Banned("418"), HOST, now)
        lengths.append(breaker.ready_at(HOST, now) - now)
        now += lengths[-1]
    assert lengths[:3] == [120_000, 240_000, 480_000]
    assert lengths[-1] == 3 * 86_400_000
