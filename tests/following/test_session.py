"""Session: pipelines share connections, instruments and the clock, and ask only for what is unknown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest

from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.api.pipeline import Pipeline, Session
from marketfetch.errors import ConfigurationError
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.protocols import Sink
from marketfetch.sinks.memory import MemorySink
from marketfetch.testing import GeneratedMarket, SimulatedExchange
from marketfetch.values.http import Egress, Request, Response
from marketfetch.values.query import Query

LISTING, TIME = "/fapi/v1/exchangeInfo", "/fapi/v1/time"
DAY: dict[str, Any] = {"start": "2026-06-01", "end": "2026-06-02"}


@pytest.fixture
def exchange() -> Any:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT", "ETHUSDT"], seed=4)) as simulated:
        yield simulated


def pipeline(exchange: SimulatedExchange, session: Session, sink: Sink, **query: Any) -> Pipeline:
    asked = {"symbols": "BTCUSDT", **DAY} | query
    return Pipeline(BinanceUsdm(exchange.base_url), Query(**asked), sink, session=session)


def asked(exchange: SimulatedExchange, path: str) -> int:
    return sum(seen.path == path for seen in exchange.request_log.latest)


def test_runs_of_a_session_ask_once_for_clock_and_listing(exchange: SimulatedExchange) -> None:
    async def work() -> None:
        async with Session() as session:
            for symbol in ("BTCUSDT", "ETHUSDT"):
                report = await pipeline(exchange, session, MemorySink(), symbols=symbol)
                assert report.complete

    anyio.run(work)
    assert (asked(exchange, TIME), asked(exchange, LISTING)) == (1, 1)


def test_one_more_candle_costs_one_request_and_no_connection(exchange: SimulatedExchange) -> None:
    store = MemorySink()

    async def work() -> None:
        async with Session() as session:
            await pipeline(exchange, session, store)
            exchange.request_log.clear()
            report = await pipeline(exchange, session, store, end="2026-06-02T00:01Z")
            assert report.rows_written == 1

    anyio.run(work)
    assert exchange.request_log.total == 1
    assert not exchange.request_log.connections


def test_pipelines_of_a_session_run_side_by_side_and_share_the_listing(exchange: SimulatedExchange) -> None:
    reports = []

    async def work() -> None:
        async def run(dataset: str) -> None:
            reports.append(await pipeline(exchange, session, MemorySink(), datasets=dataset))

        async with Session() as session, anyio.create_task_group() as group:
            for dataset in ("ohlcv", "mark_price", "funding_rate"):
                group.start_soon(run, dataset)

    anyio.run(work)
    assert [report.complete for report in reports] == [True] * 3
    assert asked(exchange, LISTING) == 1


def test_an_old_listing_and_an_unknown_name_are_requested_again(exchange: SimulatedExchange) -> None:
    async def work() -> None:
        async with Session(max_age=0.05) as session:
            await pipeline(exchange, session, MemorySink())
            await anyio.sleep(0.1)
            await pipeline(exchange, session, MemorySink())
            assert asked(exchange, LISTING) == 2
        async with Session() as session:
            await pipeline(exchange, session, MemorySink())
            report = await pipeline(exchange, session, MemorySink(), symbols=["BTCUSDT", "NONEUSDT"])
            assert "NONEUSDT" in report.unknown
            assert asked(exchange, LISTING) == 2 + 1 + 2  # a listing that lacks a name is requested twice

    anyio.run(work)


@attrs.frozen
class Silent:
    """A transport that gets no listing from one host, like one that waits for the end of a ban."""

    host: str
    asked: anyio.Event = attrs.field(factory=anyio.Event)
    inner: CurlFetcher = attrs.field(factory=CurlFetcher)

    def session(self) -> AbstractAsyncContextManager[object]:
        return self.inner.session()

    async def fetch(self, request: Request, egress: Egress) -> Response:
        if (request.base_url, request.path) == (self.host, LISTING):
            self.asked.set()
            await anyio.sleep_forever()
        return await self.inner.fetch(request, egress)


def test_an_exchange_that_does_not_answer_delays_no_other_one(exchange: SimulatedExchange) -> None:
    async def work() -> None:
        fetcher = Silent(silent.base_url)
        async with Session(fetcher=fetcher) as session, anyio.create_task_group() as group:
            group.start_soon(pipeline(silent, session, MemorySink()).run)
            with anyio.fail_after(20):
                await fetcher.asked.wait()
                assert (await pipeline(exchange, session, MemorySink())).complete
            group.cancel_scope.cancel()

    with SimulatedExchange(GeneratedMarket(["BTCUSDT"], seed=4)) as silent:
        anyio.run(work)


def test_a_session_may_be_opened_again_and_not_twice_at_once(exchange: SimulatedExchange) -> None:
    async def work() -> None:
        session = Session()
        for _ in range(2):
            async with session:
                assert (await pipeline(exchange, session, MemorySink())).complete
                with pytest.raises(ConfigurationError, match=r"^session: it is open already;"):
                    await session.__aenter__()
        with pytest.raises(ConfigurationError, match=r"^session: it is not open on this event loop"):
            await pipeline(exchange, session, MemorySink())

    anyio.run(work)


class _SlowToConnect(CurlFetcher):
    """A fetcher whose session takes a few turns of the event loop to open."""

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[None]:
        async with super().session():
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            yield


def test_of_two_tasks_that_open_a_session_at_once_the_second_is_refused(exchange: SimulatedExchange) -> None:
    """Else the one that ends first would close the connections of the other."""
    session = Session(fetcher=_SlowToConnect())

    async def use() -> bool:
        async with session:
            return (await pipeline(exchange, session, MemorySink())).complete

    async def work() -> tuple[bool | BaseException, bool | BaseException]:
        return await asyncio.gather(use(), use(), return_exceptions=True)

    first, second = asyncio.run(work())
    assert first is True
    assert isinstance(second, ConfigurationError)
    assert str(second).startswith("session: it is open already;")


def test_a_session_whose_event_loop_was_closed_can_be_opened_again(exchange: SimulatedExchange) -> None:
    session = Session()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(session.__aenter__())
    loop.close()

    async def work() -> None:
        async with session:
            assert (await pipeline(exchange, session, MemorySink())).complete

    asyncio.run(work())


def test_a_session_that_was_cancelled_while_it_opened_can_be_opened_again(
    exchange: SimulatedExchange,
) -> None:
    session = Session(fetcher=_SlowToConnect())

    async def work() -> None:
        opening = asyncio.create_task(session.__aenter__())
        await anyio.lowlevel.checkpoint()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        async with session:
            assert (await pipeline(exchange, session, MemorySink())).complete

    asyncio.run(work())


@pytest.mark.parametrize(
    "part", [{"proxies": ["10.0.0.1:3128"]}, {"fetcher": CurlFetcher()}, {"board": None}]
)
def test_parts_of_a_session_are_given_to_the_session(part: dict[str, Any]) -> None:
    (name,) = part
    query = Query(symbols="BTCUSDT", **DAY)
    with pytest.raises(ConfigurationError, match=rf"^{name}: belongs to the session; write Session"):
        Pipeline("binance-usdm", query, MemorySink(), session=Session(), **part)


def test_wrong_sessions_are_refused() -> None:
    wrong: Any = Session
    with pytest.raises(
        ConfigurationError, match=r"^session: the class Session is not a Session; write `async with Session"
    ):
        Pipeline("binance-usdm", Query(symbols="BTCUSDT", **DAY), MemorySink(), session=wrong)
    with pytest.raises(ConfigurationError, match=r"^max_age: must be above zero"):
        Session(max_age=0)
    with pytest.raises(ConfigurationError, match=r"^max_age: must be above zero"):
        Session(max_age=float("inf"))


async def _end_of(task: asyncio.Task[object]) -> BaseException | None:
    with anyio.fail_after(20):
        await asyncio.wait([task])
    return task.exception()


CLOSED = r"session: it was closed before this run had ended; leave `async with session:` after its runs"


def test_a_run_that_outlives_its_session_says_so(exchange: SimulatedExchange) -> None:
    async def work() -> None:
        fetcher = Silent(exchange.base_url)
        async with Session(fetcher=fetcher) as session:
            task = asyncio.create_task(pipeline(exchange, session, MemorySink()).run())
            await fetcher.asked.wait()
        error = await _end_of(task)
        assert isinstance(error, ConfigurationError)
        assert str(error) == CLOSED
        assert error.report is not None
        assert not error.report.complete

    anyio.run(work)
