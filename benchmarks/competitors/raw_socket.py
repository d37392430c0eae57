"""The upper limit of any client: receive the same bytes through raw sockets, without decoding them."""

from __future__ import annotations

import selectors
import socket
from collections import deque
from urllib.parse import urlencode, urlsplit

import msgspec

from benchmarks.competitors.job import Job, run

_LIMIT = 1500
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class _Connection:
    """A persistent connection with one request at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self._host = f"{address[0]}:{address[1]}"

    def ask(self, target: str) -> None:
        self.socket.sendall(f"GET {target} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        self._body = memoryview(b"")
        self._filled = 0

    def take(self) -> memoryview | None:
        """Read once from a readable socket, and return the body if it is complete."""
        if self._body:
            self._filled += self._received(self.socket.recv_into(self._body[self._filled :]))
        else:
            # A small read: only the body bytes that follow the head are copied. The simulated exchange sends
            # the head in one piece, and never an empty body.
            data = self.socket.recv(4096)
            head, _, beginning = data[: self._received(len(data))].partition(_HEAD_END)
            if not head.startswith(b"HTTP/1.1 200 "):
                raise ValueError(f"not the answer that was wanted: {data[:200]!r}")
            _, _, length = head.lower().partition(_LENGTH)
            self._body = memoryview(bytearray(int(length.split(b"\r\n", 1)[0])))
            self._body[: len(beginning)] = beginning
            self._filled = len(beginning)
        return self._body if self._filled == len(self._body) else None

    @staticmethod
    def _received(count: int) -> int:
        if not count:
            raise ConnectionError("the server closed the connection in the middle of an answer")
        return count


def _targets(job: Job) -> list[list[str]]:
    width = _LIMIT * job.step
    return [
        [
            _target(job, symbol, start, min(start + width, job.end))
            for start in range(job.start, job.end, width)
        ]
        for symbol in job.symbols
    ]


def _target(job: Job, symbol: str, start: int, end: int) -> str:
    window = {"startTime": start, "endTime": end - 1, "limit": _LIMIT}
    return f"/fapi/v1/klines?{urlencode({'symbol': symbol, 'interval': job.interval, **window})}"


def _fetch(job: Job) -> list[list[memoryview]]:
    url = urlsplit(job.base_url)
    assert url.hostname is not None
    assert url.port is not None
    targets = _targets(job)
    bodies = [[memoryview(b"")] * len(pages) for pages in targets]
    waiting = deque((number, page) for number, pages in enumerate(targets) for page in range(len(pages)))
    with selectors.DefaultSelector() as selector:

        def ask_next(connection: _Connection) -> None:
            if waiting:
                number, page = waiting.popleft()
                connection.ask(targets[number][page])
                selector.modify(connection.socket, selectors.EVENT_READ, (connection, number, page))
            else:
                selector.unregister(connection.socket)
                connection.socket.close()

        for _ in range(min(job.concurrency, len(waiting))):
            connection = _Connection((url.hostname, url.port))
            selector.register(connection.socket, selectors.EVENT_READ)
            ask_next(connection)
        while selector.get_map():
            for key, _ in selector.select():
                connection, number, page = key.data
                if (body := connection.take()) is not None:
                    bodies[number][page] = body
                    ask_next(connection)
    return bodies


def _numbers(bodies: list[memoryview]) -> list[list[float]]:
    # Prices stay text; `digest` accepts both.
    return [row for body in bodies for row in msgspec.json.decode(body)]


if __name__ == "__main__":
    run(_fetch, _numbers)
