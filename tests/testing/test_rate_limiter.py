from __future__ import annotations

import pytest

from marketfetch.testing.venues.rate_limiter import LimitRules, RateLimiter, RequestCost, kline_weight

START = 1_700_000_040_000
"""A whole minute."""


@pytest.mark.parametrize(
    ("limit", "documented", "measured"),
    [
        (1, 1, 1),
        (99, 1, 1),
        (100, 2, 1),
        (101, 2, 2),
        (499, 2, 2),
        (500, 5, 2),
        (501, 5, 5),
        (1000, 5, 5),
        (1001, 10, 10),
        (1500, 10, 10),
        (1501, 10, 10),
        (None, 5, 5),
    ],
)
def test_kline_weights(limit: int | None, documented: int, measured: int) -> None:
    assert kline_weight(limit, "documented") == documented
    assert kline_weight(limit, "measured") == measured


def test_a_budget_is_used_up_refuses_and_comes_back_with_the_next_minute() -> None:
    rules = LimitRules(futures_weight=10)
    limiter = RateLimiter(rules)
    five = RequestCost(rules.futures, 5)
    assert [limiter.charge("a", five, START + 100 * n).used for n in range(2)] == [5, 10]
    refused = limiter.charge("a", five, START + 30_500)
    assert refused.refused
    assert refused.retry_at == START + 60_000
    assert refused.retry_after(START + 30_500) == 30
    assert not limiter.charge("b", five, START + 30_500).refused
    assert not limiter.charge("a", RequestCost(rules.spot, 5), START + 30_500).refused
    assert limiter.charge("a", five, START + 60_000).used == 5


def test_who_keeps_calling_is_banned_and_longer_each_time() -> None:
    rules = LimitRules(futures_weight=1, ban_after=3)
    limiter = RateLimiter(rules)
    one = RequestCost(rules.futures, 1)
    verdicts = [limiter.charge("a", one, START) for _ in range(4)]
    assert [verdict.retry_at is not None for verdict in verdicts] == [False, True, True, False]
    assert verdicts[3].banned_until == START + 120_000
    assert (
        limiter.charge("a", RequestCost(rules.usdm_funding, 1), START + 119_999).banned_until
        == START + 120_000
    )
    free = START + 120_000
    assert not limiter.charge("a", one, free).refused
    assert [limiter.charge("a", one, free) for _ in range(3)][-1].banned_until == free + 240_000


def test_a_sliding_window_looks_back_from_every_request() -> None:
    rules = LimitRules()
    limiter = RateLimiter(rules)
    one = RequestCost(rules.okx("candles", 2), 1)
    assert [limiter.charge("a", one, START + at).refused for at in (0, 1500, 1900)] == [False, False, True]
    assert limiter.charge("a", one, START + 1900).retry_at == START + 2000
    assert [limiter.charge("a", one, START + at).refused for at in (2000, 2100, 3500)] == [False, True, False]
    assert not any(limiter.charge("a", one, START + 3600).banned_until for _ in range(50))


def test_scopes_are_counted_apart() -> None:
    rules = LimitRules()
    limiter = RateLimiter(rules)
    pool = rules.okx("funding", 1)
    assert not limiter.charge("a", RequestCost(pool, 1, "BTC"), START).refused
    assert not limiter.charge("a", RequestCost(pool, 1, "ETH"), START).refused
    assert limiter.charge("a", RequestCost(pool, 1, "BTC"), START).refused


def test_a_minute_can_be_shortened() -> None:
    rules = LimitRules(period_scale=1 / 30, futures_weight=1)
    limiter = RateLimiter(rules)
    one = RequestCost(rules.futures, 1)
    assert [limiter.charge("a", one, START + at).refused for at in (0, 1999, 2000)] == [False, True, False]
