"""Requests and replies of a simulated exchange, as values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl
from wsgiref.handlers import format_date_time

import attrs
import msgspec

__all__ = ["ServerReply", "ServerRequest", "format_http_date", "html_reply", "json_reply", "part_of"]


def format_http_date(ms: int) -> str:
    """Return UTC milliseconds as an HTTP date.

    >>> format_http_date(0)
    'Thu, 01 Jan 1970 00:00:00 GMT'
    """
    return format_date_time(ms / 1000)


@attrs.frozen
class ServerRequest:
    """One HTTP request as the server received it; header names are in lower case."""

    method: str
    target: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    client: str
    """The IP address of the client, by which rate limits are counted."""

    @classmethod
    def parse(cls, method: str, target: str, headers: Mapping[str, str], client: str) -> ServerRequest:
        """Parse a request target such as `/fapi/v1/klines?symbol=BTCUSDT`."""
        path, _, query = target.partition("?")
        return cls(method, target, path, dict(parse_qsl(query, keep_blank_values=True)), headers, client)

    @property
    def key(self) -> str:
        """Path and sorted parameters: the same for every client and every order of parameters."""
        return f"{self.path}?{'&'.join(f'{name}={value}' for name, value in sorted(self.params.items()))}"


@attrs.frozen
class ServerReply:
    """One HTTP reply: status, body, and headers other than Date, Content-Length and Transfer-Encoding."""

    status: int
    body: bytes
    headers: Mapping[str, str] = attrs.field(factory=dict)


def json_reply(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> ServerReply:
    """Return a reply with JSON; `content` may be `msgspec.Raw`."""
    named = {"Content-Type": "application/json", **(headers or {})}
    return ServerReply(status, msgspec.json.encode(content), named)


def html_reply(status: int, page: bytes, **headers: str) -> ServerReply:
    """Return a reply with a page of HTML, which is what a proxy or a CDN sends."""
    return ServerReply(status, page, {"Content-Type": "text/html", **headers})


def part_of(reply: ServerReply, asked: str) -> ServerReply:
    """Return the part of a good reply that `Range: bytes=A-B` asks for, or 416 if A is beyond its end.

    The whole reply is returned for any other range, and without one.

    >>> part_of(ServerReply(200, b"1234567"), "bytes=4-99").headers
    {'Content-Range': 'bytes 4-6/7'}
    """
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
    if found is None or reply.status != 200:
        return reply
    first, size = int(found[1]), len(reply.body)
    if first >= size:
        return ServerReply(416, b"", {"Content-Range": f"bytes */{size}"})
    body = reply.body[first : int(found[2]) + 1]
    place = {"Content-Range": f"bytes {first}-{first + len(body) - 1}/{size}"}
    return ServerReply(206, body, {**reply.headers, **place})
