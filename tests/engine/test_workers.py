"""wanted − covered = missing: whole histories, updates, holes and earlier starts are one operation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from marketfetch.api.maintenance import forget
from marketfetch.events import Event, RoundStarted
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import GeneratedMarket, MarketInstrument, SimulatedExchange, SimulatorOptions
from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.values.coverage import Coverage
from marketfetch.values.instruments import Composite
from marketfetch.values.pages import Batch
from marketfetch.values.series import Series
from marketfetch.values.settings import Settings
from marketfetch.values.spans import Span, SpanSet
from marketfetch.values.times import parse_time
from tests.support.worlds import DAY, HOUR, MINUTE, World, assert_holds, assert_same, run, span_of, truth
from tests.support.wrong_rows import at_times, changing

SYMBOLS = ["BTCUSDT", "ETHUSDT", "XRPUSDT"]
OUTAGE = span_of("2026-06-01T06:00Z", "2026-06-01T07:00Z")


@pytest.fixture
def market() -> GeneratedMarket:
    return GeneratedMarket(SYMBOLS, seed=3)


@pytest.fixture
def world(market: GeneratedMarket) -> Iterator[World]:
    with SimulatedExchange(market) as exchange:
        yield World(exchange)


def series(symbol: str = "BTCUSDT", dataset: str = "ohlcv", venue: str = "binance-usdm") -> Series:
    return Series.of(venue, dataset, symbol, "1m")


async def test_every_series_holds_the_rows_of_the_exchange(world: World, market: GeneratedMarket) -> None:
    store = MemorySink()
    datasets = ["ohlcv", "premium_index", "mark_price", "index_price", "funding_rate"]
    report = await world.pipeline(store, symbols=SYMBOLS, datasets=datasets)
    assert report.complete
    assert len(report.series) == len(SYMBOLS) * len(datasets)
    for line in report.series:
        assert_holds(store, market, line.series, line.wanted)


async def test_the_second_run_asks_for_nothing(world: World) -> None:
    store = MemorySink()
    await world.pipeline(store, symbols=SYMBOLS)
    asked = world.exchange.request_log.total
    report = await world.pipeline(store, symbols=SYMBOLS)
    assert report.complete
    assert (report.requests, report.rows_written) == (0, 0)
    assert world.exchange.request_log.total == asked


async def test_only_the_hole_and_the_earlier_start_are_fetched(world: World, market: GeneratedMarket) -> None:
    store, line = MemorySink(), series()
    store.prepare([line.dataset])
    held = (
        span_of("2026-06-02T00:00Z", "2026-06-02T10:00Z"),
        span_of("2026-06-02T12:00Z", "2026-06-03T00:00Z"),
    )
    with store.writer() as write:
        for span in held:
            write(Batch(line, truth(market, line, span), Coverage(SpanSet.of(span))))
    report = await world.pipeline(store, start="2026-06-01T20:00Z", end="2026-06-03")
    assert report.rows_written == (4 + 2) * 60
    assert_holds(store, market, line, span_of("2026-06-01T20:00Z", "2026-06-03T00:00Z"))


def test_an_outage_is_confirmed_empty_and_not_asked_again() -> None:
    market = GeneratedMarket(SYMBOLS, seed=3, gaps=[OUTAGE])
    with SimulatedExchange(market) as exchange:
        world, store = World(exchange), MemorySink()
        report = run(world.pipeline(store))
        assert report.complete
        assert report.series[0].empty == SpanSet.of(OUTAGE)
        assert report.series[0].rows == 23 * 60
        assert run(world.pipeline(store)).requests == 0


@pytest.mark.parametrize("venue", ["binance-usdm", "binance-spot"])
def test_years_before_the_listing_cost_a_request_not_thousands(venue: str) -> None:
    listed = parse_time("listed", "2026-05-30T12:00Z", 0)
    market = GeneratedMarket([MarketInstrument.parse("NEWUSDT", listed)], seed=3)
    with SimulatedExchange(market) as exchange:
        world, store = World(exchange, venue), MemorySink()
        report = run(world.pipeline(store, symbols="NEWUSDT", start="2022-01-01"))
    assert report.complete
    assert report.series[0].empty == SpanSet.of(Span(parse_time("start", "2022-01-01", 0), listed))
    assert report.requests < 20
    assert_holds(store, market, series("NEWUSDT", venue=venue), Span(listed, report.series[0].wanted.end))


@pytest.mark.parametrize(("venue", "symbol"), [("okx", "BTC-USDT-SWAP"), ("okx", "BTC-USDT")])
async def test_another_exchange_gives_the_same_rows(
    world: World, market: GeneratedMarket, venue: str, symbol: str
) -> None:
    world.venue = venue
    store = MemorySink()
    report = await world.pipeline(store, symbols=symbol, start="2026-06-01", end="2026-06-01T12:00Z")
    assert report.complete
    line = report.series[0]
    found, expected = store.read(line.series, line.wanted), truth(market, line.series, line.wanted, "BTCUSDT")
    assert (found.times == expected.times).all()
    assert (found.values[:5] == expected.values[:5]).all()


async def test_unified_symbols_mean_the_same_series(world: World) -> None:
    report = await world.pipeline(MemorySink(), symbols=["BTC/USDT:USDT", "ETH/USDT", "XRPUSDT"])
    assert [line.series.symbol for line in report.series] == SYMBOLS


async def test_an_unknown_symbol_does_not_stop_the_others(world: World) -> None:
    report = await world.pipeline(MemorySink(), symbols=["BTCUSDT", "ETHUSD"])
    known, unknown = report.series
    assert (known.rows, unknown.rows) == (1440, 0)
    assert not report.complete
    assert "'ETHUSDT'" in report.unknown["ETHUSD"]
    assert unknown.missing[0].reason == report.unknown["ETHUSD"]


@pytest.mark.parametrize("skew", [-49_000, 0, 3000])
def test_the_unfinished_candle_is_left_out_by_the_servers_clock(skew: int) -> None:
    midnight = parse_time("now", "2026-06-02", 0)
    options = SimulatorOptions(now=lambda: midnight + 80_000, clock_skew=skew)
    with SimulatedExchange(GeneratedMarket(SYMBOLS, seed=3), options) as exchange:
        world, store = World(exchange), MemorySink()
        pipeline = world.pipeline(store, start="2026-06-01", end="2026-06-02")
        report = run(pipeline)
    # By a clock that is 49 seconds behind, the candle of 23:59 has not closed yet.
    assert report.series[0].rows == (1439 if skew < 0 else 1440)


def test_a_run_up_to_now_catches_up_with_what_closes_meanwhile(market: GeneratedMarket) -> None:
    passed = {"minutes": 0}

    def now() -> int:
        return parse_time("now", "2026-11-01T12:00:30Z", 0) + passed["minutes"] * MINUTE

    with SimulatedExchange(market, SimulatorOptions(now=now)) as exchange:
        world = World(exchange, settings=Settings(clock=now))

        def time_passes(event: Event) -> None:
            if isinstance(event, RoundStarted) and event.round == 1:
                passed["minutes"] = 3

        world.listeners.append(time_passes)
        report = run(world.pipeline(MemorySink(), start=now() - HOUR, end="now"))
    assert report.complete
    assert report.series[0].rows == 60 + 3 - 2  # without the open candle, and the one that may be revised
    assert len(world.events_of(RoundStarted)) == 2


def test_composites_follow_from_their_members_only_where_all_have_the_candle() -> None:
    late = MarketInstrument.parse("XRPUSDT", parse_time("listed", "2026-06-01T18:00Z", 0))
    market = GeneratedMarket(["BTCUSDT", "ETHUSDT", late], seed=3, gaps=[OUTAGE])
    composite = Composite("MT", ("ETHUSDT", "BTCUSDT", "XRPUSDT"))
    with SimulatedExchange(market) as exchange:
        world, store = World(exchange), MemorySink()
        report = run(world.pipeline(store, symbols="BTCUSDT", composites=[composite]))
        again = run(world.pipeline(store, symbols="BTCUSDT", composites=[composite]))
    day = span_of("2026-06-01", "2026-06-02")
    found = store.read(series("MT"), day)
    members = [truth(market, series(symbol), Span(late.listed_at, day.end)) for symbol in composite.members]
    assert (found.times == members[0].times).all()
    total = np.sum([member.values for member in members], axis=0)
    assert (found.values[:4] == total[:4] / 3).all()
    assert (found.values[4] == total[4]).all()
    assert report.complete
    assert next(line for line in report.series if line.series == series("MT")).rows == 6 * 60
    assert (again.requests, again.rows_written) == (0, 0)


def test_a_composite_is_computed_anew_where_a_member_got_its_row() -> None:
    day = span_of("2026-06-01", "2026-06-02")
    moment = day.start + 5 * MINUTE
    query: dict[str, Any] = {
        "symbols": ["BTCUSDT", "ETHUSDT"],
        "composites": [Composite("MT", ("BTCUSDT", "ETHUSDT"))],
    }
    store = MemorySink()
    with SimulatedExchange(GeneratedMarket(SYMBOLS, seed=3)) as exchange:
        world = World(exchange)
        without_row = changing(at_times({moment}, lambda _: None), "/fapi/v1/klines")

        def edit(request: ServerRequest, reply: ServerReply) -> ServerReply:
            return without_row(request, reply) if request.params.get("symbol") == "BTCUSDT" else reply

        exchange.edit = edit
        before = run(world.pipeline(store, **query))
        exchange.edit = None
        forget(store, symbols="BTCUSDT")
        after = run(world.pipeline(store, **query))
    minute = SpanSet.of(Span(moment, moment + MINUTE))
    for report, empty in ((before, minute), (after, SpanSet())):
        assert report.complete
        (line,) = (line for line in report.series if line.series == series("MT"))
        assert line.empty == empty
    assert moment in store.read(series("MT"), day).times
    assert len(store.read(series("MT"), day)) == 1440


class CountingStore(MemorySink):
    """Notes for which symbols its coverage is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read_for: list[list[str]] = []

    def coverage(self, series: Collection[Series]) -> Mapping[Series, Coverage]:
        self.read_for.append([each.symbol for each in series])
        return super().coverage(series)


async def test_coverage_is_read_once_for_each_series(world: World) -> None:
    store = CountingStore()
    assert (await world.pipeline(store, symbols=["BTCUSDT", "ETH/USDT:USDT"])).complete
    assert store.read_for == [["BTCUSDT", "ETH/USDT:USDT"], ["ETHUSDT"]]


async def test_history_beyond_the_exchanges_reach_is_reported_missing(world: World) -> None:
    report = await world.pipeline(
        MemorySink(), datasets="open_interest", interval="1h", start="40d", end="now"
    )
    (line,) = report.series
    assert not report.complete
    assert "30 days" in line.missing[0].reason
    assert line.covered.length > 29 * DAY


async def test_batches_can_be_iterated_over(world: World, market: GeneratedMarket) -> None:
    batches = [batch async for batch in world.pipeline(None, symbols=SYMBOLS)]
    assert sorted(batch.series.symbol for batch in batches) == SYMBOLS
    for batch in batches:
        assert_same(batch.columns, truth(market, batch.series, span_of("2026-06-01", "2026-06-02")))
