"""A server on loopback in a background thread, in a `with` block or from `start` to `stop`."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Self

import attrs

from marketfetch.testing.http.background_loop import BackgroundLoop
from marketfetch.testing.http.server import Handler, HttpServer
from marketfetch.testing.http.tls import server_context

__all__ = ["LoopbackAddress", "LoopbackServer"]


@attrs.frozen
class LoopbackAddress:
    """Where a server listens: port 0 selects a free port, and `tls` serves HTTPS."""

    host: str
    port: int
    tls: bool


class LoopbackServer:
    """Inside its `with` block, or from `start` to `stop`, a background thread serves `base_url`.

    It may be started again. A notebook, whose cells no block can enclose, calls `start`; a server that is not
    stopped ends with its process.

    `name` is the name of the thread, such as `simulated-exchange`.
    """

    def __init__(
        self, name: str, place: LoopbackAddress, handler: Handler, on_connection: Callable[[str], None]
    ) -> None:
        self._name = name
        self._place = place
        self._background = BackgroundLoop(name)
        self._server = HttpServer(handler, on_connection)
        self._address: tuple[str, int] | None = None
        self._certificate: Path | None = None

    @property
    def address(self) -> tuple[str, int]:
        """The host and port of the server. Raises RuntimeError if it is not running."""
        if self._address is None:
            name = self._name.replace("-", " ")
            raise RuntimeError(f"the {name} is not running: enter its context manager, or start it, first")
        return self._address

    @property
    def base_url(self) -> str:
        """The URL that replaces the real hosts. Raises RuntimeError if it is not running."""
        host, port = self.address
        return f"{'https' if self._place.tls else 'http'}://{host}:{port}"

    @property
    def certificate(self) -> Path | None:
        """The file of the certificate authority that a client must trust; None without TLS."""
        return self._certificate

    def start(self) -> Self:
        """Start to serve, and return the server. Raises RuntimeError if it is running already."""
        context: ssl.SSLContext | None = None
        if self._place.tls:
            context, self._certificate = server_context()
        self._background.start()
        try:
            work = self._server.start(self._place.host, self._place.port, context)
            self._address = self._background.run(work)
        except BaseException:
            self._stop()
            raise
        return self

    def stop(self) -> None:
        """Close all connections and end the thread. Raises RuntimeError if the server is not running."""
        self._background.run(self._server.close())
        self._stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _stop(self) -> None:
        self._background.stop()
        self._address = None
        if self._certificate is not None:
            self._certificate.unlink(missing_ok=True)
            self._certificate = None
