"""Values cross processes: they are pickled and come back equal; a clock is that of the process it is in."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest

import marketfetch.errors
from marketfetch.errors import Banned, ConfigurationError, MarketfetchError, RateLimitExceeded
from marketfetch.reports import EgressReport, Missing, Report, SeriesReport
from marketfetch.values.coverage import Coverage
from marketfetch.values.instruments import Composite, Instrument
from marketfetch.values.query import AllSymbols, Query
from marketfetch.values.series import Series
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.slices import Slice
from marketfetch.values.spans import Span, SpanSet

SERIES = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1M")
HOLE = SpanSet.of(Span(0, 10), Span(20, 30))
LINE = SeriesReport(SERIES, Span(0, 30), 7, HOLE, HOLE, (Missing(HOLE, "why"),), {"impossible": 2})

VALUES: dict[str, Any] = {
    "settings": Settings(concurrency=3, retries=RetryPolicy(attempts=2), deadline=5.5),
    "query": Query(
        symbols=AllSymbols(quote="USDT"),
        datasets=["ohlcv", "funding_rate"],
        interval="1M",
        start="2026-06-01",
        composites=[Composite("MT", ("BTCUSDT", "ETHUSDT"))],
    ),
    "series": SERIES,
    "events": Series.of("okx", "funding_rate", "BTC-USDT-SWAP", "event"),
    "coverage": Coverage(SpanSet.of(Span(0, 40)), HOLE),
    "slice": Slice(SERIES, Span(0, 30), 5, absent_once=HOLE, bad_answers=1, cursor="x"),
    "instrument": Instrument("BTCUSDT", "BTC", "USDT", "USDT", listed_at=5),
    "report": Report((LINE,), (EgressReport("Direct", 3),), 7, 3, {"RequestTimeout": 1}, 0.5, {"X": "hint"}),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_value_comes_back_equal(name: str, protocol: int) -> None:
    value = VALUES[name]
    back = pickle.loads(pickle.dumps(value, protocol))
    assert back == value
    assert type(back) is type(value)
    assert copy.deepcopy(value) == value


@pytest.mark.parametrize(
    "name", [name for name in marketfetch.errors.__all__ if name not in {"unknown", "wrong_kind"}]
)
def test_an_error_comes_back_with_all_that_it_knows(name: str) -> None:
    kind: type[MarketfetchError] = getattr(marketfetch.errors, name)
    error = kind("text")
    for attribute, value in (("egress", "Proxy 1"), ("attempt", 3), ("report", VALUES["report"])):
        setattr(error, attribute, value)
    error.add_note("at the same time: another")
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), back.args, vars(back)) == (kind, error.args, vars(error))


def test_an_error_with_a_wait_keeps_it() -> None:
    assert pickle.loads(pickle.dumps(RateLimitExceeded("slow", retry_after=7.0))).retry_after == 7.0
    assert pickle.loads(pickle.dumps(Banned("out", until=5))).until == 5


CHILD = """
import pickle, sys, time

# This process runs on another machine: a later time of day, and a shorter time since its start.
ahead, behind = 100_000 * 10**9, 3_000 * 10**9
real = {name: getattr(time, name) for name in ("time_ns", "monotonic_ns", "clock_gettime_ns")}
time.time_ns = lambda: real["time_ns"]() + ahead
time.monotonic_ns = lambda: real["monotonic_ns"]() - behind
time.clock_gettime_ns = lambda clock: real["clock_gettime_ns"](clock) - behind

settings, series, query = pickle.load(sys.stdin.buffer)
print(settings.clock() - time.time_ns() // 1_000_000)
# The hash of a text differs from process to process: a stored one would be wrong.
from marketfetch.values.series import Series
print({series: "found"}.get(Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1M")))
print(query.interval.name, settings.concurrency)
"""


def test_settings_that_cross_to_another_machine_have_the_clock_of_that_machine() -> None:
    sent = pickle.dumps((VALUES["settings"], SERIES, VALUES["query"]))
    child = subprocess.run(
        [sys.executable, "-c", CHILD], input=sent, capture_output=True, check=False, timeout=250
    )
    assert child.returncode == 0, child.stderr.decode()
    off, found, names = child.stdout.decode().split("\n")[:3]
    assert abs(int(off)) < 10_000
    assert found == "found"
    assert names == "1M 3"


def noon() -> int:
    return 1_790_000_000_000


def test_a_clock_of_the_callers_own_crosses_where_it_can_be_found_by_name() -> None:
    assert pickle.loads(pickle.dumps(Settings(clock=noon))).clock is noon


@pytest.mark.parametrize("kind", ["lambda", "inner", "unpicklable"])
def test_a_clock_that_cannot_cross_is_named(kind: str) -> None:
    def inner() -> int:
        return 5

    class Unpicklable:
        def __call__(self) -> int:
            return 5

    clocks: dict[str, Any] = {"lambda": lambda: 5, "inner": inner, "unpicklable": Unpicklable()}
    settings = Settings(clock=clocks[kind])
    with pytest.raises(ConfigurationError, match=r"^clock: .* cannot be sent to another process"):
        pickle.dumps(settings)
    assert copy.deepcopy(settings) == settings == copy.copy(settings)  # nothing is sent anywhere
