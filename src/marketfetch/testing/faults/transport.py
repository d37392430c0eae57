"""Send a reply wrongly: slowly, in part, badly compressed, or without an end."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import attrs

from marketfetch.testing.faults.kinds import FaultKind
from marketfetch.testing.http.messages import ServerReply
from marketfetch.testing.http.script import ConnectionEnd, ResponseScript, head_of, plain_script, truncate

__all__ = ["broken_script"]

_MEGABYTE = 2**20
_HUGE = 100
"""Megabytes."""


def broken_script(kind: FaultKind | None, reply: ServerReply, now: int) -> ResponseScript | None:
    """Return the script of a fault of the connection; None for all other faults."""
    fault = None if kind is None else _WIRE_FAULTS.get(kind)
    return None if fault is None else fault(reply, now)


def _slow_drip(reply: ServerReply, now: int) -> ResponseScript:
    size = max(1, -(-len(reply.body) // 10))
    pieces = [reply.body[at : at + size] for at in range(0, len(reply.body), size)]
    steps: list[bytes | float | ConnectionEnd] = [head_of(reply, now, Content_Length=str(len(reply.body)))]
    for piece in pieces:
        steps += [0.1, piece]
    return tuple(steps)


def _cut_body(reply: ServerReply, now: int) -> ResponseScript:
    return (
        head_of(reply, now, Content_Length=str(len(reply.body))) + truncate(reply.body),
        ConnectionEnd.CLOSE,
    )


def _cut_chunks(reply: ServerReply, now: int) -> ResponseScript:
    half = truncate(reply.body)
    return (
        head_of(reply, now, Transfer_Encoding="chunked") + b"%x\r\n%b\r\n" % (len(half), half),
        ConnectionEnd.CLOSE,
    )


def _reset(reply: ServerReply, now: int) -> ResponseScript:
    head = head_of(reply, now, Content_Length=str(len(reply.body)))
    # The pause lets the first half arrive: a reset discards data that the client has not read yet.
    return (head + truncate(reply.body), 0.02, ConnectionEnd.RESET)


def _slow_loris(reply: ServerReply, now: int) -> ResponseScript:
    whole = head_of(reply, now, Content_Length=str(len(reply.body))) + reply.body
    steps: list[bytes | float | ConnectionEnd] = []
    for byte in whole[:1000]:
        steps += [bytes((byte,)), 0.05]
    return (*steps, ConnectionEnd.HANG)


def _endless_headers(reply: ServerReply, now: int) -> ResponseScript:
    head = head_of(reply, now).removesuffix(b"\r\n")
    line = b"X-Padding: " + b"x" * 10_000 + b"\r\n"
    return (head, *[line] * 1000, ConnectionEnd.HANG)


def _long_body(reply: ServerReply, now: int) -> ResponseScript:
    return (head_of(reply, now, Content_Length=str(len(reply.body) // 2)) + reply.body,)


def _zipped(reply: ServerReply) -> ServerReply:
    if "Content-Encoding" in reply.headers:
        return reply
    headers = {**reply.headers, "Content-Encoding": "gzip"}
    return attrs.evolve(reply, body=gzip.compress(reply.body, 1, mtime=0), headers=headers)


def _cut_gzip(reply: ServerReply, now: int) -> ResponseScript:
    whole = _zipped(reply)
    return plain_script(attrs.evolve(whole, body=whole.body[: len(whole.body) // 2]), now)


def _damaged_gzip(reply: ServerReply, now: int) -> ResponseScript:
    whole = _zipped(reply)
    body = bytearray(whole.body)
    body[len(body) // 2] ^= 0x10
    return plain_script(attrs.evolve(whole, body=bytes(body)), now)


def _gzip_bomb(reply: ServerReply, now: int) -> ResponseScript:
    # After a full flush a block refers to no earlier data, so that one compressed block can be repeated. The
    # end of the stream is missing: a client that reads that far has failed already.
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    first = packer.compress(reply.body) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(b" " * _MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH)
    headers = {**reply.headers, "Content-Encoding": "gzip"}
    return plain_script(attrs.evolve(reply, body=first + block * _HUGE, headers=headers), now)


def _huge_body(reply: ServerReply, now: int) -> ResponseScript:
    size = len(reply.body) + _HUGE * _MEGABYTE
    return (head_of(reply, now, Content_Length=str(size)), reply.body, *[b" " * _MEGABYTE] * _HUGE)


def _huge_chunked_body(reply: ServerReply, now: int) -> ResponseScript:
    blanks = _chunk(b" " * _MEGABYTE)
    head = head_of(reply, now, Transfer_Encoding="chunked")
    return (head, _chunk(reply.body), *[blanks] * _HUGE, b"0\r\n\r\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_WIRE_FAULTS: Mapping[FaultKind, Callable[[ServerReply, int], ResponseScript]] = MappingProxyType(
    {
        FaultKind.HANG: lambda _reply, _now: (ConnectionEnd.HANG,),
        FaultKind.SLOW_DRIP: _slow_drip,
        FaultKind.SLOW_LORIS: _slow_loris,
        FaultKind.ENDLESS_HEADERS: _endless_headers,
        FaultKind.CUT_BODY: _cut_body,
        FaultKind.LONG_BODY: _long_body,
        FaultKind.CUT_GZIP: _cut_gzip,
        FaultKind.DAMAGED_GZIP: _damaged_gzip,
        FaultKind.GZIP_BOMB: _gzip_bomb,
        FaultKind.HUGE_BODY: _huge_body,
        FaultKind.HUGE_CHUNKED_BODY: _huge_chunked_body,
        FaultKind.CUT_CHUNKS: _cut_chunks,
        FaultKind.RESET: _reset,
    }
)
