"""A relay before a database server that cuts connections at a COMMIT: what became of it, nobody can know."""

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
    """Passes everything on, but cuts as many connections at their COMMIT as it was told to."""

    socket: str
    """The server's own socket."""
    port: int = 0
    done: int = 0
    """How many it has cut."""
    _cuts: list[bool] = attrs.field(factory=list)

    def cut(self, reached: bool) -> None:
        """Cut at the next COMMIT; if it has `reached` the server, only the answer is lost."""
        self._cuts.append(reached)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until either side is gone."""
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
                    await there_reader.read(_CHUNK)  # the answer: it is durable, and nobody is told
                return
        except OSError:
            pass  # one side is gone, and the other learns it by the close below
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
        writer.close()  # also when the server has ended it: the client must hear of it


@contextmanager
def commit_proxy(socket: str) -> Iterator[CommitProxy]:
    """Run a relay on a port of the loopback until the block is left."""
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
