"""The built-in transport against real sockets on loopback."""

from __future__ import annotations

import asyncio
import gzip
import time
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from marketfetch.errors import ConfigurationError, RequestTimeout, TransportError
from marketfetch.fetchers.curl import CurlFetcher
from marketfetch.values.http import Egress
from tests.fetchers.wire import CUT, SILENCE, ok, wire

DIRECT = Egress("Direct")


async def test_an_answer_is_complete() -> None:
    fetcher = CurlFetcher()
    async with wire(ok(b"[1]", "X-MBX-Used-Weight: 7\r\n")) as server, fetcher.session():
        before = time.time_ns() // 1_000_000
        response = await fetcher.fetch(server.request("/é", params={"symbol": "BTC USDT"}), DIRECT)
        after = time.time_ns() // 1_000_000
    assert (response.status, response.body) == (200, b"[1]")
    assert response.headers == {"x-mbx-used-weight": "7", "content-length": "3"}
    assert before <= response.sent_at <= response.received_at <= after
    assert server.requests[0].startswith(b"GET /%C3%A9?symbol=BTC+USDT HTTP/1.1\r\n")


async def test_it_looks_like_a_browser() -> None:
    fetcher = CurlFetcher(impersonate="firefox")
    async with wire(ok()) as server, fetcher.session():
        await fetcher.fetch(server.request(), DIRECT)
    assert b"Firefox/" in server.requests[0]


@pytest.mark.parametrize("status", [204, 301, 404, 418, 429, 451, 503])
async def test_every_status_is_an_answer_and_redirects_are_not_followed(status: int) -> None:
    answer = f"HTTP/1.1 {status} Any\r\nLocation: /else\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    fetcher = CurlFetcher()
    async with wire(answer.encode()) as server, fetcher.session():
        for _ in range(2):
            response = await fetcher.fetch(server.request(), DIRECT)
            assert response.status == status
    assert len(server.requests) == 2
    assert b"cookie" not in server.requests[1].lower()


async def test_only_the_last_block_of_headers_counts() -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\nDate: no\r\nLink: x\r\n\r\n" + ok(
        b"{}", "Date: yes\r\nDate: indeed\r\n"
    )
    fetcher = CurlFetcher()
    async with wire(answer) as server, fetcher.session():
        response = await fetcher.fetch(server.request(), DIRECT)
    assert response.headers == {"date": "yes, indeed", "content-length": "2"}


async def test_a_post_leaves_nothing_behind_for_the_next_request() -> None:
    fetcher = CurlFetcher()
    headers = {"Content-Type": "application/json", "X-Key": "k"}
    async with wire(ok()) as server, fetcher.session():
        body = b'{"coin": "BTC\x00"}'
        await fetcher.fetch(server.request(method="POST", body=body, headers=headers), DIRECT)
        await fetcher.fetch(server.request(method="POST", body=b"x" * 2_000_000), DIRECT)
        await fetcher.fetch(server.request(), DIRECT)
        await fetcher.fetch(server.request(headers={"X-Other": "o"}), DIRECT)
        await fetcher.fetch(server.request(), DIRECT)
    first, second, third, fourth, fifth = server.requests
    assert first.startswith(b"POST")
    assert first.endswith(b"\r\n\r\n" + body)
    assert b"content-type: application/json" in first.lower()
    assert b"Expect" not in second
    assert b"X-Key" not in second
    for plain in (third, fifth):
        assert plain.startswith(b"GET")
        assert plain.endswith(b"\r\n\r\n")
        assert not any(name in plain for name in (b"X-Key", b"X-Other", b"Content-Type"))
        assert b"user-agent: mozilla" in plain.lower()
    assert b"X-Other: o" in fourth


async def test_connections_are_reused() -> None:
    fetcher = CurlFetcher()
    async with wire(ok(b"x" * 100_000)) as server, fetcher.session(), anyio.create_task_group() as tasks:

        async def work() -> None:
            for _ in range(20):
                assert len((await fetcher.fetch(server.request(), DIRECT)).body) == 100_000

        for _ in range(10):
            tasks.start_soon(work)
    assert len(server.requests) == 200
    assert server.connections == 10


async def test_environment_proxies_are_not_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    fetcher = CurlFetcher()
    async with wire(ok()) as server, fetcher.session():
        assert (await fetcher.fetch(server.request(), DIRECT)).status == 200


@pytest.mark.parametrize(("compression", "asked"), [(True, b"gzip, deflate, br, zstd"), (False, b"identity")])
async def test_compression(compression: bool, asked: bytes) -> None:
    def answer(head: bytes) -> bytes:
        accepts = b"accept-encoding: gzip" in head.lower()
        return ok(gzip.compress(b"[42]"), "Content-Encoding: gzip\r\n") if accepts else ok(b"[42]")

    fetcher = CurlFetcher(compression=compression)
    async with wire(answer) as server, fetcher.session():
        assert (await fetcher.fetch(server.request(), DIRECT)).body == b"[42]"
        await fetcher.fetch(server.request(headers={"X-A": "b"}), DIRECT)
    assert all(head.lower().count(b"accept-encoding: " + asked) == 1 for head in server.requests)


BOMB = gzip.compress(bytes(3_000_000))
BROKEN = {
    "cut": (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345" + CUT, "ended too early"),
    "cut chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n" + CUT, "Direct: "),
    "no answer": (CUT, "Direct: "),
    "no http": (b"SSH-2.0-OpenSSH_9.2\r\n" + CUT, "Direct: "),
    "not gzip": (ok(b"[1, 2, 3]", "Content-Encoding: gzip\r\n"), "decompressed"),
    "gzip cut short": (ok(BOMB[:-9], "Content-Encoding: gzip\r\n"), "Direct: "),
    "announced too large": (ok(bytes(1_000_001)), "max_body = 1000000 bytes"),
    "grows too large": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nF4241\r\n"
        + bytes(1_000_001)
        + b"\r\n0\r\n\r\n",
        "max_body = 1000000 bytes",
    ),
    "inflates too large": (ok(BOMB, "Content-Encoding: gzip\r\n"), "max_body = 1000000 bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_answer_is_a_transport_error_and_the_next_one_is_fine(case: str) -> None:
    answer, message = BROKEN[case]

    def next_answer(head: bytes) -> bytes:
        return ok(b"fine") if head.startswith(b"GET /next") else answer

    fetcher = CurlFetcher(max_body=1_000_000)
    async with wire(next_answer) as server, fetcher.session():
        with pytest.raises(TransportError, match=message) as caught:
            await fetcher.fetch(server.request(), DIRECT)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert (await fetcher.fetch(server.request("/next"), DIRECT)).body == b"fine"


async def test_nobody_listens() -> None:
    fetcher = CurlFetcher()
    async with wire(ok()) as server:
        pass
    async with fetcher.session():
        with pytest.raises(TransportError, match="Direct: Failed to connect"):
            await fetcher.fetch(server.request(), DIRECT)


@pytest.mark.parametrize("silent", [SILENCE, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab" + SILENCE])
async def test_a_black_hole_times_out(silent: bytes) -> None:
    fetcher = CurlFetcher(timeout=0.2)
    async with wire(silent) as server, fetcher.session():
        with pytest.raises(RequestTimeout, match=r"Direct: no complete answer within 0\.2 s"):
            await fetcher.fetch(server.request(), DIRECT)
        server.answer = lambda _: ok(b"fine")
        answers: list[bytes] = []
        while not answers:
            with suppress(RequestTimeout):  # an answer may be late on a busy machine
                answers.append((await fetcher.fetch(server.request(), DIRECT)).body)
        assert answers == [b"fine"]


async def test_cancelling_fifty_requests_leaves_the_others_alone() -> None:
    def answer(head: bytes) -> bytes:
        return SILENCE if b"/hang" in head else ok(b"fine")

    fetcher = CurlFetcher()
    async with wire(answer) as server, fetcher.session():
        for _ in range(3):
            server.requests.clear()
            async with anyio.create_task_group() as tasks:
                for _ in range(50):
                    tasks.start_soon(fetcher.fetch, server.request("/hang"), DIRECT)
                with anyio.fail_after(20):
                    while len(server.requests) < 50:  # noqa: ASYNC110  # a list has no event
                        await anyio.sleep(0.001)
                tasks.cancel_scope.cancel()
            bodies: list[bytes] = []
            async with anyio.create_task_group() as tasks:

                async def collect() -> None:
                    bodies.append((await fetcher.fetch(server.request(), DIRECT)).body)  # noqa: B023

                for _ in range(50):
                    tasks.start_soon(collect)
            assert bodies == [b"fine"] * 50


async def test_cancelling_at_every_moment_is_safe() -> None:
    fetcher = CurlFetcher()
    async with wire(ok(bytes(300_000))) as server, fetcher.session():
        for microseconds in range(0, 6_000, 40):
            with anyio.move_on_after(microseconds / 1_000_000):
                await fetcher.fetch(server.request(), DIRECT)
        assert len((await fetcher.fetch(server.request(), DIRECT)).body) == 300_000


def test_one_fetcher_serves_event_loops_one_after_another() -> None:
    fetcher = CurlFetcher()

    async def once() -> int:
        async with wire(ok()) as server, fetcher.session():
            return (await fetcher.fetch(server.request(), DIRECT)).status

    assert [anyio.run(once) for _ in range(3)] == [200] * 3


def test_one_fetcher_serves_event_loops_side_by_side() -> None:
    fetcher = CurlFetcher()

    async def many() -> list[int]:
        async with wire(ok()) as server, fetcher.session():
            return [(await fetcher.fetch(server.request(), DIRECT)).status for _ in range(50)]

    async def threads() -> list[list[int]]:
        jobs = [asyncio.to_thread(asyncio.run, many()) for _ in range(3)]
        return await asyncio.gather(*jobs)

    assert asyncio.run(threads()) == [[200] * 50] * 3


async def test_leaving_the_session_ends_what_is_under_way() -> None:
    fetcher = CurlFetcher()
    async with wire(SILENCE) as server:
        async with fetcher.session():
            orphan = asyncio.ensure_future(fetcher.fetch(server.request(), DIRECT))
            with anyio.fail_after(20):
                while not server.requests:  # noqa: ASYNC110  # a list has no event
                    await anyio.sleep(0.001)
        with pytest.raises(TransportError, match="the connection ended"):
            await orphan


async def test_sessions_on_one_loop_share_connections_until_the_last_is_left() -> None:
    fetcher = CurlFetcher()
    async with wire(ok()) as server:
        async with fetcher.session():
            async with fetcher.session(), anyio.create_task_group() as group:
                group.start_soon(fetcher.fetch, server.request(), DIRECT)
            assert (await fetcher.fetch(server.request(), DIRECT)).status == 200
        with pytest.raises(ConfigurationError, match=r"async with fetcher\.session"):
            await fetcher.fetch(server.request(), DIRECT)
        async with fetcher.session():
            assert (await fetcher.fetch(server.request(), DIRECT)).status == 200


async def test_misuse_is_named() -> None:
    fetcher = CurlFetcher()
    async with wire(ok()) as server:
        with pytest.raises(ConfigurationError, match=r"async with fetcher\.session"):
            await fetcher.fetch(server.request(), DIRECT)
    with pytest.raises(ConfigurationError, match="impersonate: 'netscape'"):
        async with CurlFetcher(impersonate="netscape").session():
            pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"http_version": "3"}, "http_version: '3' is unknown"),
        ({"timeout": 0}, "timeout: must be above zero"),
        ({"connect_timeout": -1}, "connect_timeout: must be above zero"),
        ({"max_body": 0}, "max_body: must be above zero"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CurlFetcher(**options)


def test_trio_is_told_apart() -> None:
    async def without_loop() -> None:
        async with CurlFetcher().session():
            pass

    with pytest.raises(ConfigurationError, match="asyncio is needed"):
        without_loop().send(None)


async def test_the_event_loop_is_never_held_up() -> None:
    fetcher, turns = CurlFetcher(), list[float]()
    async with wire(ok(bytes(200_000))) as server, fetcher.session(), anyio.create_task_group() as tasks:

        async def watch() -> None:
            while True:
                before = time.thread_time()  # not what else runs on the machine
                await anyio.lowlevel.checkpoint()
                turns.append(time.thread_time() - before)

        tasks.start_soon(watch)
        for _ in range(200):
            await fetcher.fetch(server.request(), DIRECT)
        tasks.cancel_scope.cancel()
    # What each request did would be in 200 turns; a collection of garbage is in one or two.
    assert sorted(turns)[-20] < 0.02
