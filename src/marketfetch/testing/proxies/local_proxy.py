"""Local HTTP proxies that leave from addresses of their own and fail on demand."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterator, Sequence
from typing import Self, overload

from marketfetch.testing.http.background_loop import BackgroundLoop
from marketfetch.testing.http.server import stop_accepting
from marketfetch.testing.proxies.connection import BUFFER, ProxyConnection

__all__ = ["LocalProxies", "LocalProxy", "ProxyMode"]


class ProxyMode(enum.StrEnum):
    """The behaviour of a proxy. A change also affects open connections."""

    FORWARD = "forward"
    REFUSE = "refuse"
    """The port is closed and every open connection is reset."""
    HANG = "hang"
    """Connections are accepted, but no request is answered until the mode changes."""
    RESET = "reset"
    """Connections are reset at the first request."""
    DEMAND_CREDENTIALS = "demand_credentials"
    """Every request is answered with 407, also with the right credentials."""
    SLOW = "slow"
    """Responses are passed on at about 80 kB/s."""
    DIE_MIDWAY = "die_midway"
    """Half of the first piece of a response is passed on, then the connection is closed."""


class LocalProxy:
    """An HTTP proxy on loopback: forwards plain requests, tunnels CONNECT, keeps connections alive.

    Its outgoing connections come from the address `source`, so that a simulated exchange counts each proxy as
    a separate client; on systems other than Linux such loopback addresses must be configured first.
    `connections`, `requests` and `tunnels` are counters. `mode` may be changed from any thread but the
    proxy's own.

    >>> with LocalProxy("first", credentials=("user", "secret")) as proxy:
    ...     proxy.url  # doctest: +ELLIPSIS
    'http://user:secret@127.0.0.1:...'
    """

    def __init__(
        self,
        name: str = "proxy",
        source: str = "127.0.0.2",
        credentials: tuple[str, str] | None = None,
        *,
        background: BackgroundLoop | None = None,
    ) -> None:
        self.name = name
        self.source = source
        self.credentials = credentials
        self.connections = 0
        self.requests = 0
        self.tunnels = 0
        self._mode = ProxyMode.FORWARD
        self._own_thread = background is None
        self._background = background or BackgroundLoop(f"local-proxy-{name}")
        self._server: asyncio.Server | None = None
        self._port = 0
        self._connections: dict[ProxyConnection, asyncio.Task[None]] = {}
        self._mode_changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"LocalProxy({self.name!r}, source={self.source!r}, mode={self._mode})"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the proxy; the port stays the same while it refuses connections."""
        if not self._port:
            raise RuntimeError(f"proxy {self.name!r} is not running: enter its context manager first")
        return "127.0.0.1", self._port

    @property
    def url(self) -> str:
        """The proxy URL for a client, with credentials."""
        host, port = self.address
        user = "" if self.credentials is None else f"{':'.join(self.credentials)}@"
        return f"http://{user}{host}:{port}"

    @property
    def mode(self) -> ProxyMode:
        """The current behaviour."""
        return self._mode

    @mode.setter
    def mode(self, mode: ProxyMode) -> None:
        self._background.run(self._switch(ProxyMode(mode)))

    def __enter__(self) -> Self:
        if self._own_thread:
            self._background.start()
        self._background.run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._background.run(self._stop_listening())
        self._port = 0
        if self._own_thread:
            self._background.stop()

    async def changed(self) -> None:
        """Wait until the mode changes (called by its connections)."""
        await self._mode_changed.wait()

    def count_request(self) -> None:
        """Count one forwarded request (called by its connections)."""
        self.requests += 1

    def count_tunnel(self) -> None:
        """Count one tunnel (called by its connections)."""
        self.tunnels += 1

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self._port, limit=BUFFER, backlog=1024
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            await stop_accepting(server)
        tasks = list(self._connections.values())
        for connection, task in tuple(self._connections.items()):
            connection.close()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # One iteration of the loop, in which the transports close their sockets.
        await asyncio.sleep(0)

    async def _switch(self, mode: ProxyMode) -> None:
        before, self._mode = self._mode, mode
        self._mode_changed.set()
        self._mode_changed = asyncio.Event()
        if mode is ProxyMode.REFUSE and before is not ProxyMode.REFUSE:
            await self._stop_listening()
        elif before is ProxyMode.REFUSE and mode is not ProxyMode.REFUSE:
            await self._listen()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = ProxyConnection(self, reader, writer)
        task = asyncio.get_running_loop().create_task(connection.serve())
        self._connections[connection] = task
        task.add_done_callback(lambda _: self._ended(connection))

    def _ended(self, connection: ProxyConnection) -> None:
        connection.close()  # a task cancelled before its start has closed nothing
        self._connections.pop(connection, None)


class LocalProxies(Sequence[LocalProxy]):
    """Several local proxies in one thread, with the source addresses 127.0.0.2, 127.0.0.3 and so on.

    >>> with LocalProxies(3) as proxies:
    ...     [proxy.source for proxy in proxies]
    ['127.0.0.2', '127.0.0.3', '127.0.0.4']
    """

    def __init__(self, count: int, credentials: tuple[str, str] | None = None) -> None:
        if not 0 <= count <= 60_000:
            raise ValueError("there are loopback addresses for at most 60,000 proxies")
        self._background = BackgroundLoop("local-proxies")
        self._proxies = tuple(
            LocalProxy(f"proxy-{number + 1}", _loopback(number + 2), credentials, background=self._background)
            for number in range(count)
        )

    @overload
    def __getitem__(self, index: int) -> LocalProxy: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[LocalProxy]: ...

    def __getitem__(self, index: int | slice) -> LocalProxy | Sequence[LocalProxy]:
        return self._proxies[index]

    def __len__(self) -> int:
        return len(self._proxies)

    def __iter__(self) -> Iterator[LocalProxy]:
        return iter(self._proxies)

    @property
    def urls(self) -> list[str]:
        """The URL of every proxy, in order."""
        return [proxy.url for proxy in self._proxies]

    def __enter__(self) -> Self:
        self._background.start()
        for proxy in self._proxies:
            proxy.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for proxy in self._proxies:
            proxy.__exit__(*error)
        self._background.stop()


def _loopback(number: int) -> str:
    return f"127.0.{number // 254}.{number % 254 + (0 if number < 254 else 1)}"
