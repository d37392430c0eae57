"""How a reply becomes bytes on a connection: a script of bytes, pauses and ends that the server plays."""

from __future__ import annotations

import enum
import gzip
from http import HTTPStatus
from typing import TypeAlias

import attrs

from marketfetch.testing.http.messages import Reply, Request, http_date

__all__ = ["End", "Script", "compressed", "half_of", "head_of", "plain_script"]


class End(enum.Enum):
    """How a script may end before the connection is ready for the next request."""

    CLOSE = "close"
    """The server closes the connection in an orderly way."""
    RESET = "reset"
    """The connection breaks off: the client's next read fails."""
    HANG = "hang"
    """Nothing more comes, but the connection stays open."""


Script: TypeAlias = tuple[bytes | float | End, ...]
"""Bytes to send, seconds to wait, and perhaps an end."""

_SMALLEST_COMPRESSED = 256


def head_of(reply: Reply, now: int, **framing: str) -> bytes:
    """Return the status line and headers, `framing` being those that tell where the body ends."""
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    headers = {"Date": http_date(now), **reply.headers, **framing}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {reply.status} {phrase}\r\n{lines}\r\n".encode()


def half_of(body: bytes) -> bytes:
    """Return the beginning of a body that was cut off."""
    # Behind a comma between rows, if there is one: a lenient reader takes what is left for the whole.
    middle = len(body) // 2
    cut = body.rfind(b"],", 0, middle)
    return body[: cut + 1] if cut > 0 else body[:middle]


def plain_script(reply: Reply, now: int) -> Script:
    """Return the script of a reply that is sent as it should be."""
    return (head_of(reply, now, Content_Length=str(len(reply.body))) + reply.body,)


def compressed(reply: Reply, request: Request) -> Reply:
    """Return the reply with a gzip body if the client accepts one and it is worth it."""
    accepted = request.headers.get("accept-encoding", "")
    if "gzip" not in accepted or len(reply.body) < _SMALLEST_COMPRESSED:
        return reply
    headers = {**reply.headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return attrs.evolve(reply, body=gzip.compress(reply.body, 1, mtime=0), headers=headers)
