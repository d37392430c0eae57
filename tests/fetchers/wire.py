"""A server that sends exactly the bytes a test wants, on the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs

from marketfetch.values.http import Cost, LimitPool, Request

POOL = LimitPool("test", 1_000_000, 60_000)
CUT = b"<cut>"  # at the end of an answer: the connection is closed
SILENCE = b"<silence>"  # at the end of an answer: nothing more comes


@attrs.define
class Wire:
    """What came in: heads of requests with their bodies, and how many connections."""

    answer: Callable[[bytes], bytes]
    port: int = 0
    requests: list[bytes] = attrs.field(factory=list)
    connections: int = 0

    def request(self, path: str = "/", **options: object) -> Request:
        return Request(path, cost=Cost(POOL), base_url=f"http://127.0.0.1:{self.port}", **options)  # type: ignore[arg-type]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (line for line in head.lower().split(b"\r\n") if b"content-length" in line), b":0"
                )
                head += await reader.readexactly(int(length.partition(b":")[2]))
                self.requests.append(head)
                answer = self.answer(head)
                writer.write(answer.removesuffix(SILENCE).removesuffix(CUT))
                await writer.drain()
                if answer.endswith(CUT):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def ok(body: bytes = b"[]", headers: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def wire(answer: Callable[[bytes], bytes] | bytes) -> AsyncIterator[Wire]:
    fixed = answer if isinstance(answer, bytes) else b""
    found = Wire((lambda _: fixed) if isinstance(answer, bytes) else answer)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(found.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
