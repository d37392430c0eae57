"""Requests and replies of a simulated exchange, as values."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl
from wsgiref.handlers import format_date_time

import attrs

__all__ = ["ServerReply", "ServerRequest", "format_http_date"]


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
