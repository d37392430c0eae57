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

HOST, FILES = "https://exchange.example", "https://files.example"


def fail(breaker: CircuitBreaker, now: int, error: Exception | None = None, host: str = HOST) -> int:
    """Let a request to a host fail; return when the egress is ready for the host again."""
    breaker.failed(error or ProxyError("refused"), host, sent=now, now=now, jitter=1.0)
    return breaker.ready_at(host, now)


def test_rests_grow_and_are_capped() -> None:
    breaker, now, pauses = CircuitBreaker(), 0, []
    for _ in range(9):
        ready = fail(breaker, now)
        pauses.append(ready - now)
        now = ready
    assert pauses == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]


@pytest.mark.parametrize(("jitter", "rest"), [(0.0, 500), (0.5, 750), (1.0, 1_000)])
def test_jitter_takes_up_to_half_of_a_rest_away(jitter: float, rest: int) -> None:
    breaker = CircuitBreaker()
    breaker.failed(ProxyError("refused"), HOST, sent=0, now=0, jitter=jitter)
    assert breaker.ready_at(HOST, 0) == rest


def test_one_broken_connection_is_forgiven() -> None:
    breaker = CircuitBreaker()
    assert fail(breaker, 0, TransportError("reset")) == 0
    breaker.succeeded(HOST)
    assert fail(breaker, 9, RequestTimeout("slow")) == 9
    assert fail(breaker, 10, TransportError("reset")) == 1_010


def test_a_burst_of_failures_is_one_incident() -> None:
    breaker = CircuitBreaker()
    for now in (100, 110, 120, 130):
        breaker.failed(ProxyError("refused"), HOST, sent=90, now=now, jitter=1.0)
    assert breaker.ready_at(HOST, 130) == 1_100
    assert not breaker.exhausted(HOST)


def test_after_a_rest_a_single_request_has_to_succeed() -> None:
    breaker = CircuitBreaker()
    ready = fail(breaker, 0)
    assert breaker.ready_at(HOST, ready) == ready
    breaker.in_flight[HOST] += 1
    assert breaker.ready_at(HOST, ready) == UNKNOWN_UNTIL_RESPONSE
    assert breaker.state(ready) == "circuit half-open"
    breaker.succeeded(HOST)
    assert breaker.ready_at(HOST, ready) == ready
    assert breaker.state(ready) == "ready"


def test_it_is_given_up_after_repeated_failure_and_comes_back_with_a_success() -> None:
    breaker, now = CircuitBreaker(), 0
    for _ in range(4):
        assert not breaker.exhausted(HOST)
        now = fail(breaker, now)
    assert breaker.exhausted(HOST)
    assert now < 60_000
    breaker.succeeded(HOST)
    assert not breaker.exhausted(HOST)


@pytest.mark.parametrize("error", [TransportError("cut"), RequestTimeout("slow")])
def test_a_host_that_breaks_connections_delays_no_other(error: Exception) -> None:
    breaker, now = CircuitBreaker(), 0
    for _ in range(8):
        now = fail(breaker, now, error, FILES)
        assert breaker.ready_at(HOST, now) == now
    assert breaker.exhausted(FILES)
    assert not breaker.exhausted(HOST)
    assert breaker.state(now - 1) == "circuit open 1 s for files.example"
    assert breaker.state(now) == "circuit half-open for files.example"
    assert breaker.causes(FILES) == [str(error)]
    assert breaker.causes(HOST) == []


def test_a_proxy_that_fails_fails_for_all_hosts() -> None:
    breaker, now = CircuitBreaker(), 0
    for _ in range(4):
        now = fail(breaker, now, ProxyError("refused"), FILES)
        assert breaker.ready_at(HOST, now - 1) == now
    assert breaker.exhausted(HOST)
    assert breaker.causes(HOST) == ["refused"]
    assert breaker.state(now) == "circuit half-open"


def test_a_response_shows_that_the_egress_works_but_nothing_of_other_hosts() -> None:
    breaker = CircuitBreaker()
    for _ in range(2):
        fail(breaker, 0, TransportError("cut"), FILES)
    fail(breaker, 1)
    assert breaker.state(1) == "circuit open 1 s"  # what concerns all hosts is said first
    breaker.succeeded(HOST)
    assert breaker.ready_at(HOST, 1) == 1
    assert breaker.ready_at(FILES, 1) == 1_000
    breaker.succeeded(FILES)
    assert breaker.ready_at(FILES, 1) == 1
    assert breaker.state(1) == "ready"


@pytest.mark.parametrize("error", [ProxyError("refused"), TransportError("cut")])
def test_a_probe_does_not_wait_for_traffic_to_another_host(error: Exception) -> None:
    breaker = CircuitBreaker()
    breaker.in_flight[FILES] += 1  # a long download
    fail(breaker, 0, error)
    ready = fail(breaker, 0, error)
    assert breaker.ready_at(HOST, ready) == ready
    breaker.in_flight[HOST] += 1
    assert breaker.ready_at(HOST, ready) == UNKNOWN_UNTIL_RESPONSE


def test_an_egress_with_a_request_in_flight_is_not_given_up() -> None:
    breaker, now = CircuitBreaker(), 0
    breaker.in_flight[FILES] += 1
    for _ in range(4):
        now = fail(breaker, now)
    assert not breaker.exhausted(HOST)  # the download may still show that the proxy works
    breaker.in_flight[FILES] -= 1
    assert breaker.exhausted(HOST)
    breaker.succeeded(HOST)
    breaker.in_flight[FILES] += 1
    for _ in range(8):
        now = fail(breaker, now, TransportError("cut"))
    assert breaker.exhausted(HOST)  # a download from another host says nothing of this one


def test_connections_that_break_when_a_proxy_dies_are_the_same_incident() -> None:
    breaker = CircuitBreaker()
    breaker.failed(ProxyError("refused"), HOST, sent=90, now=100, jitter=1.0)
    for _ in range(8):
        breaker.failed(TransportError("reset"), HOST, sent=90, now=110, jitter=1.0)
    breaker.succeeded(FILES)
    assert breaker.ready_at(HOST, 110) == 110


def test_a_state_shows_no_credential_of_a_host() -> None:
    breaker = CircuitBreaker()
    for _ in range(2):
        fail(breaker, 0, TransportError("cut"), "https://anna:hunter2@files.example")
    assert breaker.state(0) == "circuit open 1 s for ***@files.example"


@pytest.mark.parametrize("error", [BadSymbol("X"), RestrictedLocation("451"), DecodeError("html")])
def test_what_is_no_fault_of_the_egress_changes_nothing(error: Exception) -> None:
    breaker = CircuitBreaker()
    for now in range(20):
        assert fail(breaker, now, error) == now


def test_a_ban_lasts_until_the_named_moment_and_for_that_host_only() -> None:
    breaker = CircuitBreaker()
    breaker.bans.add(Banned("418", until=1_780_272_090_000), HOST, now=1_780_272_030_000)
    assert breaker.ready_at(HOST, 1_780_272_030_000) == 1_780_272_090_000
    assert breaker.ready_at("https://other.example", 1_780_272_030_000) == 1_780_272_030_000
    assert breaker.state(1_780_272_030_000) == "banned until 2026-06-01T00:01:30Z by exchange.example"
    assert breaker.state(1_780_272_090_000) == "ready"


def test_bans_without_a_moment_grow() -> None:
    breaker, now, lengths = CircuitBreaker(), 0, []
    for _ in range(13):
        breaker.bans.add(Banned("418"), HOST, now)
        lengths.append(breaker.ready_at(HOST, now) - now)
        now += lengths[-1]
    assert lengths[:3] == [120_000, 240_000, 480_000]
    assert lengths[-1] == 3 * 86_400_000
