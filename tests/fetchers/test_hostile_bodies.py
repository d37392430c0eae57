"""Answers without measure and answers that lead elsewhere: refused at the cap, never held, never followed."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from marketfetch.adapters.binance_usdm import BinanceUsdm
from marketfetch.errors import TransportError
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.testing import FaultKind, Faults, GeneratedMarket, SimulatedExchange, SimulatorOptions
from marketfetch.values.http import Egress, Request
from tests.fetchers.wire import wire

DIRECT = Egress("Direct")
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(GeneratedMarket(["BTCUSDT"]), SimulatorOptions(limits=None)) as running:
        yield running


def ping(exchange: SimulatedExchange) -> Request:
    request = BinanceUsdm(exchange.base_url).time_request()
    return BinanceUsdm(exchange.base_url).with_base_url(request)


@pytest.fixture
def most_memory() -> Iterator[Callable[[], int]]:
    """Tell how many bytes Python has held at most, of the exchange and of the client."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("compression", [True, False])
@pytest.mark.parametrize("kind", [FaultKind.HUGE_BODY, FaultKind.HUGE_CHUNKED_BODY, FaultKind.GZIP_BOMB])
async def test_a_hundred_megabytes_are_refused_at_the_cap_and_never_held(
    exchange: SimulatedExchange, most_memory: Callable[[], int], kind: FaultKind, compression: bool
) -> None:
    exchange.faults = Faults(rate=1, kinds=[kind])
    fetcher = CurlFetcher(max_body=MEGABYTE, compression=compression)
    async with fetcher.session():
        with pytest.raises(TransportError, match="larger than max_body = 1048576 bytes"):
            await fetcher.fetch(ping(exchange), DIRECT)
        assert most_memory() < 20 * MEGABYTE
        response = await fetcher.fetch(ping(exchange), DIRECT)
    assert b"serverTime" in response.body


@pytest.mark.parametrize("compression", [True, False])
@pytest.mark.parametrize("kind", [FaultKind.DAMAGED_GZIP, FaultKind.ENDLESS_HEADERS, FaultKind.CUT_CHUNKS])
async def test_what_does_not_arrive_whole_is_a_transport_error(
    exchange: SimulatedExchange, kind: FaultKind, compression: bool
) -> None:
    exchange.faults = Faults(rate=1, kinds=[kind])
    fetcher = CurlFetcher(compression=compression)
    async with fetcher.session():
        with pytest.raises(TransportError):
            await fetcher.fetch(ping(exchange), DIRECT)
        response = await fetcher.fetch(ping(exchange), DIRECT)
    assert b"serverTime" in response.body


async def test_what_comes_after_the_announced_end_is_no_answer_to_the_next_question(
    exchange: SimulatedExchange,
) -> None:
    exchange.faults = Faults(rate=1, kinds=[FaultKind.LONG_BODY])
    fetcher = CurlFetcher()
    async with fetcher.session():
        short = await fetcher.fetch(ping(exchange), DIRECT)
        for _ in range(3):
            whole = await fetcher.fetch(ping(exchange), DIRECT)
            assert (whole.status, len(whole.body) // 2) == (200, len(short.body))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_host_is_not_followed(status: int) -> None:
    visitors: list[object] = []
    elsewhere = await asyncio.start_server(lambda _, writer: visitors.append(writer), "127.0.0.1", 0)
    port = elsewhere.sockets[0].getsockname()[1]
    answer = f"HTTP/1.1 {status} Go\r\nLocation: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r\n"
    fetcher = CurlFetcher()
    async with wire(answer.encode()) as server, fetcher.session():
        response = await fetcher.fetch(server.request(), DIRECT)
        await asyncio.sleep(0.05)
    elsewhere.close()
    assert response.status == status
    assert visitors == []
    assert len(server.requests) == 1
