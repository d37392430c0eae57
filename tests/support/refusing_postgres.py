"""A peer of the PostgreSQL protocol that refuses every connection, in any language."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import attrs

__all__ = ["RefusingServer", "refusing"]

_ENCRYPTION = (80_877_103, 80_877_104)
"""The requests for SSL and for GSSAPI encryption; the answer N refuses both."""


@attrs.define
class RefusingServer:
    """The error that it sends, and the number of its connections."""

    port: int
    connections: int = 0


@contextmanager
def refusing(
    state: str, message: str, *, severity: str = "FATAL", password: bool = False
) -> Iterator[RefusingServer]:
    """Run a server on loopback that answers every start-up with one ErrorResponse.

    With `password` it asks for one first, as a server does that looks into the database only afterwards.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = RefusingServer(listening.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return  # closed: the test is over
                server.connections += 1
                with connection:
                    connection.settimeout(10)
                    _refuse(connection, _error_response(severity, state, message), password=password)

        thread = Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown(socket.SHUT_RDWR)  # wakes up accept()
            thread.join(10)


def _refuse(connection: socket.socket, answer: bytes, *, password: bool) -> None:
    try:
        while True:
            length, code = struct.unpack("!ii", _exactly(connection, 8))
            if code not in _ENCRYPTION:
                break
            connection.sendall(b"N")
        _exactly(connection, length - 8)
        if password:
            connection.sendall(b"R" + struct.pack("!ii", 8, 3))  # in clear text
            (length,) = struct.unpack("!xi", _exactly(connection, 5))
            _exactly(connection, length - 4)
        connection.sendall(answer)
    except (OSError, EOFError):
        pass  # the client has closed the connection


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = connection.recv(count - len(found))
        if not piece:
            raise EOFError
        found += piece
    return found


def _error_response(severity: str, state: str, message: str) -> bytes:
    fields = {"S": severity, "V": "FATAL", "C": state, "M": message}
    body = b"".join(f"{name}{value}\0".encode() for name, value in fields.items()) + b"\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body
