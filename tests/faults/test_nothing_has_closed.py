"""A span in which nothing has closed yet: complete, for nothing is missing, and the report says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from marketfetch.cli.documents import to_text
from marketfetch.cli.report_view import report_page
from marketfetch.errors import ConfigurationError
from marketfetch.listeners.text import headline
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.values.instruments import Composite
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span
from marketfetch.values.times import parse_time
from tests.support.worlds import DAY, HOUR, World, run

FRIDAY = parse_time("now", "2026-06-19T10:20:00Z", 0)
NOTHING = "nothing has closed in this span yet"


@pytest.fixture
def world() -> Iterator[World]:
    options = SimulatorOptions(limits=None, now=lambda: FRIDAY)
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT", "XRPUSDT"], seed=6), options) as exchange:
        yield World(exchange, settings=Settings(clock=lambda: FRIDAY))


@pytest.mark.parametrize(
    ("interval", "start", "end"),
    [
        ("1w", "4d", "now"),
        ("1M", "10d", "now"),
        ("1d", FRIDAY - 9 * HOUR, "now"),
        ("1h", FRIDAY - 19 * 60_000, "now"),
        ("1h", FRIDAY - 18 * 60_000, FRIDAY - 60_000),
        ("1w", "2026-06-02", "2026-06-07"),
    ],
)
def test_it_is_said_and_the_series_are_listed(world: World, interval: str, start: Any, end: Any) -> None:
    query: dict[str, Any] = {"interval": interval, "start": start, "end": end}
    report = run(world.pipeline(MemorySink(), symbols=["BTCUSDT", "ETHUSDT"], **query))
    assert report.complete
    assert [line.series.symbol for line in report.series] == ["BTCUSDT", "ETHUSDT"]
    assert all(line.nothing_closed and not line.missing and not line.rows for line in report.series)
    asked = Span(parse_time("start", start, FRIDAY), parse_time("end", end, FRIDAY))
    assert {line.wanted for line in report.series} == {asked}
    assert all(line["nothing_closed"] for line in report.as_dict()["series"])
    assert headline(report).startswith(f"Complete, {NOTHING}: 0 rows")
    text = to_text(report_page(report))
    assert "100 %" not in text
    assert (
        sum(NOTHING in line for line in text.splitlines()) == 2
    )  # the headline, and both series with the reason


def test_an_unknown_symbol_is_looked_up_all_the_same(world: World) -> None:
    report = run(
        world.pipeline(MemorySink(), symbols=["BTCUSDT", "ETHUSD"], interval="1w", start="4d", end="now")
    )
    assert not report.complete
    assert "'ETHUSDT'" in report.unknown["ETHUSD"]
    assert [line.series.symbol for line in report.series if line.nothing_closed] == ["BTCUSDT", "ETHUSD"]
    assert headline(report).startswith("Incomplete")


def test_a_known_series_costs_no_request(world: World) -> None:
    store = MemorySink()
    assert run(world.pipeline(store, interval="1w", start="2026-05-04", end="2026-05-18")).complete
    report = run(world.pipeline(store, interval="1w", start="4d", end="now"))
    assert (report.complete, report.requests) == (True, 0)
    assert report.series[0].nothing_closed


def test_a_composite_with_the_name_of_a_symbol_is_refused_all_the_same(world: World) -> None:
    store, members = MemorySink(), ["BTCUSDT", "ETHUSDT"]
    assert run(
        world.pipeline(store, symbols=members, interval="1w", start="2026-05-04", end="2026-05-18")
    ).complete
    basket = Composite("XRPUSDT", members)
    with pytest.raises(ConfigurationError, match="XRPUSDT is a symbol of binance-usdm"):
        run(world.pipeline(store, symbols=[], composites=[basket], interval="1w", start="4d", end="now"))


def test_a_composite_and_a_second_dataset_are_listed_too(world: World) -> None:
    basket = Composite("MT", ("BTCUSDT", "ETHUSDT"))
    query: dict[str, Any] = {"composites": [basket], "datasets": ["ohlcv", "funding_rate"], "interval": "1w"}
    report = run(world.pipeline(MemorySink(), start="4d", end="now", **query))
    assert report.complete
    waiting = {str(line.series) for line in report.series if line.nothing_closed}
    assert waiting == {f"binance-usdm ohlcv {symbol} 1w" for symbol in ("BTCUSDT", "ETHUSDT", "MT")}
    assert next(line for line in report.series if line.series.interval.is_event).rows > 10
    assert "Complete: " in headline(report)
    assert NOTHING in to_text(report_page(report))


def test_once_something_has_closed_it_is_fetched(world: World) -> None:
    store = MemorySink()
    query: dict[str, Any] = {"interval": "1w", "start": "2026-06-15", "end": "now"}
    assert run(world.pipeline(store, **query)).series[0].nothing_closed
    later = FRIDAY + 4 * DAY
    world.exchange.now = lambda: later
    world.settings = Settings(clock=lambda: later)
    report = run(world.pipeline(store, **query))
    assert (report.rows_written, report.series[0].nothing_closed) == (1, False)
