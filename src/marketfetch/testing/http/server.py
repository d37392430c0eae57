"""A small HTTP/1.1 server that controls every byte sent, and its time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

from marketfetch.common.optional_packages import from_extra
from marketfetch.testing.http.messages import ServerRequest
from marketfetch.testing.http.script import ConnectionEnd, ResponseScript

with from_extra("simulator", "marketfetch.testing"):
    import httptools

__all__ = ["Handler", "HttpServer", "reset", "stop_accepting"]

Handler = Callable[[ServerRequest], ResponseScript]


def reset(transport: asyncio.BaseTransport) -> None:
    """Close a connection with a TCP reset instead of an orderly end."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # the other side may have closed it already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    cast("asyncio.WriteTransport", transport).abort()


async def stop_accepting(server: asyncio.Server) -> None:
    """Stop listening, after clients just accepted have become connections.

    asyncio accepts a client in one iteration of the loop and creates its transport in the next. If the server
    is closed in between, the transport's constructor fails silently and the socket stays open.
    """
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
    for _ in range(3):
        await asyncio.sleep(0)
    server.close()


class HttpServer:
    """Plays for every request the script that `handler` returns.

    The handler runs on the event loop and must not block; pauses are part of the script. Call `start` and
    `close` on the event loop that serves.
    """

    def __init__(self, handler: Handler, on_connection: Callable[[str], None]) -> None:
        self._handler = handler
        self._on_connection = on_connection
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext | None) -> tuple[str, int]:
        """Listen and return the address; port 0 selects a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, host, port, ssl=context, backlog=1024)
        address: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return address

    async def close(self) -> None:
        """Stop listening and abort every connection."""
        if self._server is not None:
            await stop_accepting(self._server)
        # A client just accepted needs some iterations of the loop to become a connection, and one more until
        # `connection_lost` is called.
        for _ in range(8):
            for connection in tuple(self._connections):
                connection.abort()
            await asyncio.sleep(0)

    def _connection(self) -> _Connection:
        return _Connection(self._handler, self._on_connection, self._connections)


class _Connection(asyncio.Protocol):
    """One client connection: plays the scripts in the order of the requests."""

    def __init__(
        self, handler: Handler, on_connection: Callable[[str], None], connections: set[_Connection]
    ) -> None:
        self._handler = handler
        self._on_connection = on_connection
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._client = ""
        self._target = b""
        self._headers: dict[str, str] = {}
        self._scripts: deque[deque[bytes | float | ConnectionEnd]] = deque()
        self._waiting: asyncio.TimerHandle | None = None
        self._silent = False
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        peer = transport.get_extra_info("peername")
        if peer is None:  # the client closed the connection before it was accepted
            self._transport.abort()
            return
        self._client = peer[0]
        self._on_connection(self._client)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)
        if self._waiting is not None:
            self._waiting.cancel()

    def pause_writing(self) -> None:
        """Pause the script: the write buffer is full (called by the loop)."""
        self._full = True

    def resume_writing(self) -> None:
        """Resume the script (called by the loop)."""
        self._full = False
        if self._waiting is None:
            # In the next iteration: a transport that fails during this call would close itself twice.
            self._waiting = asyncio.get_running_loop().call_later(0, self._play)

    def abort(self) -> None:
        """Close the connection immediately."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            # The handler failed, not the client: the loop reports the error and closes the connection.
            raise
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.write(
                    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
                self._transport.close()

    def on_message_begin(self) -> None:
        """Begin a request (called by the parser)."""
        self._target, self._headers = b"", {}

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request target (called by the parser)."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header (called by the parser)."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_message_complete(self) -> None:
        """Answer the request (called by the parser)."""
        method = self._parser.get_method().decode("ascii")
        request = ServerRequest.parse(method, self._target.decode("latin-1"), self._headers, self._client)
        script = deque(self._handler(request))
        if not self._parser.should_keep_alive():
            script.append(ConnectionEnd.CLOSE)
        self._scripts.append(script)
        if len(self._scripts) == 1:
            self._play()

    def _play(self) -> None:
        self._waiting = None
        while self._scripts and self._transport is not None and not self._silent:
            script = self._scripts[0]
            while script:
                if self._transport.is_closing():
                    return  # the client is gone; `connection_lost` will follow
                if self._full and isinstance(script[0], bytes):
                    return  # until `resume_writing`
                step = script.popleft()
                if isinstance(step, (int, float)):
                    self._waiting = asyncio.get_running_loop().call_later(step, self._play)
                    return
                if isinstance(step, ConnectionEnd):
                    self._end(step)
                    return
                self._transport.write(step)
            self._scripts.popleft()

    def _end(self, end: ConnectionEnd) -> None:
        assert self._transport is not None
        self._silent = True
        if end is ConnectionEnd.CLOSE:
            self._transport.close()
        elif end is ConnectionEnd.RESET:
            reset(self._transport)
