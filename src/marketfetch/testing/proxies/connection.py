"""One client connection of a local proxy: forwards plain requests, tunnels CONNECT."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs
import httptools

from marketfetch.testing.http.server import reset

if TYPE_CHECKING:  # which imports this module
    from marketfetch.testing.proxies.local_proxy import LocalProxy

__all__ = ["BUFFER", "ProxyConnection"]

BUFFER = 2**20
_CHUNK = 2**18
_DRIP = 4096
_DRIP_PAUSE = 0.05


@attrs.frozen
class _Head:
    """Request line and headers as the client sent them."""

    method: str
    target: str
    lines: tuple[str, ...]
    headers: Mapping[str, str]

    @classmethod
    def parse(cls, data: bytes) -> _Head:
        first, *lines = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, _version = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return cls(method, target, tuple(lines), headers)

    def origin_form(self, path: str) -> bytes:
        """Return the head for the exchange, without the headers for the proxy."""
        lines = [line for line in self.lines if not line.lower().startswith("proxy-")]
        return "\r\n".join([f"{self.method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1")


class _EndOfResponse:
    """Parses a response as it passes, to find its end."""

    def __init__(self) -> None:
        self.complete = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            # A broken response is passed on unchanged; it ends when the exchange closes the connection.
            self.complete = False

    def on_message_complete(self) -> None:
        self.complete = True


@attrs.define
class _Upstream:
    """The connection to an exchange, kept for the next request to the same address."""

    address: tuple[str, int]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class ProxyConnection:
    """Serves one client until either side closes its connection."""

    def __init__(self, proxy: LocalProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._upstream: _Upstream | None = None

    async def serve(self) -> None:
        """Serve requests until the connection ends."""
        try:
            while await self._serve_one():
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # One side is gone or sends no HTTP: closing both connections informs the other side.
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Abort the connections to client and exchange."""
        self._writer.transport.abort()
        if self._upstream is not None:
            self._upstream.writer.transport.abort()
            self._upstream = None

    async def _serve_one(self) -> bool:
        head = _Head.parse(await self._reader.readuntil(b"\r\n\r\n"))
        await self._apply_mode()
        if self._writer.transport.is_closing():
            return False
        if self._proxy.mode == "demand_credentials" or not self._authorised(head):
            await self._send_status(
                407, "Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="proxy"\r\n'
            )
            return True
        if head.method == "CONNECT":
            await self._tunnel(head)
            return False
        return await self._forward(head)

    def _authorised(self, head: _Head) -> bool:
        if self._proxy.credentials is None:
            return True
        expected = base64.b64encode(":".join(self._proxy.credentials).encode()).decode()
        return head.headers.get("proxy-authorization") == f"Basic {expected}"

    async def _send_status(self, status: int, phrase: str, headers: str = "") -> None:
        self._writer.write(f"HTTP/1.1 {status} {phrase}\r\n{headers}Content-Length: 0\r\n\r\n".encode())
        await self._writer.drain()

    async def _connect(self, host: str, port: int) -> _Upstream | None:
        """Return a connection from the proxy's address; if it fails, send 502 and return None."""
        if self._upstream is not None and self._upstream.address == (host, port):
            return self._upstream
        if self._upstream is not None:
            self._upstream.writer.transport.abort()
        try:
            reader, writer = await asyncio.open_connection(
                host, port, limit=BUFFER, local_addr=(self._proxy.source, 0)
            )
        except OSError:
            await self._send_status(502, "Bad Gateway")
            return None
        self._upstream = _Upstream((host, port), reader, writer)
        return self._upstream

    async def _forward(self, head: _Head) -> bool:
        url = urlsplit(head.target)
        if url.hostname is None:
            await self._send_status(400, "Bad Request")
            return False
        upstream = await self._connect(url.hostname, url.port or 80)
        if upstream is None:
            return True
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        body = await self._reader.readexactly(int(head.headers.get("content-length", "0")))
        upstream.writer.write(head.origin_form(path) + body)
        self._proxy.count_request()
        end = _EndOfResponse()
        while not end.complete:
            data = await upstream.reader.read(_CHUNK)
            if not data:
                return False
            end.feed(data)
            await self._pass_on(data)
            if self._writer.transport.is_closing():
                return False
        return True

    async def _tunnel(self, head: _Head) -> None:
        host, _, port = head.target.rpartition(":")
        upstream = await self._connect(host, int(port))
        if upstream is None:
            return
        self._proxy.count_tunnel()
        self._writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        asked = asyncio.create_task(self._pipe_requests(upstream.writer))
        try:
            while data := await upstream.reader.read(_CHUNK):
                await self._pass_on(data)
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    async def _pipe_requests(self, writer: asyncio.StreamWriter) -> None:
        while data := await self._reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        writer.transport.abort()

    async def _apply_mode(self) -> None:
        """Hang or reset the connection if the proxy's mode demands it."""
        while self._proxy.mode == "hang":
            await self._proxy.changed()
        if self._proxy.mode == "reset":
            reset(self._writer.transport)

    async def _pass_on(self, data: bytes) -> None:
        """Pass bytes of a response to the client in the way of the proxy's mode."""
        await self._apply_mode()
        if self._proxy.mode == "slow":
            for at in range(0, len(data), _DRIP):
                self._writer.write(data[at : at + _DRIP])
                await self._writer.drain()  # raises once the client is gone
                await asyncio.sleep(_DRIP_PAUSE)
        elif self._proxy.mode == "die_midway":
            self._writer.write(data[: len(data) // 2])
            await self._writer.drain()
            self._writer.close()
        else:
            self._writer.write(data)
        await self._writer.drain()
