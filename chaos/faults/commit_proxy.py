"""A proxy before PostgreSQL that closes a connection at COMMIT: the client cannot know the outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from marketfetch.testing.http.background_loop import BackgroundLoop

__all__ = ["CommitProxy", "commit_proxy"]

_COMMIT = b"COMMIT\0"
_CHUNK = 2**16


@attrs.define(eq=False)
class CommitProxy:
    """A TCP proxy before PostgreSQL that forwards all data, and closes a connection at COMMIT on request."""

    socket: str
    """Path of the server's Unix socket."""
    port: int = 0
    done: int = 0
    """Number of connections that were closed at COMMIT."""
    _cuts: list[bool] = attrs.field(factory=list)

    def cut(self, reached: bool) -> None:
        """Close the connection of the next COMMIT, before (False) or after (True) it `reached` the server."""
        self._cuts.append(reached)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward the data of one client until client or server closes the connection."""
        there_reader, there_writer = await asyncio.open_unix_connection(self.socket)
        back = asyncio.create_task(self._pass_back(there_reader, writer))
        try:
            while data := await reader.read(_CHUNK):
                reached = self._cuts.pop() if self._cuts and _COMMIT in data else None
                if reached is None:
                    there_writer.write(data)
                    await there_writer.drain()
                    continue
                self.done += 1
                back.cancel()
                await asyncio.wait([back])
                if reached:
                    there_writer.write(data)
                    await there_reader.read(_CHUNK)  # the answer: the commit is durable, the client not told
                return
        except OSError:
            pass  # client or server is gone; closing both connections below informs the other side
        finally:
            for each in (writer, there_writer):
                each.transport.abort()
            back.cancel()

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()  # the server ended the connection: the client must see that too


@contextmanager
def commit_proxy(socket: str) -> Iterator[CommitProxy]:
    """Run the proxy on a loopback port until the block is left."""
    loop, proxy = BackgroundLoop("commit cutter"), CommitProxy(socket)
    loop.start()
    try:
        server = loop.run(asyncio.start_server(proxy.serve, "127.0.0.1", 0))
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy
        loop.run(_close(server))
    finally:
        loop.stop()


async def _close(server: asyncio.Server) -> None:
    server.close()
