"""Where no loop of asyncio's runs, one clear error says so, and `fetch` works all the same."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import marketfetch as mf
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.http import Cost, Egress, LimitPool, Request

QUERY = mf.Query(symbols="BTCUSDT", start="2026-06-01", end="2026-06-02")


@pytest.fixture
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"])) as exchange:
        yield exchange


def pipeline() -> mf.Pipeline:
    return mf.Pipeline("binance-usdm", QUERY, mf.MemorySink())


async def awaited() -> object:
    return await pipeline()


async def run_as_method() -> object:
    return await pipeline().run()


async def iterated() -> object:
    return [batch async for batch in pipeline()]


async def entered() -> None:
    async with mf.CurlFetcher().session():
        pass


async def fetched() -> None:
    request = Request("/", cost=Cost(LimitPool("any", 10, 1000), 1), base_url="http://127.0.0.1:9")
    await mf.CurlFetcher().fetch(request, Egress("Direct"))


WAYS = [awaited, run_as_method, iterated, entered, fetched]


@pytest.mark.parametrize("way", WAYS)
def test_without_asyncio_there_is_one_clear_error(way: Callable[[], Coroutine[Any, Any, object]]) -> None:
    # What runs a coroutine, be it trio or curio, sends into it; asyncio has no loop then.
    with pytest.raises(
        mf.errors.ConfigurationError, match=r"^asyncio is needed: .* under trio call marketfetch.fetch"
    ):
        way().send(None)


@pytest.mark.parametrize("way", WAYS)
def test_under_trio_itself(way: Callable[[], Coroutine[Any, Any, object]]) -> None:
    trio = pytest.importorskip("trio")
    with pytest.raises(mf.errors.ConfigurationError, match="asyncio is needed"):
        trio.run(way)


def test_fetch_works_inside_a_coroutine_of_another_library(exchange: SimulatedExchange) -> None:
    async def foreign() -> int:
        return len(
            mf.fetch(
                "binance-usdm",
                "ohlcv",
                "BTCUSDT",
                base_url=exchange.base_url,
                interval="1h",
                start="2026-06-01",
                end="2026-06-02",
            )
        )

    with pytest.raises(StopIteration) as stopped:
        foreign().send(None)
    assert stopped.value.value == 24
