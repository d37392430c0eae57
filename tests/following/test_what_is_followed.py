"""What a follow has: listings that change, events beside candles, every store, health as JSON, Ctrl-C."""

from __future__ import annotations

import json
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

import marketfetch as mf
from marketfetch.adapters.binance_usdm import BinanceUsdm, Ohlcv
from marketfetch.api.pipeline import NullSink, Session
from marketfetch.errors import ConfigurationError, RowsRefused
from marketfetch.events import BatchWritten, Event, RoundStarted, RunFinished
from marketfetch.protocols import Store, Writer
from marketfetch.reports import Report, SeriesHealth
from marketfetch.sinks.memory import MemorySink
from marketfetch.sinks.urls import sink_from
from marketfetch.testing import GeneratedMarket, MarketInstrument, SimulatedExchange
from marketfetch.testing.http.messages import ServerReply, ServerRequest
from marketfetch.values.coverage import MissingReason
from marketfetch.values.intervals import Interval
from marketfetch.values.pages import Batch
from marketfetch.values.query import AllSymbols
from marketfetch.values.series import Series
from marketfetch.values.spans import Span
from tests.following.test_following import BTC, assert_true, covered_until, minutes_pass
from tests.support.batches import EVER
from tests.support.followed import NOON, FollowedWorld, followed_world, until
from tests.support.worlds import HOUR, MINUTE, assert_holds, assert_same, truth


def test_new_symbols_are_followed_after_a_look_at_the_listing_and_delisted_ones_end() -> None:
    late = MarketInstrument.parse("LATEUSDT", NOON + 20 * MINUTE)
    gone = MarketInstrument.parse("GONEUSDT", NOON - 24 * HOUR, NOON + 20 * MINUTE)
    market, store = GeneratedMarket(["BTCUSDT", late, gone], seed=4), MemorySink()
    new, ended = (attrs.evolve(BTC, symbol=name) for name in ("LATEUSDT", "GONEUSDT"))
    with followed_world(lambda _: market) as world:

        async def work() -> tuple[SeriesHealth, ...]:
            async with world.following(store, symbols=AllSymbols("USDT")) as following:
                await until(lambda: covered_until(store, new) > NOON + 80 * MINUTE)
                return following.health()

        health = world.run(work)
    assert {line.series.symbol for line in health} == {"BTCUSDT", "LATEUSDT"}
    assert_true(store, market)
    whole = Span(0, covered_until(store, new))
    assert_same(store.read(new, whole), truth(market, new, whole))
    whole = Span(0, 2 * NOON)
    assert_same(store.read(ended, whole), truth(market, ended, Span(NOON - HOUR, 2 * NOON)))


def test_events_and_candles_are_followed_at_their_own_due_times() -> None:
    store, start = MemorySink(), NOON - NOON % (8 * HOUR) + 8 * HOUR - 5 * MINUTE
    funding = Series.of("binance-usdm", "funding_rate", "BTCUSDT", "event")
    with followed_world(start=start) as world:

        async def work() -> int:
            async with world.following(
                store, datasets=["ohlcv", "funding_rate"], start=start - 24 * HOUR
            ) as following:
                await until(lambda: covered_until(store, funding) > start - HOUR)
                await until(lambda: len(following.health()) == 2)
                events = len(store.read(funding, Span(0, 2 * NOON)))
                world.exchange.request_log.clear()
                await until(lambda: len(store.read(funding, Span(0, 2 * NOON))) > events)
                await minutes_pass(store, 5)
                return sum(seen.path == "/fapi/v1/fundingRate" for seen in world.exchange.request_log.latest)

        requests = world.run(work)
        assert requests <= 6, "one round: the event, and twice that there is none after it"
        span = Span(start - 24 * HOUR, covered_until(store, funding))
        assert_same(store.read(funding, span), truth(world.exchange.market, funding, span))
        assert_true(store, world.exchange.market, start=start - 24 * HOUR)


@pytest.mark.parametrize("url", ["sqlite:{}/m.sqlite", "duckdb:{}/m.duckdb", "parquet:{}/m"])
def test_every_store_can_be_followed_into(url: str, tmp_path: Path) -> None:
    store, end = sink_from(url.format(tmp_path)), NOON // MINUTE * MINUTE + 6 * MINUTE
    assert isinstance(store, Store)
    with followed_world() as world:

        async def work() -> None:
            asked = {"symbols": ["BTCUSDT", "ETHUSDT"], "datasets": ["ohlcv", "mark_price"]}
            unfinished = {*product(asked["datasets"], asked["symbols"])}
            async with world.following(store, **asked) as following:
                async for batch in following:
                    covered = batch.coverage.covered.hull
                    if covered is not None and covered.end >= end:
                        unfinished.discard((batch.series.dataset.name, batch.series.symbol))
                    if not unfinished:
                        break

        world.run(work)
        for dataset in ("ohlcv", "mark_price"):
            series = Series.of("binance-usdm", dataset, "ETHUSDT", "1m")
            assert_holds(store, world.exchange.market, series, Span(BTC.interval.ceil(NOON - HOUR), end))


def test_two_pipelines_of_a_session_follow_two_intervals() -> None:
    store, hours = MemorySink(), Series.of("binance-usdm", "ohlcv", "BTCUSDT", "5m")
    with followed_world() as world:

        async def work() -> None:
            world.session = Session(proxies=world.pool(), fetcher=world.fetcher(), board=None)
            async with world.session, world.following(store), world.following(store, interval="5m"):
                await until(lambda: covered_until(store, hours) > NOON + 10 * MINUTE)

        world.run(work)
        assert_true(store, world.exchange.market)
        assert_true(store, world.exchange.market, hours)
        paths = [seen.path for seen in world.exchange.request_log.latest]
        assert paths.count("/fapi/v1/exchangeInfo") == 1


def test_health_is_json_and_stop_ends_the_wait_and_the_iteration() -> None:
    store = MemorySink()
    with followed_world() as world:

        async def work() -> list[dict[str, Any]]:
            async with world.following(store, symbols=["BTCUSDT", "NONEUSDT"]) as following:
                await until(lambda: covered_until(store) > NOON)
                following.stop()
                await following.wait()
                assert [batch async for batch in following] == []
                return [line.as_dict() for line in following.health()]

        found = {line["symbol"]: line for line in json.loads(json.dumps(world.run(work)))}
    assert found["BTCUSDT"]["last_error"] is None
    assert found["BTCUSDT"]["covered_until"].startswith("2026-11-01T1")
    assert "unknown symbol" in found["NONEUSDT"]["last_error"]
    assert found["NONEUSDT"]["covered_until"] is None
    assert {symbol: line["stopped"] for symbol, line in found.items()} == {"BTCUSDT": False, "NONEUSDT": True}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"end": "2026-06-02"}, r"^end: '2026-06-02' ends, and following does not; leave it out"),
        ({"sources": "archive"}, r"^sources: files come days late"),
    ],
)
def test_what_cannot_be_followed_is_refused(wrong: dict[str, Any], message: str) -> None:
    query = mf.Query(symbols="BTCUSDT", **{"start": "2026-06-01", **wrong})

    pipeline = mf.Pipeline("binance-usdm", query, MemorySink())

    async def work() -> None:
        async with pipeline.follow():
            raise AssertionError("not reached")

    with pytest.raises(ConfigurationError, match=message):
        anyio.run(work)


def test_ctrl_c_ends_follow_and_returns_the_health(tmp_path: Path) -> None:
    main = threading.main_thread().ident
    assert main is not None

    sent: list[Event] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, BatchWritten) and not sent:  # a second one would interrupt the end
            sent.append(event)
            signal.pthread_kill(main, signal.SIGINT)

    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4)) as exchange:
        (health,) = mf.follow(
            "binance-usdm",
            "ohlcv",
            "BTCUSDT",
            to=tmp_path / "market.sqlite",
            start="10m",
            base_url=exchange.base_url,
            listeners=[interrupt],
        )
    assert health.series == BTC
    assert health.covered_until is not None
    assert health.covered_until % Interval.parse("1m").typical == 0


def test_the_report_of_each_hour_is_complete() -> None:
    """What is provisional when the run of an hour ends is not wanted yet."""
    with followed_world() as world:

        async def work() -> list[Report]:
            async with world.following(MemorySink()):
                await until(lambda: len(finished(world)) == 2)
            return finished(world)

        assert [report.complete for report in world.run(work)] == [True, True]


def finished(world: FollowedWorld) -> list[Report]:
    return [event.report for event in world.events if isinstance(event, RunFinished)]


def test_composites_follow_their_members() -> None:
    store, basket = MemorySink(), mf.Composite("MT", ("BTCUSDT", "ETHUSDT"))
    series = attrs.evolve(BTC, symbol="MT")
    with followed_world() as world:

        async def work() -> None:
            async with world.following(store, composites=[basket]):
                await until(lambda: covered_until(store, series) > NOON + 5 * MINUTE)

        world.run(work)
        assert_true(store, world.exchange.market)
        whole = Span(BTC.interval.ceil(NOON - HOUR), covered_until(store, series))
        assert not store.coverage([series])[series].missing(whole)
        first, second = (
            store.read(attrs.evolve(BTC, symbol=symbol), whole).values[3] for symbol in basket.members
        )
        assert store.read(series, whole).values[3].tolist() == ((first + second) / 2).tolist()


def test_a_composite_is_computed_where_its_members_are_already_stored() -> None:
    """Nothing is requested before the next candle of 1d closes, and that may take a day."""
    store, basket = MemorySink(), mf.Composite("MT", ("BTCUSDT", "ETHUSDT"))
    asked: dict[str, Any] = {"interval": "1d", "start": NOON - 240 * HOUR}
    series = Series.of("binance-usdm", "ohlcv", "MT", "1d")
    with followed_world() as world:

        async def work() -> None:
            await world.pipeline(store, symbols=basket.members, **asked)
            async with world.following(store, symbols=basket.members, composites=[basket], **asked):
                await until(lambda: covered_until(store, series))
            assert world.clock() < NOON + HOUR, "at the beginning, not with the next candle or listing"

        world.run(work)


class RefusesComposites(MemorySink):
    """Refuses the rows of composites, and counts how often it was given some."""

    refused = 0

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        with super().writer() as write:

            def write_members(batch: Batch) -> None:
                if batch.series.symbol == "MT":
                    self.refused += 1
                    raise RowsRefused("no composites here")
                write(batch)

            yield write_members


def test_a_composite_that_the_store_refuses_is_offered_once_by_each_run() -> None:
    store, basket = RefusesComposites(), mf.Composite("MT", ("BTCUSDT", "ETHUSDT"))
    with followed_world() as world:

        async def work() -> None:
            async with world.following(store, composites=[basket]):
                await until(lambda: store.refused > 0 and covered_until(store) > NOON + 20 * MINUTE)

        world.run(work)
    assert store.refused == 1


def test_a_composite_of_other_members_in_the_store_ends_the_follow() -> None:
    store, other = MemorySink(), mf.Composite("MT", ("BTCUSDT", "SOLUSDT"))
    with followed_world(lambda _: GeneratedMarket(["BTCUSDT", "ETHUSDT", "SOLUSDT"], seed=4)) as world:

        async def work() -> None:
            await world.pipeline(store, composites=[mf.Composite("MT", ("BTCUSDT", "ETHUSDT"))])
            async with world.following(store, composites=[other]):
                await until(lambda: covered_until(store) > NOON + 30 * MINUTE)

        with pytest.raises(ConfigurationError, match="MT in the store does not follow from BTCUSDT, SOLUSDT"):
            world.run(work)


def test_without_a_store_nothing_is_requested_twice() -> None:
    """The history is not requested anew with the listing of each hour."""
    with followed_world() as world:

        async def work() -> None:
            async with world.following(NullSink()):
                await until(lambda: len(finished(world)) == 1)
                world.exchange.request_log.clear()
                await until(lambda: len(finished(world)) == 2)

        world.run(work)
        starts = [seen.params.get("startTime") for seen in world.exchange.request_log.latest]
    assert min(int(start) for start in starts if start) > NOON


def test_catching_up_may_take_longer_than_the_listing_is_kept() -> None:
    """Such as with the history of all symbols: two hours pass with the first page."""
    store, hours = MemorySink(), [2 * HOUR]

    def slow(request: ServerRequest, reply: ServerReply) -> ServerReply:
        if request.path == "/fapi/v1/klines" and hours:
            world.clock.start += hours.pop()
        return reply

    with followed_world(edit=slow) as world:

        async def work() -> None:
            async with world.following(store):
                await until(lambda: covered_until(store) > NOON + 2 * HOUR + 10 * MINUTE)

        world.run(work)
    assert_true(store, world.exchange.market)
    assert all(report.complete for report in finished(world))


class ForgetfulOhlcv(Ohlcv):
    """Candles of the last day."""

    retention = 24 * HOUR


class ForgetfulUsdm(BinanceUsdm):
    """An exchange that serves no older candles."""

    name = "binance-usdm"
    sources = (ForgetfulOhlcv,)


def test_what_is_older_than_the_exchange_serves_is_no_error_of_a_follow() -> None:
    """No alarm each time that the listing is requested anew, for rows that cannot come."""
    store, errors = MemorySink(), set[str | None]()
    with followed_world() as world:
        world.adapter = ForgetfulUsdm

        async def work() -> None:
            async with world.following(store, start=NOON - 48 * HOUR) as following:

                def look() -> int:
                    errors.update(line.last_error for line in following.health())
                    return len(finished(world))

                await until(look)

        world.run(work)
    assert errors == {None}
    (line,) = finished(world)[0].series
    assert [gap.kind for gap in line.missing] == [MissingReason.TOO_OLD]


def test_what_the_ordinary_run_could_not_fetch_is_in_the_report_of_the_hour() -> None:
    old = NOON - 30 * MINUTE

    def broken(request: ServerRequest, reply: ServerReply) -> ServerReply:
        is_old = int(request.params.get("startTime", NOON)) < old
        return attrs.evolve(reply, body=b"[[") if is_old else reply

    store = MemorySink()
    with followed_world(edit=broken) as world:

        async def work() -> Report:
            async with world.following(store):
                await until(lambda: finished(world))
            return finished(world)[0]

        (line,) = world.run(work).series
    assert line.wanted.start == BTC.interval.ceil(NOON - HOUR)
    (lacking,) = line.missing
    assert lacking.reason.startswith("DecodeError")
    assert line.covered.hull is not None
    assert line.covered.hull.end > NOON + 50 * MINUTE


def test_the_report_of_a_follow_has_everything_from_the_start_to_the_last_round() -> None:
    store = MemorySink()
    with followed_world() as world:
        pipeline = world.pipeline(store, datasets=["ohlcv", "funding_rate"], start=NOON - 24 * HOUR)

        async def work() -> Report:
            async with pipeline.follow() as following:
                assert pipeline.report().error == "nothing was requested yet"
                await until(lambda: covered_until(store) > NOON)
                await minutes_pass(store, 70)  # the second run of the follow has begun
                assert following.report().complete
                return pipeline.report()

        during = world.run(work)
        after = pipeline.report()
    assert during.complete, during
    assert after.complete, after
    assert during.rows_written <= after.rows_written
    assert after.rows_written >= sum(len(store.read(series, EVER)) for series in store.ledger())
    assert {line.series for line in after.series} == set(store.ledger())
    for line in after.series:
        assert line.wanted.start <= NOON - 23 * HOUR
        assert line.wanted.end >= NOON + HOUR // 2
        assert line.rows


def test_the_report_of_a_follow_says_why_it_is_behind() -> None:
    """Also while the next round has begun and has tried nothing yet, or is stopped then."""
    store, in_rounds = MemorySink(), list[tuple[str, str | None]]()
    with followed_world() as world:
        pipeline = world.pipeline(store)

        async def work() -> None:
            async with pipeline.follow() as following:

                class AtRounds(deque[Event]):
                    def append(self, event: Event) -> None:
                        if isinstance(event, RoundStarted) and world.cut_off:
                            (line,) = following.health()
                            in_rounds.append((str(following.report()), line.last_error))

                await until(lambda: covered_until(store) > NOON)
                world.events = AtRounds()
                world.cut_off = True
                await until(lambda: len(in_rounds) > 4)

        world.run(work)
    report = pipeline.report()
    assert not report.complete
    assert "the network is unreachable" in str(report)
    for text, last_error in in_rounds[1:]:
        assert "the network is unreachable" in text
        assert "the network is unreachable" in str(last_error)
