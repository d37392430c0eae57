"""Rows that an exchange has wrong, in one answer as in the next: noted, and not asked for again.

Binance's spot market has candles of December 2017 and February 2018 that lie 14.789 s off their grid. They
can never be stored as candles, and asking again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import attrs
import msgspec
import numpy as np
import pytest

from marketfetch.api.tables.table import Table
from marketfetch.errors import ConfigurationError
from marketfetch.events import BatchWritten
from marketfetch.protocols import Store
from marketfetch.reports import Report, SeriesReport
from marketfetch.sinks.duckdb.sink import DuckDBSink
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.parquet.sink import ParquetSink
from marketfetch.sinks.sqlite import SQLiteSink
from marketfetch.testing import FaultKind, Faults, GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.values.instruments import Composite
from marketfetch.values.pages import RejectedRow
from marketfetch.values.settings import RetryPolicy, Settings
from marketfetch.values.spans import Span, SpanSet
from tests.support.worlds import DAY, HOUR, MINUTE, World, assert_holds, assert_same, run, span_of, truth
from tests.support.wrong_rows import Change, at_times, changing, time_of, with_field

JUNE = span_of("2026-06-01", "2026-06-02")
NOON = JUNE.start + 12 * HOUR
TWO_HOURS = Span(NOON, NOON + 2 * HOUR)
KLINES = "klines"
PRESENT = JUNE.start + 20 * DAY
SETTINGS = Settings(concurrency=8, clock=lambda: PRESENT)


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    options = SimulatorOptions(limits=None, now=lambda: PRESENT)
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT"], seed=6), options) as running:
        yield running


def late(row: Any) -> Any:
    """Two hours of candles that are 14.789 s late."""
    return with_field(0, lambda row: row[0] + 14_789)(row) if row[0] in TWO_HOURS else row


def only(report: Report) -> SeriesReport:
    (line,) = report.series
    return line


def rejected(world: World) -> list[RejectedRow]:
    """The rows that were kept beside the ledger, in the batches of all runs so far."""
    return sorted(row for event in world.events_of(BatchWritten) for row in event.batch.rejected)


def test_candles_off_the_grid_are_kept_and_not_asked_for_again(exchange: SimulatedExchange) -> None:
    world, store = World(exchange, "binance-spot", settings=SETTINGS), MemorySink()
    exchange.edit = changing(late, KLINES)
    report = run(world.pipeline(store))
    line = only(report)
    assert report.complete
    assert (line.unusable, line.missing) == (SpanSet.of(TWO_HOURS), ())
    assert report.unusable_moments == 120
    assert line.rejected["off the grid"] == 3 * 120
    assert "unusable 2026-06-01 12:00 to 2026-06-01 14:00: the exchange's rows are off the grid" in str(
        report
    )
    assert len(store.read(line.series, JUNE)) == 22 * 60
    assert store.coverage([line.series])[line.series].unusable == SpanSet.of(TWO_HOURS)
    rows = rejected(world)
    assert [row.time for row in rows] == [NOON + n * MINUTE + 14_789 for n in range(120)]
    assert {row.reason for row in rows} == {"off the grid"}
    assert msgspec.json.decode(rows[0].raw)[:1] == [NOON + 14_789]
    assert len(msgspec.json.decode(rows[0].raw)) == 12

    again = run(world.pipeline(store))
    assert (again.complete, again.requests, again.unusable_moments) == (True, 0, 120)


def test_whoever_asks_again_is_told_and_gets_them_once_they_are_mended(exchange: SimulatedExchange) -> None:
    world, store = World(exchange, "binance-spot", settings=SETTINGS), MemorySink()
    exchange.edit = changing(late, KLINES)
    run(world.pipeline(store))
    world.settings = attrs.evolve(world.settings, unusable="retry")
    report = run(world.pipeline(store))
    line = only(report)
    assert not report.complete
    assert [gap.spans for gap in line.missing] == [SpanSet.of(TWO_HOURS)]
    assert "off the grid" in line.missing[0].reason
    assert not line.covered & SpanSet.of(TWO_HOURS)
    exchange.edit = None
    assert run(world.pipeline(store)).complete
    assert_holds(store, exchange.market, line.series, JUNE)
    assert not store.coverage([line.series])[line.series].unusable


@attrs.frozen
class Wrong:
    """A row of some venue that is wrong in every answer, and under which word it is counted."""

    venue: str
    path: str
    change: Change
    reason: str
    query: dict[str, Any] = attrs.field(factory=dict)


WRONG = {
    "negative volume": Wrong("binance-usdm", KLINES, with_field(5, "-1.5"), "impossible"),
    "a fraction of a trade": Wrong("binance-usdm", KLINES, with_field(8, 1.5), "impossible"),
    "more trades than 64 bits": Wrong("binance-usdm", KLINES, with_field(8, 2**63), "impossible"),
    "text for a number": Wrong("binance-usdm", KLINES, with_field(4, "n/a"), "undecodable"),
    "a list for a number": Wrong("binance-spot", KLINES, with_field(4, [1, ["\u2028", "2"]]), "undecodable"),
    "NaN": Wrong("binance-usdm", KLINES, with_field(2, "NaN"), "impossible"),
    "beyond float64": Wrong("binance-usdm", KLINES, with_field(2, "1e400"), "impossible"),
    "no close": Wrong("binance-usdm", KLINES, with_field(4, None), "impossible"),
    "high below low": Wrong(
        "binance-usdm",
        "markPriceKlines",
        with_field(2, "0.1"),
        "impossible",
        {"datasets": "mark_price"},
    ),
    "newest first": Wrong(
        "okx", "history-candles", with_field(5, "-1"), "impossible", {"symbols": "BTC-USDT"}
    ),
    "week off its anchor": Wrong(
        "binance-usdm",
        KLINES,
        with_field(0, lambda row: row[0] + DAY),
        "off the grid",
        {"interval": "1w", "start": "2026-05-04", "end": "2026-06-15"},
    ),
    "month off its anchor": Wrong(
        "binance-usdm",
        KLINES,
        with_field(0, lambda row: row[0] + 8 * HOUR),
        "off the grid",
        {"interval": "1M", "start": "2026-01-01", "end": "2026-06-01"},
    ),
    "objects": Wrong(
        "binance-usdm",
        "openInterestHist",
        with_field("sumOpenInterest", "-3"),
        "impossible",
        {"datasets": "open_interest", "interval": "1h"},
    ),
    "events": Wrong(
        "binance-usdm",
        "fundingRate",
        with_field("fundingRate", "abc"),
        "undecodable",
        {"datasets": "funding_rate", "end": "2026-06-09"},
    ),
    "events, newest first": Wrong(
        "okx",
        "funding-rate-history",
        with_field("realizedRate", "abc"),
        "undecodable",
        {"datasets": "funding_rate", "symbols": "BTC-USDT-SWAP", "end": "2026-06-09"},
    ),
}


@pytest.mark.parametrize("place", ["first", "middle", "last", "two", "all"])
@pytest.mark.parametrize("name", WRONG)
def test_whatever_is_wrong_with_a_row_it_costs_that_row_alone(
    exchange: SimulatedExchange, name: str, place: str
) -> None:
    wrong, store = WRONG[name], MemorySink()
    world = World(exchange, wrong.venue, settings=SETTINGS)
    assert run(world.pipeline(store, **wrong.query)).complete
    line = only(run(world.pipeline(store, **wrong.query)))
    sound = store.read(line.series, line.wanted)
    choose: dict[str, Callable[[Any], Any]] = {
        "first": lambda times: times[:1],
        "middle": lambda times: times[len(times) // 2 :][:1],
        "last": lambda times: times[-1:],
        "two": lambda times: times[1::2][:2],
        "all": lambda times: times,
    }
    chosen = set(choose[place](sound.times).tolist())
    world, store = World(exchange, wrong.venue, settings=SETTINGS), MemorySink()
    exchange.edit = changing(at_times(chosen, wrong.change), wrong.path)
    report = run(world.pipeline(store, **wrong.query))
    line = only(report)
    assert report.complete, line.missing
    assert line.unusable == line.series.interval.cells(np.array(sorted(chosen)))
    assert line.covered == SpanSet.of(line.wanted)
    assert not line.empty & line.series.interval.cells(sound.times)
    assert {row.reason for row in rejected(world)} == {wrong.reason}
    assert len(rejected(world)) == len(chosen)
    assert all(row.raw.isascii() and row.raw.isprintable() for row in rejected(world))
    assert_same(
        store.read(line.series, line.wanted), sound.take(~np.isin(sound.times, np.array(sorted(chosen))))
    )
    assert run(world.pipeline(store, **wrong.query)).requests == 0


def test_rows_can_be_stored_as_they_are(exchange: SimulatedExchange) -> None:
    world = World(exchange, "binance-spot", settings=attrs.evolve(SETTINGS, unusable="store"))
    store, text, negative = MemorySink(), NOON - HOUR, NOON - 2 * HOUR

    def change(row: Any) -> Any:
        if row[0] == text:
            return with_field(1, "n/a")(row)
        return with_field(5, "-1.5")(row) if row[0] == negative else late(row)

    exchange.edit = changing(change, KLINES)
    report = run(world.pipeline(store))
    line = only(report)
    assert report.complete
    assert line.unusable == SpanSet.of(Span(text, text + MINUTE))
    assert [row.time for row in rejected(world)] == [text]
    rows, expected = store.read(line.series, JUNE), truth(exchange.market, line.series, JUNE)
    times = np.where(
        (expected.times >= TWO_HOURS.start) & (expected.times < TWO_HOURS.end),
        expected.times + 14_789,
        expected.times,
    )
    assert rows.times.tolist() == times[expected.times != text].tolist()
    assert rows.values[4][rows.times == negative] == -1.5
    assert line.rows == 1439
    assert run(world.pipeline(store)).requests == 0


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "parquet"])
@pytest.mark.parametrize("unusable", ["keep", "store"])
def test_a_fraction_of_a_trade_costs_its_own_row_in_every_store(
    exchange: SimulatedExchange, kind: str, unusable: Literal["keep", "store"], tmp_path: Path
) -> None:
    world = World(exchange, settings=attrs.evolve(SETTINGS, unusable=unusable))
    stores: dict[str, Callable[[], Store]] = {
        "sqlite": lambda: SQLiteSink(tmp_path / "market.sqlite"),
        "duckdb": lambda: DuckDBSink(tmp_path / "market.duckdb"),
        "parquet": lambda: ParquetSink(tmp_path / "market"),
    }
    exchange.edit = changing(at_times({NOON}, with_field(8, 1.5)), KLINES)
    store = stores[kind]()
    report = run(world.pipeline(store))
    line = only(report)
    assert report.complete
    assert line.unusable == SpanSet.of(Span(NOON, NOON + MINUTE))
    table = Table(line.series.dataset, {line.series: store.read(line.series, JUNE)}, report)
    assert len(table.to_pandas()) == 24 * 60 - 1
    assert run(world.pipeline(store)).requests == 0


def flapping() -> Callable[[ServerRequest, ServerReply], ServerReply]:
    """An intermediary that spoils the same row, each time in another way."""
    seen = [0]

    def change(row: Any) -> Any:
        if time_of(row) != NOON:
            return row
        seen[0] += 1
        return with_field(5, f"-{seen[0]}")(row)

    return changing(change, KLINES)


def test_answers_that_differ_prove_nothing(exchange: SimulatedExchange) -> None:
    world, store = World(exchange, settings=SETTINGS), MemorySink()
    exchange.edit = flapping()
    report = run(world.pipeline(store))
    line = only(report)
    assert not report.complete
    assert not line.unusable
    assert [gap.spans for gap in line.missing] == [SpanSet.of(Span(NOON, NOON + MINUTE))]
    assert "its answers differ" in line.missing[0].reason
    exchange.edit = None
    assert run(world.pipeline(store)).complete
    assert_holds(store, exchange.market, line.series, JUNE)


PASSING = {
    "unfinished": ("okx", "history-candles", with_field(8, "0"), {"symbols": "BTC-USDT"}),
    "unfinished and impossible": (
        "okx",
        "history-candles",
        lambda row: [*row[:5], "-1", *row[6:8], "0"],
        {"symbols": "BTC-USDT"},
    ),
    "unfinished and text": (
        "okx",
        "history-candles",
        lambda row: [*row[:4], "n/a", *row[5:8], "0"],
        {"symbols": "BTC-USDT"},
    ),
    "a time that is none": ("binance-usdm", KLINES, with_field(0, "soon"), {}),
    "a field too few": ("binance-usdm", KLINES, lambda row: row[:-1], {}),
    "from elsewhere": ("binance-usdm", KLINES, with_field(0, lambda row: row[0] + 9 * DAY), {}),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_become_right_stays_missing(exchange: SimulatedExchange, name: str) -> None:
    venue, path, change, query = PASSING[name]
    settings = attrs.evolve(SETTINGS, retries=RetryPolicy(attempts=2, initial=0.01, cap=0.02))
    world, store = World(exchange, venue, settings=settings), MemorySink()
    hours: dict[str, Any] = {"start": NOON - HOUR, "end": NOON + HOUR}
    query = hours | query
    exchange.edit = changing(at_times({NOON}, change), path)
    report = run(world.pipeline(store, **query))
    line = only(report)
    assert not report.complete
    assert not line.unusable
    assert any(NOON in gap.spans for gap in line.missing)
    exchange.edit = None
    assert run(world.pipeline(store, **query)).complete
    assert NOON in store.read(line.series, JUNE).times


def test_a_server_that_fails_proves_nothing(exchange: SimulatedExchange) -> None:
    settings = attrs.evolve(SETTINGS, retries=RetryPolicy(attempts=2, initial=0.01, cap=0.02))
    exchange.faults = Faults(rate=1, kinds=[FaultKind.STATUS_503], paths=["/fapi/v1/klines"], times=1000)
    report = run(World(exchange, settings=settings).pipeline(MemorySink()))
    assert not report.complete
    assert not report.unusable_moments


def test_a_wrong_row_of_the_last_minutes_may_still_be_mended(exchange: SimulatedExchange) -> None:
    world, store = World(exchange, settings=SETTINGS), MemorySink()
    exchange.now = lambda: JUNE.end
    world.settings = attrs.evolve(world.settings, clock=lambda: JUNE.end)
    last = JUNE.end - 3 * MINUTE
    exchange.edit = changing(at_times({last, NOON}, with_field(5, "-1")), KLINES)
    line = only(run(world.pipeline(store, end="now")))
    assert line.unusable == SpanSet.of(Span(NOON, NOON + MINUTE))
    assert [gap.spans for gap in line.missing] == [SpanSet.of(Span(last, last + MINUTE))]


def test_a_composite_follows_its_members(exchange: SimulatedExchange) -> None:
    world, store = World(exchange, settings=SETTINGS), MemorySink()
    basket = Composite("MT", ("BTCUSDT", "ETHUSDT"))
    query: dict[str, Any] = {"symbols": ["BTCUSDT", "ETHUSDT"], "composites": [basket]}
    wrong = changing(at_times({NOON}, with_field(5, "-1")), KLINES)

    def edit(request: ServerRequest, reply: ServerReply) -> ServerReply:
        return wrong(request, reply) if request.params.get("symbol") == "ETHUSDT" else reply

    exchange.edit = edit
    report = run(world.pipeline(store, **query))
    assert report.complete
    unusable = {line.series.symbol: line.unusable for line in report.series}
    spot = SpanSet.of(Span(NOON, NOON + MINUTE))
    assert unusable == {"BTCUSDT": SpanSet(), "ETHUSDT": spot, "MT": spot}
    exchange.edit = None
    world.settings = attrs.evolve(world.settings, unusable="retry")
    report = run(world.pipeline(store, **query))
    assert report.complete
    assert report.unusable_moments == 0
    mt = next(line.series for line in report.series if line.series.symbol == "MT")
    assert len(store.read(mt, JUNE)) == 1440


def test_raw_text_is_bounded(exchange: SimulatedExchange) -> None:
    world = World(exchange, settings=SETTINGS)
    exchange.edit = changing(at_times({NOON}, with_field(4, "x" * 300_000)), KLINES)
    assert run(world.pipeline(MemorySink())).unusable_moments == 1
    (row,) = rejected(world)
    assert len(row.raw) == 1000
    assert row.raw.startswith(f"[{NOON},")


def test_the_policy_is_one_of_three() -> None:
    policy: Any = "kep"
    with pytest.raises(ConfigurationError, match=r"unusable: 'kep' is unknown; did you mean 'keep'\?"):
        Settings(unusable=policy)
