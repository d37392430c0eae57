from __future__ import annotations

import asyncio
import gc
import socket
import warnings

import pytest

from marketfetch.testing.http.background_loop import BackgroundLoop
from marketfetch.testing.http.messages import ServerRequest
from marketfetch.testing.http.script import ResponseScript
from marketfetch.testing.http.server import HttpServer


async def test_a_handler_that_fails_is_reported_and_not_taken_for_a_bad_request() -> None:
    def failing(request: ServerRequest) -> ResponseScript:
        raise LookupError(request.path)

    reported: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context.get("exception")))
    server = HttpServer(failing, lambda _: None)
    host, port = await server.start("127.0.0.1", 0, None)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET /here HTTP/1.1\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    await server.close()
    assert len(reported) == 1
    assert isinstance(reported[0], Exception)
    assert isinstance(reported[0].__context__, LookupError)


def test_a_background_loop_is_started_once_and_used_only_while_it_runs() -> None:
    background = BackgroundLoop("test")

    async def nothing() -> int:
        return 1

    with pytest.raises(RuntimeError, match="not running"):
        background.run(nothing())
    background.stop()
    background.start()
    assert background.run(nothing()) == 1
    with pytest.raises(RuntimeError, match="already running"):
        background.start()
    background.stop()


@pytest.mark.parametrize("turns", range(5))
async def test_who_is_accepted_while_the_server_closes_is_not_left_open(turns: int) -> None:
    gc.collect()  # what other tests have left open
    await _close_while_clients_come(turns)
    with warnings.catch_warnings(record=True) as left_open:
        warnings.simplefilter("always", ResourceWarning)
        gc.collect()
    assert [str(warning.message) for warning in left_open] == []


async def _close_while_clients_come(turns: int) -> None:
    server = HttpServer(lambda _: (), lambda _: None)
    address = await server.start("127.0.0.1", 0, None)
    clients = [_connected(address) for _ in range(5)]
    for _ in range(turns):
        await asyncio.sleep(0)
    await server.close()
    for client in clients:
        client.close()


def _connected(address: tuple[str, int]) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(address)  # the kernel completes it: the server has not accepted it yet
    return client
