"""A plain HTTP client for these tests: standard library only, one keep-alive connection."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator
from typing import Any

import attrs

from marketfetch.testing.http.loopback import LoopbackServer


@attrs.frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@attrs.frozen
class Client:
    connection: http.client.HTTPConnection

    def get(self, path: str, headers: dict[str, str] | None = None, **params: Any) -> Answer:
        query = "&".join(f"{name}={value}" for name, value in params.items())
        self.connection.request("GET", f"{path}?{query}" if query else path, headers=headers or {})
        response = self.connection.getresponse()
        body = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


@contextlib.contextmanager
def client_of(exchange: LoopbackServer, timeout: float = 60) -> Iterator[Client]:
    host, port = exchange.address
    if exchange.certificate is None:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    else:
        context = ssl.create_default_context(cafile=str(exchange.certificate))
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    with contextlib.closing(connection):
        yield Client(connection)
