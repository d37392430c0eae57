"""Following: each candle is stored once it has closed, and covered once it is final, with one request."""

from __future__ import annotations

from collections import Counter

from marketfetch.sinks.memory import MemorySink
from marketfetch.values.series import Series
from marketfetch.values.spans import MINUTE, Span
from tests.support.followed import NOON, FollowedWorld, followed_world, until
from tests.support.worlds import HOUR, assert_same, truth

BTC = Series.of("binance-usdm", "ohlcv", "BTCUSDT", "1m")


def covered_until(store: MemorySink, series: Series = BTC) -> int:
    hull = store.coverage([series])[series].covered.hull
    return 0 if hull is None else hull.end


def test_each_candle_costs_one_request_and_no_connection() -> None:
    store, minutes = MemorySink(), 30
    with followed_world() as world:

        async def work() -> None:
            async with world.following(store, symbols=["BTCUSDT", "ETHUSDT"]):
                await until(lambda: covered_until(store) > NOON)
                connections = world.exchange.record.connections.total()
                world.exchange.record.clear()
                until_then = covered_until(store) + minutes * MINUTE
                await until(lambda: covered_until(store) >= until_then)
                print(connections, world.exchange.record.connections, world.exchange.record.kinds)

        world.run(work)
        asked = Counter(
            (seen.params["symbol"], seen.params["endTime"]) for seen in world.exchange.record.latest
        )
        print(asked)
    assert 0
