"""Response scripts: the bytes, pauses and connection ends that the server plays for a reply."""

from __future__ import annotations

import enum
import gzip
from http import HTTPStatus
from typing import TypeAlias

import attrs

from marketfetch.testing.http.messages import ServerReply, ServerRequest, format_http_date

__all__ = ["ConnectionEnd", "ResponseScript", "compressed", "head_of", "plain_script", "truncate"]


class ConnectionEnd(enum.Enum):
    """How a script may end the connection before the next request."""

    CLOSE = "close"
    """The server closes the connection in an orderly way."""
    RESET = "reset"
    """The server resets the connection: the client's next read fails."""
    HANG = "hang"
    """The server sends nothing more and keeps the connection open."""


ResponseScript: TypeAlias = tuple[bytes | float | ConnectionEnd, ...]
"""Bytes to send, seconds to wait, and optionally an end."""

_SMALLEST_COMPRESSED = 256


def head_of(reply: ServerReply, now: int, **framing: str) -> bytes:
    """Return status line and headers; `framing` is Content-Length or Transfer-Encoding."""
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    headers = {"Date": format_http_date(now), **reply.headers, **framing}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {reply.status} {phrase}\r\n{lines}\r\n".encode()


def truncate(body: bytes) -> bytes:
    """Return about the first half of a body."""
    # Cut before a comma between rows if possible: a lenient parser would accept the rest as complete.
    middle = len(body) // 2
    cut = body.rfind(b"],", 0, middle)
    return body[: cut + 1] if cut > 0 else body[:middle]


def plain_script(reply: ServerReply, now: int) -> ResponseScript:
    """Return the script that sends a reply correctly."""
    return (head_of(reply, now, Content_Length=str(len(reply.body))) + reply.body,)


def compressed(reply: ServerReply, request: ServerRequest) -> ServerReply:
    """Return the reply with a gzip body if the client accepts gzip and the body is not small."""
    accepted = request.headers.get("accept-encoding", "")
    if "gzip" not in accepted or len(reply.body) < _SMALLEST_COMPRESSED:
        return reply
    headers = {**reply.headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return attrs.evolve(reply, body=gzip.compress(reply.body, 1, mtime=0), headers=headers)
