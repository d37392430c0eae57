"""A row without a value proves nothing: its moment stays missing until the exchange has filled it in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import msgspec
import numpy as np
import pytest

from marketfetch.reports import Report, SeriesReport
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.values.settings import Settings
from marketfetch.values.spans import SpanSet
from tests.support.worlds import DAY, World, assert_same, run, span_of
from tests.support.wrong_rows import Change, at_times, changing, with_field

JUNE = span_of("2026-06-01", "2026-06-09")
PRESENT = JUNE.start + 20 * DAY
SETTINGS = Settings(concurrency=8, clock=lambda: PRESENT)


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    options = SimulatorOptions(limits=None, now=lambda: PRESENT)
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=6), options) as running:
        yield running


def only(report: Report) -> SeriesReport:
    (line,) = report.series
    return line


def without_values(row: Any) -> Any:
    """The times and the name are there, all else is null or empty."""
    if isinstance(row, list):
        return [row[0], *(None for _ in row[1:])]
    kept = ("fundingTime", "timestamp", "symbol", "rateType")
    return {name: value if name in kept else "" for name, value in row.items()}


@attrs.frozen
class Unfilled:
    """A row that has no value yet, at some venue."""

    venue: str
    path: str
    dataset: str
    change: Change
    symbol: str = "BTCUSDT"


UNFILLED = {
    "funding without a rate": Unfilled(
        "binance-usdm", "fundingRate", "funding_rate", with_field("fundingRate", "")
    ),
    "funding without anything": Unfilled("binance-usdm", "fundingRate", "funding_rate", without_values),
    "funding with null": Unfilled(
        "binance-usdm", "fundingRate", "funding_rate", with_field("fundingRate", None)
    ),
    "funding of OKX": Unfilled(
        "okx",
        "funding-rate-history",
        "funding_rate",
        with_field("realizedRate", ""),
        "BTC-USDT-SWAP",
    ),
    "open interest": Unfilled(
        "binance-usdm", "openInterestHist", "open_interest", with_field("sumOpenInterest", None)
    ),
    "a ratio": Unfilled("binance-usdm", "globalLongShortAccountRatio", "long_short_ratio", without_values),
    "taker volume": Unfilled("binance-usdm", "takerlongshortRatio", "taker_volume", without_values),
    "a candle": Unfilled("binance-usdm", "klines", "ohlcv", without_values),
}


@pytest.mark.parametrize("place", ["first", "middle", "last", "all"])
@pytest.mark.parametrize("name", UNFILLED)
def test_what_has_no_value_yet_is_asked_for_again_and_stored_once_it_has(
    exchange: SimulatedExchange, name: str, place: str
) -> None:
    given = UNFILLED[name]
    query: dict[str, Any] = {"symbols": given.symbol, "datasets": given.dataset, "interval": "1h"}
    query |= {"start": JUNE.start, "end": JUNE.end}
    world, store = World(exchange, given.venue, settings=SETTINGS), MemorySink()
    line = only(run(world.pipeline(store, **query)))
    sound = store.read(line.series, line.wanted)
    assert len(sound) > 20

    choose: dict[str, Callable[[Any], Any]] = {
        "first": lambda times: times[:1],
        "middle": lambda times: times[len(times) // 2 :][:1],
        "last": lambda times: times[-1:],
        "all": lambda times: times,
    }
    chosen = np.sort(choose[place](sound.times))
    exchange.edit = changing(at_times(set(chosen.tolist()), given.change), given.path)
    store = MemorySink()
    report = run(world.pipeline(store, **query))
    line = only(report)
    assert not report.complete
    # These moments stay open, and no other.
    assert SpanSet(tuple(each for gap in line.missing for each in gap.spans)) == (
        line.series.interval.cells(chosen)
    )
    assert "the exchange has no value yet" in line.missing[0].reason
    assert not line.unusable
    assert_same(store.read(line.series, line.wanted), sound.take(~np.isin(sound.times, chosen)))

    exchange.edit = None
    assert run(world.pipeline(store, **query)).complete
    assert_same(store.read(line.series, line.wanted), sound)


def test_a_special_event_without_a_rate_does_not_hide_behind_the_regular_one(
    exchange: SimulatedExchange,
) -> None:
    """Both share a moment and become one row, which has a value: that of the regular event."""
    time, rate = JUNE.start + 2 * DAY, [""]

    def edit(request: ServerRequest, reply: ServerReply) -> ServerReply:
        if not request.path.endswith("fundingRate"):
            return reply
        special = {"symbol": "BTCUSDT", "rateType": "Special", "fundingRate": rate[0], "markPrice": "1"}
        rows: list[Any] = []
        for row in msgspec.json.decode(reply.body):
            rows += [row] if row["fundingTime"] // DAY != time // DAY else [row, {**row, **special}]
        return attrs.evolve(reply, body=msgspec.json.encode(rows))

    exchange.edit = edit
    world, store = World(exchange, settings=SETTINGS), MemorySink()
    query: dict[str, Any] = {"datasets": "funding_rate", "start": JUNE.start, "end": JUNE.end}
    report = run(world.pipeline(store, **query))
    line = only(report)
    assert not report.complete
    assert len(line.missing[0].spans) == 3  # the events of one day
    rate[0] = "-0.002"
    assert run(world.pipeline(store, **query)).complete
    specials = store.read(line.series, line.wanted).values[line.series.dataset.index("special_funding_rate")]
    assert np.count_nonzero(specials == -0.002) == 3


def test_what_need_not_have_a_value_may_do_without(exchange: SimulatedExchange) -> None:
    world, store = World(exchange, settings=SETTINGS), MemorySink()
    exchange.edit = changing(lambda row: [*row[:7], None, None, "", *row[10:]], "klines")
    report = run(world.pipeline(store, interval="1h"))
    assert report.complete
    rows = store.read(only(report).series, only(report).wanted)
    assert len(rows) == 24
    assert np.isnan(rows.values[5:8]).all()


def test_an_old_event_without_a_mark_price_is_whole(exchange: SimulatedExchange) -> None:
    world, store = World(exchange, settings=SETTINGS), MemorySink()
    exchange.edit = changing(with_field("markPrice", ""), "fundingRate")
    report = run(world.pipeline(store, datasets="funding_rate"))
    assert report.complete
    assert only(report).rows == 3
