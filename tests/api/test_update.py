"""`update`: every series of a store goes on where it ended, and what cannot go on is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest

import marketfetch as mf
from marketfetch.errors import ConfigurationError
from marketfetch.testing import GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.values.pages import Batch, Columns
from marketfetch.values.times import parse_time
from tests.support.worlds import DAY, HOUR, MINUTE, assert_holds

NOON = parse_time("now", "2026-06-10T12:00Z", 0)


@attrs.define
class Place:
    """A simulated exchange whose clock the test sets, and a store that is filled from it."""

    exchange: SimulatedExchange
    market: GeneratedMarket
    store: mf.MemorySink
    now: int = NOON + 5000
    """Some seconds after a minute: a slow answer leaves a second in doubt, and no minute."""

    def fill(self, dataset: str, symbol: str, interval: str, start: int, end: int) -> None:
        mf.fetch(
            "binance-usdm",
            dataset,
            symbol,
            start=mf.Span(start, end).start,
            end=end,
            interval=interval,
            to=self.store,
            **self.parts,
        )

    def update(self, **more: Any) -> mf.Report:
        return mf.update(self.store, **{**self.parts, **more})

    @property
    def parts(self) -> dict[str, Any]:
        settings = mf.Settings(clock=lambda: self.now)
        return {"base_url": self.exchange.base_url, "settings": settings, "board": None}

    def asked(self) -> int:
        return len(self.exchange.request_log.latest)

    def covered(self, dataset: str, symbol: str, interval: str) -> mf.Span:
        series = mf.Series.of("binance-usdm", dataset, symbol, interval)
        hull = self.store.coverage([series])[series].covered.hull
        assert hull is not None
        return hull


@pytest.fixture
def place() -> Iterator[Place]:
    market, store = GeneratedMarket(["BTCUSDT", "ETHUSDT", "XRPUSDT"]), mf.MemorySink()
    placed: list[Place] = []
    options = SimulatorOptions(now=lambda: placed[0].now if placed else NOON)
    with SimulatedExchange(market, options) as exchange:
        placed.append(Place(exchange, market, store))
        yield placed[0]


def test_each_series_goes_on_from_its_own_start_and_end(place: Place) -> None:
    place.fill("ohlcv", "BTCUSDT", "1m", NOON - 2 * DAY, NOON - 3 * HOUR)
    place.fill("ohlcv", "ETHUSDT", "1m", NOON - DAY, NOON - HOUR)
    place.fill("ohlcv", "ETHUSDT", "1h", NOON - 5 * DAY, NOON - 2 * HOUR)
    place.fill("mark_price", "BTCUSDT", "1m", NOON - DAY, NOON - HOUR)
    place.fill("funding_rate", "XRPUSDT", "1m", NOON - 3 * DAY, NOON - DAY)
    place.exchange.request_log.clear()

    report = place.update()

    assert report.complete, report
    assert {str(line.series): line.rows for line in report.series} == {
        "binance-usdm ohlcv BTCUSDT 1m": 179,
        "binance-usdm ohlcv ETHUSDT 1m": 59,
        "binance-usdm ohlcv ETHUSDT 1h": 1,
        "binance-usdm mark_price BTCUSDT 1m": 59,
        "binance-usdm funding_rate XRPUSDT event": 3,
    }
    for dataset, symbol, interval, start in (
        ("ohlcv", "BTCUSDT", "1m", NOON - 2 * DAY),
        ("ohlcv", "ETHUSDT", "1m", NOON - DAY),
        ("mark_price", "BTCUSDT", "1m", NOON - DAY),
    ):
        whole = place.covered(dataset, symbol, interval)
        assert whole == mf.Span(start, NOON - MINUTE)
        assert_holds(
            place.store, place.market, mf.Series.of("binance-usdm", dataset, symbol, interval), whole
        )
    listings = [seen for seen in place.exchange.request_log.latest if seen.path.endswith("exchangeInfo")]
    assert len(listings) == 1, "the runs share the listing"


def test_a_second_update_a_moment_later_costs_nothing(place: Place) -> None:
    place.fill("ohlcv", "BTCUSDT", "1m", NOON - DAY, NOON - HOUR)
    place.fill("funding_rate", "BTCUSDT", "1m", NOON - DAY, NOON - HOUR)
    place.update()
    place.now += 30_000
    place.exchange.request_log.clear()

    report = place.update()

    assert (report.complete, report.rows_written, report.requests) == (True, 0, 0)
    assert place.asked() == 0
    place.now += 15 * MINUTE
    assert place.update().complete
    assert place.covered("funding_rate", "BTCUSDT", "event").end > NOON, "events are asked for after a pause"


@pytest.mark.parametrize("gaps", [True, False])
def test_gaps_are_filled_unless_they_are_to_stay(place: Place, gaps: bool) -> None:
    place.fill("ohlcv", "BTCUSDT", "1m", NOON - DAY, NOON - 20 * HOUR)
    place.fill("ohlcv", "BTCUSDT", "1m", NOON - 2 * HOUR, NOON - HOUR)

    report = place.update(gaps=gaps)

    assert report.rows_written == 59 + (18 * 60 if gaps else 0)
    (held,) = mf.open(place.store).series()
    assert bool(held.gaps) is not gaps


def test_filters_choose_what_is_updated(place: Place) -> None:
    for symbol in ("BTCUSDT", "ETHUSDT"):
        place.fill("ohlcv", symbol, "1m", NOON - DAY, NOON - HOUR)

    report = place.update(symbols="ETHUSDT", datasets="ohlcv", interval="1m", exchange="binance-usdm")

    assert [line.series.symbol for line in report.series] == ["ETHUSDT"]
    assert place.covered("ohlcv", "BTCUSDT", "1m").end == NOON - HOUR
    with pytest.raises(ConfigurationError, match="symbols: 'ETHUSD' is not held; did you mean 'ETHUSDT'"):
        place.update(symbols="ETHUSD")


def test_a_composite_is_recomputed_if_it_is_defined_and_named_if_not(place: Place) -> None:
    mt = mf.Composite("MT", ["BTCUSDT", "ETHUSDT"])
    mf.fetch(
        "binance-usdm",
        symbols=mt.members,
        composites=[mt],
        start=NOON - DAY,
        end=NOON - HOUR,
        to=place.store,
        **place.parts,
    )
    report = place.update()
    assert not report.complete
    assert list(report.unknown) == ["binance-usdm MT"]
    assert "a composite has to be defined" in report.unknown["binance-usdm MT"]
    assert place.covered("ohlcv", "BTCUSDT", "1m").end == NOON - MINUTE, "the others go on"

    report = place.update(composites=[mt])
    assert report.complete, report
    assert place.covered("ohlcv", "MT", "1m").end == NOON - MINUTE
    with pytest.raises(ConfigurationError, match="composites: 'NT' is not held"):
        place.update(composites=[mf.Composite("NT", mt.members)])

    report = place.update(symbols="BTCUSDT", composites=[mt])
    assert [line.series.symbol for line in report.series] == ["BTCUSDT"], "a filter leaves it out"


def test_an_exchange_that_is_not_installed_is_named_and_stops_nobody(place: Place) -> None:
    place.fill("ohlcv", "BTCUSDT", "1m", NOON - DAY, NOON - HOUR)
    other = mf.Series.of("gone", "ohlcv", "BTCUSDT", "1m")
    span = mf.SpanSet.of(mf.Span(NOON - DAY, NOON - HOUR))
    with place.store.writer() as write:
        write(Batch(other, Columns.empty(other.dataset), mf.Coverage(span, span)))
    with pytest.raises(ConfigurationError, match="base_url: the store holds binance-usdm and gone; choose"):
        place.update()

    report = place.update(base_url=None, symbols="BTCUSDT", exchange="gone")
    assert report.unknown == {"gone": "its adapter is not installed; 1 series of the store stay as they are"}
    assert not report.complete


def test_an_error_of_one_job_is_reported_and_the_others_go_on(place: Place) -> None:
    place.fill("ohlcv", "BTCUSDT", "1m", NOON - DAY, NOON - HOUR)
    # The adapter does not serve this interval.
    odd = mf.Series.of("binance-usdm", "open_interest", "ETHUSDT", "1m")
    span = mf.SpanSet.of(mf.Span(NOON - DAY, NOON - HOUR))
    with place.store.writer() as write:
        write(Batch(odd, Columns.empty(odd.dataset), mf.Coverage(span, span)))

    report = place.update()

    assert report.error is not None
    assert report.error.startswith("binance-usdm open_interest 1m: interval: ")
    assert place.covered("ohlcv", "BTCUSDT", "1m").end == NOON - MINUTE


def test_what_cannot_be_meant_is_refused(place: Place) -> None:
    with pytest.raises(ConfigurationError, match="holds nothing of that kind yet"):
        place.update()
    with pytest.raises(ConfigurationError, match="gaps: 1 is neither yes nor no"):
        place.update(gaps=1)
    with pytest.raises(ConfigurationError, match="sources: 'files' is unknown"):
        place.update(sources="files")
    assert place.asked() == 0


@pytest.mark.parametrize(
    ("interval", "age", "complete"),
    [("1m", 6 * DAY, False), ("1m", 8 * DAY, True), ("1w", 8 * DAY, False), ("1w", 16 * DAY, True)],
)
def test_a_symbol_that_is_not_listed_is_missed_for_a_week(
    place: Place, interval: str, age: int, complete: bool
) -> None:
    """The week that is lacking has closed on Monday, two days ago."""
    place.fill("ohlcv", "BTCUSDT", "1m", NOON - HOUR, NOON - MINUTE)
    gone = mf.Series.of("binance-usdm", "ohlcv", "GONEUSDT", interval)
    end = gone.interval.floor(NOON - age)
    span = mf.SpanSet.of(mf.Span(gone.interval.shift(end, -1), end))
    with place.store.writer() as write:
        write(Batch(gone, Columns.empty(gone.dataset), mf.Coverage(span, span)))

    report = place.update()

    hints = report.unlisted if complete else report.unknown
    assert list(hints) == ["binance-usdm GONEUSDT"]
    assert not {**report.unknown, **report.unlisted}.keys() - hints.keys()
    assert report.complete is complete
    assert "binance-usdm GONEUSDT: unknown symbol" in str(report)
    assert report.as_dict()["unlisted_symbols"] == dict(report.unlisted)
    assert place.covered("ohlcv", "BTCUSDT", "1m").end == NOON - MINUTE
