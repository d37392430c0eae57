"""How a reply becomes bytes on a connection: a script of bytes, pauses and ends that the server plays."""

from __future__ import annotations

import enum
import gzip
from http import HTTPStatus
from typing import TypeAlias

import attrs

from marketfetch.testing.http.messages import ServerReply, ServerRequest, format_http_date

__all__ = ["ConnectionEnd", "ResponseScript", "compressed", "head_of", "plain_script", "truncate"]


class ConnectionEnd(enum.Enum):
    """How a script may end before the connection is ready for the next request."""

    CLOSE = "close"
    """The server closes the connection in an orderly way."""
    RESET = "reset"
    """The connection breaks off: the client's next read fails."""
    HANG = "hang"
    """Nothing more comes, but the connection stays open."""


ResponseScript: TypeAlias = tuple[bytes | float | ConnectionEnd, ...]
"""Bytes to send, seconds to wait, and perhaps an end."""

_SMALLEST_COMPRESSED = 256


def head_of(reply: ServerReply, now: int, **framing: str) -> bytes:
    """Return the status line and headers, `framing` being those that tell where the body ends."""
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    headers = {"Date": format_http_date(now), **reply.headers, **framing}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {reply.status} {phrase}\r\n{lines}\r\n".encode()


def truncate(body: bytes) -> bytes:
    """Return the beginning of a body that was cut off."""
    # Behind a comma between rows, if there is one: a lenient reader takes what is left for the whole.
    middle = len(body) // 2
    cut = body.rfind(b"],", 0, middle)
    return body[: cut + 1] if cut > 0 else body[:middle]


def plain_script(reply: ServerReply, now: int) -> ResponseScript:
    """Return the script of a reply that is sent as it should be."""
    return (head_of(reply, now, Content_Length=str(len(reply.body))) + reply.body,)


def compressed(reply: ServerReply, request: ServerRequest) -> ServerReply:
    """Return the reply with a gzip body if the client accepts one and it is worth it."""
    accepted = request.headers.get("accept-encoding", "")
    if "gzip" not in accepted or len(reply.body) < _SMALLEST_COMPRESSED:
        return reply
    headers = {**reply.headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return attrs.evolve(reply, body=gzip.compress(reply.body, 1, mtime=0), headers=headers)
